"""lmms-eval's own tasks over local files, and replies that are given instead of generated."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lmms_eval
import yaml
from datasets import Dataset
from lmms_eval.api.model import lmms
from lmms_eval.evaluator import simple_evaluate
from lmms_eval.tasks import TaskManager

FILES = {
    "chartqa": "chartqa/chartqa.yaml",
    "textvqa": "textvqa/textvqa_val.yaml",
    "ocrbench": "ocrbench/ocrbench.yaml",
    "pope": "pope/pope.yaml",
    "ai2d": "ai2d/ai2d.yaml",
    "scienceqa": "scienceqa/scienceqa_img.yaml",
    "mmmu": "mmmu/mmmu_val.yaml",
    "mme": "mme/mme.yaml",
    "mmstar": "mmstar/mmstar.yaml",
    "seedbench": "seedbench/seedbench.yaml",
    "realworldqa": "realworldqa/realworldqa.yaml",
    "gqa": "gqa/gqa.yaml",
}


def write_task(
    folder: Path, benchmark: str, docs: list[dict[str, Any]], image: Any = None, **more: Any
) -> str:
    """Write lmms-eval's task over `docs` into the folder; its name.

    `image` is the type of their column of that name, `more` is laid over the task.
    """
    data = folder / f"{benchmark}.parquet"
    dataset = Dataset.from_list(docs)
    if image is not None:
        dataset = dataset.cast_column("image", image)
    dataset.to_parquet(data)
    task = {
        "include": str(Path(lmms_eval.__file__).parent / "tasks" / FILES[benchmark]),
        "task": f"{benchmark}_local",
        "dataset_path": "parquet",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        # GQA's would fetch images from the hub.
        "process_docs": None,
        **more,
    }
    (folder / f"{benchmark}.yaml").write_text(yaml.safe_dump(task))
    return f"{benchmark}_local"


class Replies(lmms):
    """A model that says what it was told to, by the number of the document."""

    def __init__(self, replies: list[str]) -> None:
        super().__init__()
        self.replies = replies

    def generate_until(self, requests: list[Any]) -> list[str]:
        return [self.replies[request.args[3]] for request in requests]

    def loglikelihood(self, requests: list[Any]) -> list[Any]:
        raise NotImplementedError

    def generate_until_multi_round(self, requests: list[Any]) -> list[Any]:
        raise NotImplementedError


def evaluated(
    folder: Path, benchmark: str, docs: list[dict[str, Any]], replies: list[str]
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """lmms-eval's samples, one a document in order, and its figures."""
    name = write_task(folder, benchmark, docs)
    arguments = SimpleNamespace(output_path=str(folder), process_with_media=False)
    results = simple_evaluate(
        Replies(replies),
        tasks=[name],
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        cli_args=arguments,
        bootstrap_iters=0,
        batch_size=1,
    )
    assert results is not None
    samples = sorted(results["samples"][name], key=lambda sample: sample["doc_id"])
    figures = {
        key.split(",")[0]: value
        for key, value in results["results"][name].items()
        if isinstance(value, float) and "stderr" not in key
    }
    return samples, figures
