"""AI2D (Kembhavi et al., 2016): questions about diagrams.

Authors' files (ai2d-all.zip): questions/NAME.png.json, each with the questions about one diagram,
images, and abc_images, where letters stand for the labels that a question asks about. Which
diagrams are the test set says ai2d_test_ids.csv, a file of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

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
)
from peeralign.evals.layouts.prompts import OPTIONS
from peeralign.store.files import reading

SPLITS = ("test", "train", "all")


def _hub(row: Row) -> Item:
    found = choices(row, "options")
    return Item(
        text(row, "question"), row["image"], {"answer": letter(row, len(found))}, options=found
    )


def _tsv(row: Row) -> Item:
    found = options(row)
    keys = {"answer": letter(row, len(found))}
    question, category = text(row, "question"), text_or_none(row, "category")
    return Item(question, row.get("image"), keys, row["index"], found, category=category)


def _questions(rows: Iterable[Row], source: Source) -> Iterator[Row]:
    wanted = "test" if source.split is None else source.split
    if wanted not in SPLITS:
        raise PeeralignError(f"AI2D has no split '{wanted}', only {', '.join(SPLITS)}")
    tested = set() if wanted == "all" else _test_ids(source)
    for row in rows:
        diagram, questions = str(row.get("imageName")), row.get("questions")
        is_test = diagram.rsplit(".", 1)[0] in tested
        if wanted != "all" and is_test != (wanted == "test"):
            continue
        for question, about in questions.items() if isinstance(questions, dict) else ():
            yield {**(about if isinstance(about, dict) else {}), "question": question} | {
                "imageName": diagram
            }


def _test_ids(source: Source) -> set[str]:
    file = source.beside("ai2d_test_ids.csv")
    with reading(file):
        return {line.strip() for line in file.read_text(errors="replace").splitlines()}


def _original(row: Row) -> Item:
    found = choices(row, "answerTexts")
    folder = "abc_images" if row.get("abcLabel") else "images"
    return Item(
        text(row, "question"),
        f"{folder}/{row['imageName']}",
        {"answer": letter(row, len(found), "correctAnswer")},
        id=row.get("questionId"),
        options=found,
    )


LAYOUT = Layout(
    title="AI2D",
    forms=(
        Form(HUB, ("question", "options", "answer", "image"), _hub),
        Form(TSV, ("index", "question", "answer", "A", "image"), _tsv),
        Form(
            ORIGINAL,
            ("imageName", "questions"),
            _original,
            files=("questions/*.json", "ai2d/questions/*.json"),
            rows=_questions,
            images=("..",),
        ),
    ),
    prompt=OPTIONS,
    hub="lmms-lab/ai2d",
    tsv=("AI2D_TEST.tsv", "AI2D_TEST_NO_MASK.tsv"),
    original="https://prior.allenai.org/projects/diagram-understanding",
)
