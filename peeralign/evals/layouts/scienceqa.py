"""ScienceQA (Lu et al., 2022): the questions that have an image, as "ScienceQA-IMG" counts them.

Authors' files (lupantech/ScienceQA, data/scienceqa): problems.json, pid_splits.json and
images/SPLIT/PID/image.png. The splits minitrain, minival and minitest are in pid_splits.json only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from peeralign.errors import PeeralignError
from peeralign.evals.layouts.cells import choices, letter, options, text, text_or_none
from peeralign.evals.layouts.layout import (
    HUB,
    ORIGINAL,
    TSV,
    Form,
    Item,
    Layout,
    Row,
    Source,
    of_split,
)
from peeralign.evals.layouts.prompts import OPTIONS
from peeralign.evals.layouts.tables import open_table

_SPLIT = "test"


def _item(row: Row, found: list[str], name: object = None) -> Item:
    context = text_or_none(row, "hint")
    keys = {
        "answer": letter(row, len(found)),
        "subject": text_or_none(row, "subject"),
        "grade": text_or_none(row, "grade"),
        "has_text": context is not None,
        # Items without an image are set aside.
        "has_image": True,
    }
    return Item(
        text(row, "question"),
        row.get("image"),
        keys,
        id=name,
        options=found,
        hint=context or "",
        category=text_or_none(row, "category"),
    )


def _hub(row: Row) -> Item:
    return _item(row, choices(row))


def _tsv(row: Row) -> Item:
    return _item(row, options(row), row["index"])


def _problems(rows: Iterable[Row], source: Source) -> Iterator[Row]:
    wanted = source.split or _SPLIT
    file = source.files[0].parent / "pid_splits.json"
    if not file.is_file():
        yield from of_split(rows, replace(source, split=wanted))
        return
    splits = next(open_table(file)[1], {})
    if not isinstance(splits.get(wanted), list):
        raise PeeralignError(
            f"{file} has no split '{wanted}', only {', '.join(splits)}; set split to one of these"
        )
    pids = {str(pid) for pid in splits[wanted]}
    yield from (row for row in rows if str(row.get("id")) in pids)


def _original(row: Row) -> Item:
    name = text_or_none(row, "image")
    image = f"{row.get('split')}/{row.get('id')}/{name}" if name else None
    return _item({**row, "image": image}, choices(row), row.get("id"))


LAYOUT = Layout(
    title="ScienceQA",
    forms=(
        Form(HUB, ("question", "choices", "answer", "hint", "image"), _hub),
        Form(TSV, ("index", "question", "answer", "A", "image"), _tsv),
        Form(
            ORIGINAL,
            ("question", "choices", "answer", "hint", "image"),
            _original,
            files=("problems.json", "data/scienceqa/problems.json"),
            rows=_problems,
        ),
    ),
    prompt=OPTIONS.replace("{hint}", "Context: {hint}"),
    split=_SPLIT,
    hub="lmms-lab/ScienceQA",
    configs=("ScienceQA-IMG",),
    tsv=("ScienceQA_TEST.tsv",),
    tsv_folder="benchmarks/ScienceQA",
    original="https://github.com/lupantech/ScienceQA",
)
