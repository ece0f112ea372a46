"""TextVQA (Singh et al., 2019): the validation set, with ten answers to each question.

Authors' files: TextVQA_0.5.1_val.json, whose "data" has question_id, image_id, question and
answers, and train_images/IMAGE_ID.jpg. The test set has no answers.
"""

from __future__ import annotations

from peeralign.evals.layouts.cells import text, texts
from peeralign.evals.layouts.layout import HUB, ORIGINAL, TSV, Form, Item, Layout, Row
from peeralign.evals.layouts.prompts import SHORT


def _hub(row: Row) -> Item:
    keys = {"answers": texts(row, "answers", "answer")}
    return Item(text(row, "question"), row["image"], keys, id=row["question_id"])


def _tsv(row: Row) -> Item:
    keys = {"answers": texts(row, "answer")}
    return Item(text(row, "question"), row.get("image"), keys, id=row["index"])


def _original(row: Row) -> Item:
    keys = {"answers": texts(row, "answers", "answer")}
    image = f"{text(row, 'image_id', 'image')}.jpg"
    return Item(text(row, "question"), image, keys, id=row["question_id"])


LAYOUT = Layout(
    title="TextVQA",
    forms=(
        Form(HUB, ("question_id", "question", "answers", "image"), _hub),
        Form(TSV, ("index", "question", "answer"), _tsv),
        Form(
            ORIGINAL,
            ("question_id", "question", "image_id"),
            _original,
            files=("TextVQA_[0-9]*_val.json",),
            images=("train_images", "train_val_images/train_images", "../train_images"),
        ),
    ),
    prompt=SHORT,
    split="validation",
    hub="lmms-lab/textvqa",
    tsv=("TextVQA_VAL.tsv",),
    original="https://textvqa.org/dataset",
)
