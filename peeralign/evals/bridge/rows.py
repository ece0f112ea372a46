"""What an lmms-eval task asks, as rows that `evals.score` grades by the lmms-eval protocol.

A task is known by the function that scores it, so that a task over local files that includes one
of lmms-eval's own is known too. lmms-eval 0.7.3's columns are those of its data sets on the hub.
"""

from __future__ import annotations

import ast
import string
from collections.abc import Callable, Mapping
from typing import Any

Doc = Mapping[str, Any]


def benchmark_of(task: Any) -> str | None:
    """The name in `evals.benchmarks` of what an lmms-eval task measures, if its rows are known."""
    config = task.config
    for function in (config.process_results, config.doc_to_target, config.process_docs):
        name = getattr(function, "__name__", None)
        if name in _FUNCTIONS:
            return _FUNCTIONS[name]
    return None


def row_of(benchmark: str, doc: Doc) -> dict[str, Any]:
    """The keys that scoring needs beside id and prediction, and the question.

    Raises KeyError, ValueError or the like for a document of another shape.
    """
    row = {"question": str(doc["question"]), **_ROWS[benchmark](doc)}
    return {key: value for key, value in row.items() if value is not None and value != ""}


def _chartqa(doc: Doc) -> dict[str, Any]:
    return {"answer": doc["answer"], "split": doc["type"]}


def _textvqa(doc: Doc) -> dict[str, Any]:
    return {"answers": list(doc["answers"])}


def _ocrbench(doc: Doc) -> dict[str, Any]:
    answers = doc["answer"]
    return {
        "answers": list(answers) if isinstance(answers, list | tuple) else [answers],
        "dataset": doc["dataset"],
        "category": doc["question_type"],
    }


def _pope(doc: Doc) -> dict[str, Any]:
    return {"answer": doc["answer"], "category": doc.get("category")}


def _ai2d(doc: Doc) -> dict[str, Any]:
    return {"answer": string.ascii_uppercase[int(doc["answer"])], "choices": list(doc["options"])}


def _scienceqa(doc: Doc) -> dict[str, Any]:
    return {
        "answer": string.ascii_uppercase[doc["answer"]],
        "choices": list(doc["choices"]),
        "subject": doc.get("subject"),
        "grade": doc.get("grade"),
    }


def _mmmu(doc: Doc) -> dict[str, Any]:
    row: dict[str, Any] = {
        "answers": [doc["answer"]],
        "category": "_".join(str(doc["id"]).split("_")[1:-1]),
    }
    if doc["question_type"] == "multiple-choice":
        row["choices"] = ast.literal_eval(doc["options"])
    return row


def _mme(doc: Doc) -> dict[str, Any]:
    # Both questions about an image have one question_id.
    return {"answer": doc["answer"], "category": doc["category"], "image": doc["question_id"]}


def _mmstar(doc: Doc) -> dict[str, Any]:
    return {key: doc[key] for key in ("answer", "category", "l2_category")}


def _seedbench(doc: Doc) -> dict[str, Any]:
    choices = [doc[f"choice_{letter}"] for letter in "abcd"]
    return {"answer": doc["answer"], "choices": choices, "data_type": doc["data_type"]}


def _answer(doc: Doc) -> dict[str, Any]:
    return {"answer": doc["answer"]}


_ROWS: dict[str, Callable[[Doc], dict[str, Any]]] = {
    "chartqa": _chartqa,
    "textvqa": _textvqa,
    "ocrbench": _ocrbench,
    "pope": _pope,
    "ai2d": _ai2d,
    "scienceqa": _scienceqa,
    "mmmu": _mmmu,
    "mme": _mme,
    "mmstar": _mmstar,
    "seedbench": _seedbench,
    "realworldqa": _answer,
    "gqa": _answer,
}
_FUNCTIONS = {
    "chartqa_process_results": "chartqa",
    "textvqa_process_results": "textvqa",
    "ocrbench_process_results": "ocrbench",
    "pope_process_results": "pope",
    "ai2d_doc_to_target": "ai2d",
    "sqa_process_results": "scienceqa",
    "mmmu_process_results": "mmmu",
    "mme_process_results": "mme",
    "mmstar_process_results": "mmstar",
    "seed_process_result": "seedbench",
    "realworldqa_process_results": "realworldqa",
    "gqa_process_docs": "gqa",
}
