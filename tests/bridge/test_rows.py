"""Which of lmms-eval's tasks are known, and what becomes of their documents."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import lmms_eval
import pytest
from bridge.tasks import FILES
from lmms_eval.utils import load_yaml_config

from peeralign.evals.bridge.rows import benchmark_of, row_of

KEYS = ("process_results", "doc_to_target", "process_docs")


def benchmark_in(file: str) -> str | None:
    config = load_yaml_config(str(Path(lmms_eval.__file__).parent / "tasks" / file))
    named = {key: config.get(key) for key in KEYS}
    return benchmark_of(SimpleNamespace(config=SimpleNamespace(**named)))


@pytest.mark.parametrize("benchmark", FILES)
def test_lmms_evals_own_tasks_are_known(benchmark: str) -> None:
    assert benchmark_in(FILES[benchmark]) == benchmark


def test_other_tasks_are_not_taken_for_them() -> None:
    assert benchmark_in("docvqa/docvqa_val.yaml") is None


def test_rows() -> None:
    doc = {"question": "what?", "options": ["a", "b"], "answer": "1", "image": None}
    assert row_of("ai2d", doc) == {"question": "what?", "answer": "B", "choices": ["a", "b"]}
    doc = {
        **{"id": "validation_Art_Theory_3", "question": "what?", "answer": "B"},
        **{"question_type": "multiple-choice", "options": "['x', 'y']"},
    }
    found = row_of("mmmu", doc)
    assert (found["category"], found["choices"]) == ("Art_Theory", ["x", "y"])
    assert "choices" not in row_of("mmmu", {**doc, "question_type": "open"})
    # Empty cells are left out.
    assert "category" not in row_of("pope", {"question": "what?", "answer": "yes"})
    with pytest.raises(KeyError):
        row_of("chartqa", {"question": "what?", "answer": "yes"})
