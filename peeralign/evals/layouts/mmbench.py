"""MMBench (Liu et al., 2024): each question in every rotation of its options (CircularEval).

Published files have the rotations as rows of their own, whose index is the question's plus a
million for each turn. Files without any get them here, in the same order: each turn moves the first
option to the end. The first pass has the question's index as its id, "241"; turns are "241-1" and
so on.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Iterator

from peeralign.evals.layouts.cells import letter, options, text, text_or_none, without_nan
from peeralign.evals.layouts.layout import HUB, TSV, Form, Item, Layout, Row, Source, of_split
from peeralign.evals.layouts.prompts import OPTIONS
from peeralign.evals.layouts.tables import open_table
from peeralign.store.conversations import Unusable

OFFSET = 1_000_000
_TURN, _GROUP = "_turn", "_group"


def _rotations(rows: Iterable[Row], source: Source) -> Iterator[Row]:
    # Whether a file has rotations is known at its end only; it is read once more for that.
    are_there = any(_place(row)[1] for file in source.files for row in open_table(file)[1])
    for row in of_split(rows, source):
        group, turn = _place(row)
        turns = (turn,) if are_there else range(_num_options(row))
        for turn in turns:
            moved = row if are_there else _turned(row, turn)
            yield {**moved, _GROUP: group, _TURN: turn}


def _place(row: Row) -> tuple[str, int]:
    """The question that a row asks, and which of its rotations it is."""
    index = str(row.get("index")).strip()
    if not index.isdecimal():
        return index, 0
    group = str(row.get("g_index") or int(index) % OFFSET)
    return group, int(index) // OFFSET


def _num_options(row: Row) -> int:
    try:
        return max(len(_options(row)), 1)
    except Unusable:
        return 1


def _turned(row: Row, turn: int) -> Row:
    if turn == 0:
        return row
    found = _options(row)
    letters = string.ascii_uppercase[: len(found)]
    turned = dict(zip(letters, found[turn:] + found[:turn], strict=True))
    answer = str(row.get("answer")).strip().upper()
    if len(answer) == 1 and answer in letters:
        turned["answer"] = letters[letters.index(answer) - turn]
    # No row of the file has this one's index.
    return {**row, **turned, "index": None}


def _options(row: Row) -> list[str]:
    return without_nan(options(row))


def _item(row: Row) -> Item:
    found = _options(row)
    hint = text_or_none(row, "hint")
    group, turn = row[_GROUP], row[_TURN]
    keys = {
        "answer": letter(row, len(found)),
        "group": group,
        "l2_category": text_or_none(row, "l2-category") or text_or_none(row, "L2-category"),
        "split": text_or_none(row, "split"),
        # The export to VLMEvalKit goes by it.
        "index": text_or_none(row, "index"),
    }
    return Item(
        text(row, "question"),
        row.get("image"),
        keys,
        id=f"{group}-{turn}" if turn else group,
        options=found,
        hint="" if hint in (None, "nan") else hint,
        category=text_or_none(row, "category"),
    )


LAYOUT = Layout(
    title="MMBench",
    forms=(
        Form(HUB, ("index", "question", "A", "B", "image"), _item, rows=_rotations),
        Form(
            TSV,
            ("index", "question", "A", "B", "image"),
            _item,
            files=("mmbench_dev_20230712.tsv",),
            rows=_rotations,
        ),
    ),
    prompt=OPTIONS,
    split="dev",
    hub="lmms-lab/MMBench",
    configs=("en",),
    tsv=(
        *("MMBench_DEV_EN.tsv", "MMBench_DEV_EN_V11.tsv"),
        *("MMBench_DEV_CN.tsv", "MMBench_DEV_CN_V11.tsv"),
    ),
    tsv_folder="benchmarks/MMBench",
    original=(
        "https://download.openmmlab.com/mmclassification/datasets/mmbench/mmbench_dev_20230712.tsv"
    ),
)
