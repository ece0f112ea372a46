"""MME (Fu et al., 2023): two questions about each image, in 14 tasks.

Authors' files (MME_Benchmark_release_version): a folder for each task, with IMAGE.txt of two lines,
question and answer parted by a tab, beside the image, or in questions_answers_YN and images.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

from peeralign.evals.benchmarks.mme import COGNITION, PERCEPTION
from peeralign.evals.layouts.cells import text
from peeralign.evals.layouts.layout import (
    FILE,
    HUB,
    ORIGINAL,
    TSV,
    Form,
    Item,
    Layout,
    Row,
    Source,
)
from peeralign.evals.layouts.prompts import SHORT, without_instruction
from peeralign.images.load import SUFFIXES

_TEXTS, _IMAGES = "questions_answers_YN", "images"


def _item(row: Row, name: object, shown: str) -> Item:
    keys = {"answer": text(row, "answer"), "image": shown}
    question, category = without_instruction(text(row, "question")), text(row, "category")
    return Item(question, row.get("image"), keys, id=name, category=category)


def _hub(row: Row) -> Item:
    # Both questions about an image have one question_id, the image's name.
    return _item(row, row["question_id"], text(row, "question_id"))


def _tsv(row: Row) -> Item:
    return _item(row, row["index"], text(row, "image_path"))


def _with_images(rows: Iterable[Row], source: Source) -> Iterator[Row]:
    for row in rows:
        file = PurePosixPath(row[FILE])
        is_apart = file.parent.name == _TEXTS
        folder = file.parent.parent if is_apart else file.parent
        stem = (folder / _IMAGES if is_apart else folder) / file.stem
        names = [f"{stem}{suffix}" for suffix in SUFFIXES]
        found = next((name for name in names if (source.folder / name).is_file()), names[0])
        question, _, answer = row["line"].partition("\t")
        pair = {"question": question, "answer": answer.strip()}
        yield {**row, **pair, "image": found, "category": folder.name, "stem": file.stem}


def _original(row: Row) -> Item:
    name = f"{row['category']}/{row['stem']}"
    return _item(row, name, name)


_PLACES = [
    f"{top}{task}/{texts}*.txt"
    for top in (
        "",
        "MME_Benchmark_release_version/",
        "MME_Benchmark_release_version/MME_Benchmark/",
    )
    for task in (*PERCEPTION, *COGNITION)
    for texts in ("", f"{_TEXTS}/")
]

LAYOUT = Layout(
    title="MME",
    forms=(
        Form(HUB, ("question_id", "image", "question", "answer", "category"), _hub),
        Form(TSV, ("index", "question", "answer", "category", "image_path"), _tsv),
        Form(
            ORIGINAL,
            ("line",),
            _original,
            files=tuple(_PLACES),
            rows=_with_images,
            rooted=True,
        ),
    ),
    prompt=SHORT,
    hub="lmms-lab/MME",
    tsv=("MME.tsv",),
    original="https://github.com/BradyFU/Awesome-Multimodal-Large-Language-Models",
)
