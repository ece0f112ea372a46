"""OCRBench (Liu et al., 2023): 1,000 questions of ten types.

Authors' files (Yuliang-Liu/MultimodalOCR): OCRBench.json, a list with id, dataset_name, type,
question, answers and image_path, and the folder OCRBench_Images. A table without the data set's
name says by the type which items are of HME100k, the only one that is scored in its own way.
"""

from __future__ import annotations

from peeralign.evals.benchmarks.ocrbench import FORMULAS
from peeralign.evals.layouts.cells import text, text_or_none, texts
from peeralign.evals.layouts.layout import HUB, ORIGINAL, TSV, Form, Item, Layout, Row
from peeralign.evals.layouts.prompts import PLAIN


def _hub(row: Row) -> Item:
    keys = {"answers": texts(row, "answer"), "dataset": text(row, "dataset")}
    return Item(text(row, "question"), row["image"], keys, category=text(row, "question_type"))


def _tsv(row: Row) -> Item:
    category = text(row, "category")
    dataset = text_or_none(row, "dataset") or ("HME100k" if category == FORMULAS else "other")
    keys = {"answers": texts(row, "answer"), "dataset": dataset}
    question = text(row, "question")
    return Item(question, row.get("image"), keys, id=row["index"], category=category)


def _original(row: Row) -> Item:
    keys = {"answers": texts(row, "answers", "answer"), "dataset": text(row, "dataset_name")}
    question, image = text(row, "question"), text(row, "image_path", "image")
    return Item(question, image, keys, id=row.get("id"), category=text(row, "type"))


LAYOUT = Layout(
    title="OCRBench",
    forms=(
        Form(HUB, ("dataset", "question", "question_type", "answer", "image"), _hub),
        Form(TSV, ("index", "question", "answer", "category"), _tsv),
        Form(
            ORIGINAL,
            ("dataset_name", "type", "question", "answers", "image_path"),
            _original,
            files=(
                *("OCRBench/OCRBench.json", "OCRBench.json"),
                "OCRBench/OCRBench/OCRBench.json",
            ),
            images=("OCRBench_Images", "../OCRBench_Images"),
        ),
    ),
    prompt=PLAIN,
    hub="echo840/OCRBench",
    tsv=("OCRBench.tsv",),
    original="https://github.com/Yuliang-Liu/MultimodalOCR",
)
