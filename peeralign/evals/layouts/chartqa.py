"""ChartQA (Masry et al., 2022): the test set's two halves, by people and augmented.

Authors' files (vis-nlp/ChartQA, "ChartQA Dataset"): test/test_human.json, test/test_augmented.json
with imgname, query, label, and test/png.
"""

from __future__ import annotations

from peeralign.evals.layouts.cells import text, text_or_none, texts
from peeralign.evals.layouts.layout import FILE, HUB, ORIGINAL, TSV, Form, Item, Layout, Row


def _hub(row: Row) -> Item:
    keys = {"answers": [text(row, "answer")], "split": text_or_none(row, "type")}
    return Item(text(row, "question"), row["image"], keys)


def _tsv(row: Row) -> Item:
    keys = {"answers": texts(row, "answer"), "split": text_or_none(row, "split")}
    return Item(text(row, "question"), row.get("image"), keys, id=row["index"])


def _original(row: Row) -> Item:
    half = next((half for half in ("human", "augmented") if half in row[FILE]), None)
    keys = {"answers": [text(row, "label", "answer")], "split": half}
    return Item(text(row, "query", "question"), row["imgname"], keys)


LAYOUT = Layout(
    title="ChartQA",
    forms=(
        Form(HUB, ("question", "answer", "image"), _hub),
        Form(TSV, ("index", "question", "answer"), _tsv),
        Form(
            ORIGINAL,
            ("imgname", "query", "label"),
            _original,
            files=(
                *("test/test_human.json", "test/test_augmented.json", "test_*.json"),
                "ChartQA Dataset/test/test_*.json",
            ),
            images=("png",),
        ),
    ),
    prompt="{question}\nAnswer the question with a single word.",
    hub="lmms-lab/ChartQA",
    tsv=("ChartQA_TEST.tsv",),
    original="https://github.com/vis-nlp/ChartQA",
)
