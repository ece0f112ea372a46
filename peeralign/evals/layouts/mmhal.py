"""MMHal-Bench (Sun et al., 2023): 96 questions of eight types; a judge scores the replies later.

Authors' files (Shengcao1006/MMHal-Bench on the hub): response_template.json, a list with
question_type, image_id, image_src, image_content, question and gt_answer, and the folder images
with the last part of each image_src. `answer` (the reference) and `context` (what is in the image)
go into the row for the judge.
"""

from __future__ import annotations

from peeralign.evals.layouts.cells import listed, text, text_or_none
from peeralign.evals.layouts.layout import ORIGINAL, Form, Item, Layout, Row
from peeralign.evals.layouts.prompts import PLAIN


def _original(row: Row) -> Item:
    image = text(row, "image_src", "image").rsplit("/", 1)[-1]
    context = ", ".join(str(each) for each in listed(row.get("image_content")))
    keys = {"answer": text(row, "gt_answer", "answer"), "context": context}
    question, category = text(row, "question"), text_or_none(row, "question_type")
    return Item(question, image, keys, id=row.get("image_id"), category=category)


LAYOUT = Layout(
    title="MMHal-Bench",
    forms=(
        Form(
            ORIGINAL,
            ("question", "gt_answer", "image_src", "image_content"),
            _original,
            files=("response_template.json",),
        ),
    ),
    prompt=PLAIN,
    hub="Shengcao1006/MMHal-Bench",
    hub_files=("response_template.json", "images/*"),
    original="https://huggingface.co/datasets/Shengcao1006/MMHal-Bench",
)
