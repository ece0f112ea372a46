"""Texts made comparable, as the VQA challenge does it, and replies that say yes or no."""

from __future__ import annotations

import re
import string

from peeralign.evals.benchmark import Parsed

# What the challenge writes with apostrophes. A word is recognised without its apostrophe or, where
# it has several, without one of them.
_CONTRACTIONS = """
ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd
how'll how's isn't it'd it'll ma'am mightn't might've mustn't must've needn't not've o'clock
oughtn't shan't should've shouldn't somebody'll somebody's someone'd someone'll someone's
something'd something'll that's there'd there're there's they'd they'll they're they've 'twas
wasn't we've weren't what'll what're what's what've when's where'd where's where've who'd who'll
who's who've why'll why're why's won't would've wouldn't y'all you'd you'll you're you've
couldn't've hadn't've he'd've it'd've mightn't've she'd've shouldn't've somebody'd've someone'd've
something'd've there'd've they'd've we'd've who'd've wouldn't've y'all'll you'd've y'all'd've
'ow's'at
"""
_NUMBERS = "zero one two three four five six seven eight nine ten"
_ARTICLES = {"a", "an", "the"}
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'


def _respelled() -> dict[str, str]:
    words = {}
    for word in _CONTRACTIONS.split():
        for mark in re.finditer("'", word):
            words[word[: mark.start()] + word[mark.end() :]] = word
    # The challenge's table has this one the wrong way round.
    words["somebody'd"] = "somebodyd"
    return words


_RESPELLED = _respelled()
_DIGITS = {"none": "0", **{word: str(number) for number, word in enumerate(_NUMBERS.split())}}


def vqa_normalised(text: str) -> str:
    """A text as the evaluation server of TextVQA compares it (MMF's EvalAI answer processor).

    Lower case; no commas and question marks; other punctuation removed, or a blank where it stands
    between letters; no articles; numbers up to ten as digits; apostrophes put in.
    """
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    text = _without_punctuation(text.replace("\n", " ").replace("\t", " ").strip())
    # The script passes a flag in the place of the most that are replaced, which is then 32.
    return _plain_words(re.sub(r"\.(?!\d)", "", text, count=32))


def kit_vqa_normalised(text: str) -> str:
    """A text as VLMEvalKit compares it: commas are punctuation, and "3." keeps its period."""
    text = text.replace("\n", " ").replace("\t", " ").strip()
    return _plain_words(kit_without_punctuation(text))


def kit_without_punctuation(text: str) -> str:
    """VLMEvalKit's removal of punctuation; case stays."""
    return re.sub(r"(?<!\d)\.(?!\d)", "", _without_punctuation(text), count=32)


def _without_punctuation(text: str) -> str:
    has_digit_group = re.search(r"\d,\d", text) is not None
    cleaned = text
    for mark in _PUNCTUATION:
        at_a_gap = f"{mark} " in text or f" {mark}" in text
        cleaned = cleaned.replace(mark, "" if at_a_gap or has_digit_group else " ")
    return cleaned


def _plain_words(text: str) -> str:
    words = [_DIGITS.get(word, word) for word in text.lower().split()]
    return " ".join(_RESPELLED.get(word, word) for word in words if word not in _ARTICLES)


_WITHOUT_MARKS = str.maketrans("", "", string.punctuation)


def without_marks(text: str) -> str:
    """A text in lower case and without ASCII punctuation: lmms-eval's exact match."""
    return text.lower().translate(_WITHOUT_MARKS)


def said(text: str) -> Parsed:
    """Whether a reply says yes or no ("parsed"), both ("ambiguous") or neither ("none")."""
    words = set(re.findall(r"[a-z]+", text.lower()))
    yes, no = "yes" in words, bool(words & {"no", "not"})
    if yes and no:
        return "ambiguous"
    return "parsed" if yes or no else "none"


def kit_yes_or_no(text: str) -> str | None:
    """The one of "yes" and "no" that is among the words, unless both are: VLMEvalKit's rule."""
    words = kit_without_punctuation(text.lower()).split()
    named = [word for word in ("yes", "no") if word in words]
    return named[0] if len(named) == 1 else None


def pope_yes_or_no(text: str) -> str:
    """POPE's rule: "no" if the first sentence has the word No, no or not, otherwise "yes"."""
    words = text.split(".")[0].replace(",", "").split(" ")
    return "no" if {"No", "not", "no"} & set(words) else "yes"
