"""Keep a model's control tokens out of text that users and candidates wrote.

An answer that holds ``<image>`` would add an image to its judge's prompt; one that ends a turn
could speak in the judge's place. Such strings are broken up, and the result is tokenised to see
that nothing is left of them: a normaliser may drop what broke a string or turn look-alikes into it,
and a template may complete what a text has begun.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from typing import Any

_ZERO_WIDTH_SPACE = "\u200b"
# Alike to the eye, and no normal form makes them one.
_LOOK_ALIKES = dict(zip("<>[]{}|", "‹›⁅⁆❴❵¦", strict=True))  # noqa: RUF001
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def control_strings(tokenizer: Any, processor: Any = None) -> list[str]:
    """Strings that this tokenizer or processor acts upon, longest first.

    Special tokens, placeholders of images, and added tokens that wear marks, as in ``<tool_call>``.
    A plain word that was added to a vocabulary commands nothing.
    """
    marked = {text for text in tokenizer.get_added_vocab() if _is_marked(text)}
    found = {*tokenizer.all_special_tokens, *placeholders(processor), *marked}
    return sorted((text for text in found if text.strip()), key=lambda text: (-len(text), text))


def placeholders(processor: Any) -> list[str]:
    """Strings that a processor looks for in a prompt, whether they are tokens or not."""
    named = {} if processor is None else vars(processor)
    found = {str(value) for name, value in named.items() if name.endswith("_token") and value}
    return sorted(text for text in found if text.strip())


def _is_marked(text: str) -> bool:
    edges = (text[0], text[-1])
    return any(char.isalnum() for char in text) and all(
        unicodedata.category(char)[0] in "PS" for char in edges
    )


def escape_controls(text: str, controls: list[str]) -> str:
    """Break every control string in `text` with a zero-width space, so it stays plain text."""
    for control in controls:
        broken = f"{control[0]}{_ZERO_WIDTH_SPACE}{control[1:]}"
        if len(control) == 1:
            broken = _LOOK_ALIKES.get(control, _ZERO_WIDTH_SPACE)
        if control in broken:
            broken = " "
        # Again and again, as a string can overlap itself.
        while control in text:
            text = text.replace(control, broken)
    return text


# Where a control token of some model family begins. Only its first character is matched, so that
# tokens inside one another are all found.
_CONTROL_STARTS = re.compile(
    r"<(?=[|\uff5c]"  # <|im_end|>, <|turn>, and DeepSeek's with full-width bars
    r"|0x[0-9A-Fa-f]{2}>"  # byte tokens
    r"|[/!\[]?[^\W\d][^<>\s]{0,99}>)"  # <image>, </s>, <row_1_col_1>, <[BOS_...]>, <turn|>
    r"|\[(?=/?[A-Z][A-Z_]+\d*\]"  # [INST], [/INST], [IMG_BREAK]
    r"|[gs]MASK\]|(?:unused|control_)\d+\]|multimodal\]|@BOS@\]|e~\[)"
    r"|\](?=<\]|~!?b)"  # MiniMax
    r"|>(?=>[A-Z_]+<<)"  # Falcon
    r"|\|(?=(?:ENDOFTEXT|SPEAKER|NEWLINE)\|)"  # Fuyu
)


def escape_any_controls(text: str) -> str:
    """Break what looks like a control token of any model family, for an unknown tokenizer.

    A zero-width space goes behind the first character, so the text reads as before. Markup tags
    such as ``<b>`` look the same and are broken too; ``a < b``, ``1 <2> 3`` and ``x[i]`` stay.
    """
    return _CONTROL_STARTS.sub(lambda found: found[0] + "\u200b", text)


def without_surrogates(text: str) -> str:
    """`text` with halves of characters replaced; JSON can hold them, tokenizers cannot."""
    return _LONE_SURROGATE.sub("\ufffd", text)


class Escaper:
    """Escapes text for one tokenizer and processor, and checks what becomes of it.

    `before` and `after` are what the chat template writes around a text.
    """

    def __init__(self, tokenizer: Any, processor: Any, before: str, after: str) -> None:
        self.tokenizer = tokenizer
        self.before, self.after = before, after
        self.controls = control_strings(tokenizer, processor)
        self._placeholders = placeholders(processor)
        self._ids = _control_ids(tokenizer, self.controls)
        # No control string can be written without these.
        self._edges = {_edge(control) for control in self.controls}
        self._folded_edges = set(_folded("".join(self._edges)))
        self._own = self._commands(before + "a" + after)

    def in_prompt(self, text: str) -> str:
        """`text` as it can stand in the template. Raises ValueError if it cannot be made plain."""
        return self._plain(text, self.before, self.after)

    def alone(self, text: str) -> str:
        """`text` as it can stand by itself. Raises ValueError if it cannot be made plain."""
        return self._plain(text, "", "")

    def _plain(self, text: str, before: str, after: str) -> str:
        text = without_surrogates(text)
        own = self._own if before or after else Counter()
        for escape in (self._broken, self._disguised):
            escaped = escape(text)
            if self._commands(before + escaped + after) == own:
                return escaped
        raise ValueError(
            f"a text of {len(text)} characters becomes control tokens of this model, however it is "
            f"escaped: {text[:60]!r}"
        )

    def _broken(self, text: str) -> str:
        # Most texts have none of these characters, and a tokenizer may have thousands of strings.
        if not any(edge in text for edge in self._edges):
            return text
        return escape_controls(text, self.controls)

    def _disguised(self, text: str) -> str:
        """`text` without the characters that a control string needs, in whatever form."""
        chars = [
            char if self._folded_edges.isdisjoint(_folded(char)) else _look_alike(char)
            for char in text
        ]
        # Apart from the template, which might complete what stands at an end.
        return f" {''.join(chars)} "

    def _commands(self, text: str) -> Counter[int | str]:
        """How often each control token and placeholder comes out of a text."""
        ids = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        found: Counter[int | str] = Counter(token for token in ids if token in self._ids)
        found.update({mark: text.count(mark) for mark in self._placeholders if mark in text})
        return found


def _control_ids(tokenizer: Any, controls: list[str]) -> set[int]:
    vocabulary = tokenizer.get_vocab()
    ids = {vocabulary[text] for text in controls if text in vocabulary}
    if tokenizer.unk_token_id != tokenizer.eos_token_id:
        # Any odd character becomes it; it commands nothing.
        ids.discard(tokenizer.unk_token_id)
    return ids


def _edge(control: str) -> str:
    """A character of a control string that plain text can do without, if it has one."""
    return next((char for char in control if not char.isalnum() and not char.isspace()), control[0])


def _look_alike(char: str) -> str:
    return _LOOK_ALIKES.get(_folded(char)[0], " ")


def _folded(text: str) -> str:
    """What normalisers of all kinds may make of it."""
    return unicodedata.normalize("NFKD", text).casefold()
