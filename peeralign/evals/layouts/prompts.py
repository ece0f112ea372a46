"""Wordings of questions: the field's usual ones, and the user's own templates.

The usual ones are those that LLaVA-1.5 was trained and measured with (Liu et al., 2024, "Improved
Baselines with Visual Instruction Tuning", appendix), which both toolkits took over.
"""

from __future__ import annotations

import re
import string

from peeralign.errors import PeeralignError
from peeralign.evals.layouts.layout import Item, Layout

PLAIN = "{question}"
SHORT = "{question}\nAnswer the question using a single word or phrase."
YES_OR_NO = "{question} Please answer yes or no."
OPTIONS = (
    "{hint}\n{question}\n{options}\n"
    "Answer with the option's letter from the given choices directly."
)
FIELDS = ("question", "options", "hint")
_FIELD = re.compile(r"\{\{|\}\}|\{(\w*)\}")


def without_instruction(question: str) -> str:
    """A question without the "Please answer yes or no." that some files have at its end."""
    return question.strip().removesuffix(YES_OR_NO.removeprefix("{question}").strip()).strip()


def check_template(template: str) -> None:
    """Raises PeeralignError for a template without {question}, or with an unknown field."""
    found = {match[1] for match in _FIELD.finditer(template) if match[1] is not None}
    unknown = sorted(found - set(FIELDS))
    if unknown:
        raise PeeralignError(
            f"prompt has the field {{{unknown[0]}}}; its fields are {{question}}, {{options}} and "
            "{hint}, and other braces are written twice"
        )
    if "question" not in found:
        raise PeeralignError("prompt has no {question}; put it where the question goes")


def worded(item: Item, layout: Layout, template: str | None) -> str:
    """The text that is asked.

    Options are lines "A. text". A line whose fields are all empty is left out.
    """
    if template is None:
        if item.asked is not None:
            return item.asked.strip()
        template = layout.prompt
        if not item.options and layout.prompt_without_options is not None:
            template = layout.prompt_without_options
    values = {
        "question": item.question.strip(),
        "hint": item.hint.strip(),
        "options": "\n".join(
            f"{letter}. {option}"
            for letter, option in zip(string.ascii_uppercase, item.options, strict=False)
        ),
    }

    def filled(line: str) -> str | None:
        names = [match[1] for match in _FIELD.finditer(line) if match[1]]
        if names and not any(values[name] for name in names):
            return None
        return _FIELD.sub(lambda match: values[match[1]] if match[1] else match[0][0], line)

    lines = (filled(line) for line in template.split("\n"))
    return "\n".join(line for line in lines if line is not None).strip()
