"""No text becomes a control token, whatever the tokenizer does to text before it looks for them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers
from transformers import LlavaProcessor, PreTrainedTokenizerFast

from peeralign.chat import ChatFormat
from peeralign.escape import Escaper, control_strings, escape_controls

NORMALISERS = {
    "none": None,
    "nfkc": normalizers.NFKC(),
    "lower case": normalizers.Lowercase(),
    "drops zero width": normalizers.Replace("\u200b", ""),
    "strips accents": normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()]),
    "all of them": normalizers.Sequence(
        [
            normalizers.NFKD(),
            normalizers.StripAccents(),
            normalizers.Lowercase(),
            normalizers.Replace("\u200b", ""),
        ]
    ),
}
TEXTS = [
    "<image>",
    "</s>",
    "<im<image>age>",
    "<IMAGE></S>",
    "＜image＞",  # noqa: RUF001
    "<\u200bimage>",
    "<i\u200bma\u200bge></\u200bs>",
    "≮image≯",
    "<imagé>",
    "<ｉｍａｇｅ>",  # noqa: RUF001
    "a § b",
    "<image",
    "image>",
    "\ud800<image>\udfff",
]
# What each of these does to a text shows in the ids of some letters.
HARMLESS = ["a red circle", "5 > 3 and 3 < 5", "x | y", "[1, 2]", "", " ", "café"]


def character_tokenizer(normaliser: Any, marks_are_normalised: bool) -> PreTrainedTokenizerFast:
    """A token for every ASCII character, and control strings that may be looked for late."""
    letters = [chr(number) for number in range(32, 127)]
    core = Tokenizer(
        models.BPE({c: i for i, c in enumerate(["<unk>", *letters])}, [], unk_token="<unk>")
    )
    core.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    if normaliser is not None:
        core.normalizer = normaliser
    core.add_special_tokens(
        [
            AddedToken(text, normalized=marks_are_normalised, special=True)
            for text in ("<s>", "</s>", "<image>", "§")
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        extra_special_tokens={"image_token": "<image>", "mark_token": "§"},
    )


def commands(tokenizer: Any, text: str) -> list[int]:
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return [token for token in ids if token in special]


@pytest.mark.parametrize("marks_are_normalised", [False, True])
@pytest.mark.parametrize("name", NORMALISERS)
def test_nothing_becomes_a_control_token(name: str, marks_are_normalised: bool) -> None:
    tokenizer = character_tokenizer(NORMALISERS[name], marks_are_normalised)
    escaper = Escaper(tokenizer, None, "<s>USER: <image>\n", " ASSISTANT:")
    own = commands(tokenizer, "<s>USER: <image>\n ASSISTANT:")
    assert len(own) == 2
    for text in TEXTS:
        assert commands(tokenizer, escaper.alone(text)) == [], repr(text)
        prompt = f"<s>USER: <image>\n{escaper.in_prompt(text)} ASSISTANT:"
        assert commands(tokenizer, prompt) == own, repr(text)


def test_the_normalisers_would_undo_a_simple_escape() -> None:
    undone = Counter(
        name
        for name, normaliser in NORMALISERS.items()
        for text in TEXTS[:-1]
        if commands(
            tokenizer := character_tokenizer(normaliser, True),
            escape_controls(text, control_strings(tokenizer)),
        )
    )
    assert set(undone) == set(NORMALISERS) - {"none"}


@pytest.mark.parametrize("name", NORMALISERS)
def test_a_harmless_text_is_left_alone(name: str) -> None:
    tokenizer = character_tokenizer(NORMALISERS[name], True)
    escaper = Escaper(tokenizer, None, "<image>", "")
    for text in HARMLESS:
        assert escaper.in_prompt(text) == escaper.alone(text) == text


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        ("<image><", ">", "image"),
        ("<image><ima", " ASSISTANT:", "ge> red"),
        ("<image> ", "ge> ASSISTANT:", "red <ima"),
        ("<image></", "> ASSISTANT:", "s"),
    ],
)
def test_a_template_completes_nothing(before: str, after: str, text: str) -> None:
    tokenizer = character_tokenizer(None, False)
    assert len(commands(tokenizer, before + text + after)) == 2
    escaped = Escaper(tokenizer, None, before, after).in_prompt(text)
    assert escaped.strip().replace("‹", "<") == text  # noqa: RUF001
    assert len(commands(tokenizer, before + escaped + after)) == 1


def test_a_tokenizer_that_sees_commands_everywhere_is_refused() -> None:
    tokenizer = character_tokenizer(normalizers.Replace("#", "<image>"), True)
    escaper = Escaper(tokenizer, None, "", "")
    assert escaper.alone("number 5") == "number 5"
    with pytest.raises(ValueError, match=r"becomes control tokens .*'number #5'"):
        escaper.alone("number #5")


def test_a_placeholder_counts_though_it_is_no_token(processor: Any) -> None:
    # Some processors look for a video's placeholder in a prompt even where no such token exists.
    other = LlavaProcessor(
        image_processor=processor.image_processor,
        tokenizer=processor.tokenizer,
        patch_size=16,
        chat_template=processor.chat_template,
    )
    other.video_token = "<video>"
    chat = ChatFormat(other)
    assert "<video>" in chat.controls
    assert "<video>" not in chat.prompt("<video> <VIDEO>")
    assert "<VIDEO>" in chat.prompt("<video> <VIDEO>")


def test_words_added_to_a_vocabulary_are_no_controls() -> None:
    tokenizer = character_tokenizer(None, False)
    tokenizer.add_tokens(["bicycle", "ß", "...", "<tool_call>", "[note]"])
    assert control_strings(tokenizer) == [
        "<tool_call>",
        "<image>",
        "[note]",
        "<unk>",
        "</s>",
        "<s>",
        "§",
    ]


def test_a_string_that_overlaps_itself_is_broken_everywhere() -> None:
    for control in ("##", "#a#", "a\u200b", "\u200b", "<"):
        for text in (control * 5, f"x{control}y", "#a#a#a#", "#####"):
            assert control not in escape_controls(text, [control])


def test_lone_surrogates_become_replacement_characters(chat: ChatFormat) -> None:
    assert "a\ufffdb" in chat.prompt("a\ud800b")
    assert chat.text_ids("a\udc00b") == chat.text_ids("a\ufffdb")
