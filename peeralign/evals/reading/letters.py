"""Which option a reply names: this package's own reader, and those of the scripts.

A reader gives a letter and how it was found: "parsed", "ambiguous" (several were named; the letter
is the one that the script settles for, if it settles) or "none".
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from typing import NamedTuple

from peeralign.evals.benchmark import Parsed

LETTERS = string.ascii_uppercase


class Choice(NamedTuple):
    """The letter a reply names, or None, and how it was found."""

    letter: str | None
    parsed: Parsed


NOTHING = Choice(None, "none")


def only(letter: str | None) -> Choice:
    """A choice without rivals, if there is a letter."""
    return Choice(letter, "parsed") if letter else NOTHING


def read_letter(text: str, choices: Sequence[str]) -> Choice:
    """Read a reply strictly, for benchmarks without a script of their own.

    In this order: an option's text and nothing else; a letter and nothing else; "answer", "option"
    or "choice", perhaps "is", and a letter; a letter at the start ("B. a dog") or in brackets. Two
    letters found by one rule are ambiguous, and then there is no letter.
    """
    plain, *options = (each.strip().rstrip(".").casefold() for each in (text, *choices))
    named = [LETTERS[n] for n, option in enumerate(options) if option == plain]
    if len(named) == 1:
        return only(named[0])
    known = LETTERS[: len(choices)]
    if len(plain) == 1 and plain.upper() in known:
        return only(plain.upper())
    stated = rf"(?:[Aa]nswer|[Oo]ption|[Cc]hoice)(?: is)?\s*:?\s*\W*([{known}])(?![A-Za-z'])"
    at_start, in_brackets = rf"^\W*([{known}])(?:[]).:,]|\*\*|\s*$)", rf"\(([{known}])\)"
    for rule in ((stated,), (at_start, in_brackets)):
        found = {letter for pattern in rule for letter in re.findall(pattern, text)}
        if found:
            return only(found.pop()) if len(found) == 1 else Choice(None, "ambiguous")
    return NOTHING


def mmmu_letter(text: str, choices: Sequence[str], loosely: bool = False) -> Choice:
    """MMMU's rule; `loosely` as lmms-eval has it.

    Letters in brackets, or else standing alone, or else (replies of more than five words) the
    options' texts; the last one named wins. lmms-eval also takes a letter at the end of a word
    ("DNA ") and one before a period. Where MMMU draws a random option there is none.
    """
    for mark in ",.!?;:'":
        text = text.strip(mark)
    text = f" {text} "
    known = LETTERS[: len(choices)]
    forms = ["({})", "{} ", "{}."] if loosely else ["({})", " {} "]
    for form in forms:
        found = [letter for letter in known if form.format(letter) in text]
        if found:
            # Both scripts look for the last one by itself, even if none stands by itself.
            last = form if form == "({})" else " {} "
            return _last(found, [text.rfind(last.format(letter)) for letter in found])
    if len(text.split()) > 5:
        options = dict(zip(known, (option.lower() for option in choices), strict=True))
        found = [letter for letter, option in options.items() if option in text.lower()]
        if found:
            return _last(found, [text.lower().rfind(options[letter]) for letter in found])
    return NOTHING


def _last(found: list[str], places: list[int]) -> Choice:
    letter = found[places.index(max(places))]
    return Choice(letter, "parsed" if len(found) == 1 else "ambiguous")


_API_FAILED = "Failed to obtain answer via API"
_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)


def kit_letter(text: str, choices: Sequence[str]) -> Choice:
    """VLMEvalKit's rules, without the language model that reads what they leave.

    One letter among the last four words; else "answer is" and any A, B, C or D, even the first of
    a word; else the one option whose text is in a reply that is not much longer than the options.
    """
    if _API_FAILED in text:
        return _kit_option(text, choices)
    if any(refusal in text for refusal in _REFUSALS):
        return NOTHING
    words = text.translate(str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))).split()
    known = LETTERS[: len(choices)]
    named = [letter for letter in known if letter in words]
    if len(named) == 1 and words.index(named[0]) > len(words) - 5:
        return only(named[0])
    if not named and "Z" in words:
        return NOTHING
    stated = re.search(r"(?i)(?:correct\s+)?answer\s+is\s+\**([ABCD])\**", text)
    if stated and stated[1].upper() in known:
        return only(stated[1].upper())
    by_text = _kit_option(text, choices)
    if by_text.letter is None and len(named) > 1:
        return Choice(None, "ambiguous")
    return by_text


def _kit_option(text: str, choices: Sequence[str]) -> Choice:
    if len(text.lower()) > 2 * sum(map(len, choices)):
        return NOTHING
    return _one_option(text, choices)


def _one_option(text: str, choices: Sequence[str]) -> Choice:
    named = [LETTERS[n] for n, option in enumerate(choices) if option.lower() in text.lower()]
    if len(named) > 1:
        return Choice(None, "ambiguous")
    return only(named[0] if named else None)


_LMMS_PHRASES = (
    *("the answer is", "answer is", "the correct answer is", "correct answer is"),
    *("the best answer is", "best answer is", "the correct option is", "correct option is"),
    *("the best option is", "best option is", "the choice is", "choice is"),
    *("the correct choice is", "correct choice is", "i choose", "i select", "i pick"),
    *("my answer is", "my choice is", "옵션", "정답은", "답은", "답:", "答案是", "答案为", "选"),
    "答えは",
)


def lmms_letter(text: str, known: str) -> Choice:
    """lmms-eval's reader of option letters (its `mcq_extract`).

    The letter found by the best of these rules wins, and of several the last one: at the start, at
    the end, anywhere after "the answer is" and the like, "(B)", "B.", "B:", "B)", "B ". If there is
    none, the last capital letter of a word that could be one wins, so that only a reply without any
    has no answer.
    """
    text = text.strip()
    for mark in ",.!?;:'\"":
        text = text.strip(mark)
    text = f" {text} "
    bare = text.strip()
    alone = [x for x in known if bare.startswith(x) and not bare[1:2].isalpha()]
    closing = [x for x in known if bare.endswith(x) and not bare[-2:-1].isalpha()]
    rules = [[(0, x) for x in alone], [(0, x) for x in closing], _after_phrases(text, known)]
    for form in ("({})", "{}.", "{}:", "{})", "{} ", "{}"):
        rules.append([(text.rfind(form.format(x)), x) for x in known if form.format(x) in text])
    for found in rules:
        if found:
            best = max(found, key=lambda place: place[0])[1]
            rivals = {letter for _, letter in found}
            return Choice(best, "parsed" if len(rivals) == 1 else "ambiguous")
    return NOTHING


def _after_phrases(text: str, known: str) -> list[tuple[int, str]]:
    lower = text.lower()
    starts = [lower.find(phrase) + len(phrase) for phrase in _LMMS_PHRASES if phrase in lower]
    places = [(text.find(letter, start), letter) for start in starts for letter in known]
    return [place for place in places if place[0] != -1]


_LMMS_FORMS = "{0} {0}. {0}, {0}: {0}) {0}). ({0}) ({0}). :{0} :{0}, :{0}. :{0}) :{0})."


def lmms_mmbench_letter(text: str, choices: Sequence[str]) -> Choice:
    """lmms-eval's MMBench: an older rule of VLMEvalKit, then its own reader of letters.

    It knows four options always; those that a question lacks have the text "nan" in its files, so
    that "banana" names them too.
    """
    choices = [*choices, *["nan"] * (4 - len(choices))]
    words = [] if _API_FAILED in text else text.split()
    for form in _LMMS_FORMS.split():
        named = [x for x in LETTERS[:5] if form.format(x) in words]
        # A lone "A" in a longer reply may be an article.
        is_article = form == "{0}" and "A" in words and len(words) > 3
        if len(named) == 1 and not is_article:
            return only(named[0])
    by_text = _one_option(text, choices)
    return by_text if by_text.letter else lmms_letter(text, LETTERS[: len(choices)])
