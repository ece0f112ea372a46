"""MMMU (Yue et al., 2024): college questions of 30 subjects, with options or open.

Questions and options name images by number; an item has those that its text names. Their places in
the text are left out, since the only image goes before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from peeralign.evals.benchmarks.mmmu import DISCIPLINES
from peeralign.evals.layouts.cells import (
    choices,
    letter,
    listed,
    options,
    text,
    text_or_none,
    texts,
)
from peeralign.evals.layouts.inline import without_images
from peeralign.evals.layouts.layout import HUB, TSV, Form, Item, Layout, Row, Source, of_split

_SUBJECTS = {subject for names in DISCIPLINES.values() for subject in names.split(", ")}
# Options of VLMEvalKit for a question that is open: the answer and this.
_OTHERS = "Other Answers"
_SPLIT = "validation"


def _hub(row: Row) -> Item:
    is_open = text_or_none(row, "question_type") not in (None, "multiple-choice")
    found = [] if is_open else choices(row, "options")
    answers = [letter(row, len(found))] if found else texts(row, "answer")
    pictures = [row.get(f"image_{number}") for number in range(1, 8)]
    name = text(row, "id")
    return _item(row, found, answers, pictures, name, "_".join(name.split("_")[1:-1]))


def _validation(rows: Iterable[Row], source: Source) -> Iterator[Row]:
    # One table has the questions of dev beside those of validation.
    return of_split(rows, replace(source, split=source.split or _SPLIT))


def _tsv(row: Row) -> Item:
    found = options(row)
    if len(found) == 2 and found[1] == _OTHERS:
        found, answers = [], texts(row, "A", "answer")
    else:
        answers = [letter(row, len(found))] if found else texts(row, "answer")
    name = text_or_none(row, "id") or text(row, "index")
    named = [text_or_none(row, column) for column in ("category", "l2-category", "subject")]
    subjects = [each.replace(" ", "_") for each in named if each]
    known = [each for each in subjects if each in _SUBJECTS]
    subject = (known or subjects or [None])[0]
    return _item(row, found, answers, listed(row.get("image")), name, subject)


def _item(
    row: Row,
    found: Sequence[str],
    answers: list[str],
    pictures: Sequence[Any],
    name: str,
    subject: str | None,
) -> Item:
    question = text(row, "question")
    numbers = {int(each) for each in re.findall(r"<image (\d+)>", "\n".join([question, *found]))}
    shown = [picture for at, picture in enumerate(pictures, start=1) if at in numbers]
    return Item(
        without_images(question),
        shown or list(pictures),
        # The export to VLMEvalKit goes by its table's index, which is not the id.
        {"answers": answers, "index": text_or_none(row, "index")},
        id=name,
        options=[without_images(option) or option for option in found],
        category=subject or None,
    )


LAYOUT = Layout(
    title="MMMU",
    forms=(
        Form(HUB, ("id", "question", "options", "answer", "image_1"), _hub),
        Form(TSV, ("index", "question", "answer", "A", "image"), _tsv, rows=_validation),
    ),
    prompt="{question}\n{options}\n\n"
    "Answer with the option's letter from the given choices directly.",
    prompt_without_options="{question}\n\nAnswer the question using a single word or phrase.",
    split=_SPLIT,
    hub="lmms-lab/MMMU",
    configs=(),
    tsv=("MMMU_DEV_VAL.tsv",),
)
