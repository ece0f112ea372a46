"""LLaVA-Bench in the wild (Liu et al., 2023): 60 questions; a judge scores the replies later.

Authors' files (liuhaotian/llava-bench-in-the-wild on the hub): questions.jsonl with question_id,
image, text and category; answers_gpt4.jsonl with the reference answers; context.jsonl with the
captions of the images; the folder images. `answer` (the reference) and `context` go into the row
for the judge.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from peeralign.evals.layouts.cells import listed, text, text_or_none
from peeralign.evals.layouts.layout import HUB, ORIGINAL, TSV, Form, Item, Layout, Row, Source
from peeralign.evals.layouts.prompts import PLAIN
from peeralign.evals.layouts.tables import open_table


def _item(row: Row, question: str, answer: str, name: object) -> Item:
    context = "\n".join(str(each) for each in listed(row.get("caption")))
    keys = {"answer": text(row, answer, "answer"), "context": context}
    category = text_or_none(row, "category")
    asked = text(row, question, "question")
    return Item(asked, row.get("image"), keys, id=name, category=category)


def _hub(row: Row) -> Item:
    return _item(row, "question", "gpt_answer", row["question_id"])


def _tsv(row: Row) -> Item:
    return _item(row, "question", "gpt4_ans", row["index"])


def _joined(rows: Iterable[Row], source: Source) -> Iterator[Row]:
    _, answers = open_table(source.beside("answers_gpt4.jsonl"))
    _, contexts = open_table(source.beside("context.jsonl"))
    by_question = {str(row.get("question_id")): row.get("text") for row in answers}
    by_image = {str(row.get("image")): row.get("caption") for row in contexts}
    for row in rows:
        found = {"gpt_answer": by_question.get(str(row["question_id"]))}
        yield {**row, **found, "caption": by_image.get(str(row["image"]))}


def _original(row: Row) -> Item:
    return _item(row, "text", "gpt_answer", row["question_id"])


LAYOUT = Layout(
    title="LLaVA-Bench",
    forms=(
        Form(HUB, ("question_id", "question", "image", "gpt_answer", "caption"), _hub),
        Form(TSV, ("index", "question", "gpt4_ans", "caption"), _tsv),
        Form(
            ORIGINAL,
            ("question_id", "image", "text", "category"),
            _original,
            files=("questions.jsonl",),
            rows=_joined,
        ),
    ),
    prompt=PLAIN,
    split="train",
    hub="lmms-lab/llava-bench-in-the-wild",
    hub_files=("questions.jsonl", "answers_gpt4.jsonl", "context.jsonl", "images/*"),
    tsv=("LLaVABench.tsv",),
    original="https://huggingface.co/datasets/liuhaotian/llava-bench-in-the-wild",
)
