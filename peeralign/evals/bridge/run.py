"""Run lmms-eval's tasks on a member, and keep its traps shut.

What lmms-eval 0.7.3 does to the process it runs in, and what is done about it here:

* `simple_evaluate` calls `clean()`, which deletes the model's modules: `MemberModel`'s does not.
* It seeds the global generators: they are put back.
* It makes an Accelerator, which a later one clashes with: its other backend makes none.
* It decodes all image columns of a row, of any size: images are opened by `images.load`.
* Importing it silences all warnings and lets Pillow fill up truncated images: both are put back.
* torchvision, which it pulls in, breaks vision-language models where it does not fit torch.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import random
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image, ImageFile

from peeralign.engines.opening import open_engine
from peeralign.errors import PeeralignError
from peeralign.evals.benchmark import LMMS_EVAL
from peeralign.evals.bridge.documents import undecoded
from peeralign.evals.bridge.rows import benchmark_of, row_of
from peeralign.evals.score import score_rows
from peeralign.images.load import MAX_PIXELS
from peeralign.panel import Member
from peeralign.progress import Reporter
from peeralign.store.run import Run, write_json, write_whole

TESTED = "0.7.3"
# The default of lmms-eval's own command: what is between these is no part of a reply.
REASONING_TAGS = [["<think>", "</think>"], ["<analysis>", "</analysis>"]]


@dataclass(frozen=True)
class Settings:
    """How a member answers lmms-eval's tasks."""

    include_path: str | None = None
    """A folder of further task files."""
    limit: int | None = None
    """Documents of each task; None is all."""
    max_new_tokens: int | None = None
    """For tasks that do not say; None is 1024."""
    max_image_pixels: int = MAX_PIXELS
    image_root: str | None = None
    """The folder that images lie in whose data hold paths."""
    seed: int = 0


def run_tasks(
    member: Member, tasks: Sequence[str], out: Path, settings: Settings, reporter: Reporter
) -> dict[str, Any]:
    """Answer and score lmms-eval's tasks; what results.json holds (docs/bridge.md).

    Raises PeeralignError if lmms-eval is not here, a task is unknown or cannot be answered in
    words, and if the member cannot be used.
    """
    check_environment()
    with _warnings_kept(), _generators_kept(), _pillow_kept(settings.max_image_pixels):
        from peeralign.evals.bridge.model import MAX_NEW_TOKENS, MemberModel

        manager = _manager(tasks, settings.include_path)
        kept = _folder(member, tasks, out, settings)
        engine = open_engine(member)
        try:
            model = MemberModel(
                engine,
                max_new_tokens=settings.max_new_tokens or MAX_NEW_TOKENS,
                max_image_pixels=settings.max_image_pixels,
                image_root=settings.image_root,
                seed=settings.seed,
                reporter=reporter,
                kept=kept,
            )
            found, results = _evaluated(model, manager, tasks, out, settings)
        finally:
            engine.close()
    samples = results.pop("samples")
    results["peeralign"] = {
        "member": {"name": member.name, "model": member.model},
        "lmms_eval": metadata.version("lmms_eval"),
        "ignored": model.ignored,
        "tasks": {
            name: _written(name, task, model, member.name, samples[name], out)
            for name, task in found.items()
        },
    }
    plain = _plain(results)
    write_json(out / "results.json", plain)
    return plain


def check_environment() -> None:
    """Raise PeeralignError unless lmms-eval can run here, in one process."""
    if importlib.util.find_spec("lmms_eval") is None:
        raise PeeralignError(
            "lmms-eval is not installed here; it wants an environment of its own, which "
            "'make bridge' sets up (docs/bridge.md)"
        )
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise PeeralignError("lmms-eval is run in one process; start it without a launcher")
    if importlib.util.find_spec("torchvision") is None:
        return
    try:
        import torchvision  # noqa: F401  # pyright: ignore[reportMissingImports]
    except Exception as error:
        import torch

        why = str(error).strip().split("\n")[0]
        raise PeeralignError(
            f"torchvision does not fit torch {torch.__version__} ({why}), and then no "
            "vision-language model loads: pip uninstall torchvision, which lmms-eval brought"
        ) from error


def _manager(tasks: Sequence[str], include_path: str | None) -> Any:
    from lmms_eval.tasks import TaskManager  # pyright: ignore[reportMissingImports]

    if include_path is not None and not Path(include_path).is_dir():
        raise PeeralignError(f"no folder of tasks at {include_path}; give --include-path a folder")
    # Without a name of a model, tasks take their default prompts.
    manager = TaskManager("WARNING", include_path=include_path, model_name="peeralign")
    unknown = [name for name in tasks if name not in manager.task_index]
    if unknown:
        from peeralign.errors import nearest

        raise PeeralignError(
            f"lmms-eval has no task '{unknown[0]}'{nearest(unknown[0], manager.task_index)}"
        )
    return manager


def _folder(member: Member, tasks: Sequence[str], out: Path, settings: Settings) -> Path:
    """Where replies are kept. Raises PeeralignError if the folder has other settings."""
    given = {"member": member.model_dump(mode="json"), "tasks": list(tasks), **asdict(settings)}
    return Run.open(out, "lmms-eval", given, settings.seed).folder / "replies"


def _evaluated(
    model: Any, manager: Any, tasks: Sequence[str], out: Path, settings: Settings
) -> tuple[dict[str, Any], dict[str, Any]]:
    """lmms-eval's tasks by name, and its results."""
    from lmms_eval.evaluator import simple_evaluate  # pyright: ignore[reportMissingImports]

    arguments = SimpleNamespace(
        output_path=str(out / "lmms-eval"),
        process_with_media=False,
        reasoning_tags=json.dumps(REASONING_TAGS),
    )
    with _tasks_watched() as found:
        results = simple_evaluate(
            model,
            tasks=list(tasks),
            task_manager=manager,
            limit=settings.limit,
            batch_size=1,
            cli_args=arguments,
            distributed_executor_backend="torchrun",
        )
    return found, results


@contextmanager
def _tasks_watched() -> Iterator[dict[str, Any]]:
    """Every task that is made, by name; those that members cannot answer are refused at once.

    Their image columns stay undecoded, from before lmms-eval looks at a first row.
    """
    from lmms_eval.api.task import ConfigurableTask  # pyright: ignore[reportMissingImports]

    from peeralign.evals.bridge.model import refuse_type

    found: dict[str, Any] = {}
    original = ConfigurableTask.download

    def download(task: Any, *given: Any, **named: Any) -> None:
        name = task.config.task
        if task.OUTPUT_TYPE != "generate_until":
            refuse_type(name, task.OUTPUT_TYPE)
        benchmark = benchmark_of(task)
        rival = next((key for key, other in found.items() if benchmark_of(other) == benchmark), "")
        if benchmark is not None and rival:
            raise PeeralignError(
                f"{rival} and {name} are both {benchmark}; run them into folders of their own"
            )
        try:
            original(task, *given, **named)
        except Exception as error:
            # lmms-eval tries five times, and then says only that it did.
            attempt = getattr(error, "last_attempt", None)
            cause = (attempt and attempt.exception()) or error
            why = f"{type(cause).__name__}: {cause}".strip().split("\n")[0][:300]
            raise PeeralignError(
                f"the data of the task {name} do not load ({why}); check its dataset_path, or the "
                "network if they are on the hub"
            ) from error
        task.dataset = undecoded(task.dataset)
        found[name] = task

    ConfigurableTask.download = download
    try:
        yield found
    finally:
        ConfigurableTask.download = original


def _written(
    name: str, task: Any, model: Any, member: str, samples: list[dict[str, Any]], out: Path
) -> dict[str, Any]:
    """Write a task's samples and, where its rows are known, these; what is to be said of it."""
    from lmms_eval.api.reasoning import (  # pyright: ignore[reportMissingImports]
        strip_reasoning_tags,
    )

    samples = sorted(samples, key=lambda sample: sample["doc_id"])
    _write_lines(out / "samples" / f"{name}.jsonl", samples)
    reasons = {doc_id: why for (of, doc_id), why in model.reasons.items() if of == name}
    benchmark = benchmark_of(task)
    said: dict[str, Any] = {
        "benchmark": benchmark,
        "num_items": len(samples),
        "num_unanswered": len(reasons),
        "reasons": dict(Counter(reasons.values()).most_common()),
    }
    aside = [{"id": str(doc_id), "reason": why} for doc_id, why in sorted(reasons.items())]
    _write_lines(out / "set-aside" / f"{benchmark or name}.jsonl", aside)
    if benchmark is None:
        return said
    docs = task.eval_docs_no_media
    rows = []
    try:
        for doc_id in dict.fromkeys(sample["doc_id"] for sample in samples):
            reply = model.replies[name, doc_id]
            prediction = None if reply is None else strip_reasoning_tags(reply, REASONING_TAGS)
            row = row_of(benchmark, docs[doc_id])
            rows.append({"id": str(doc_id), "prediction": prediction, **row})
        said["score"] = score_rows(benchmark, rows, LMMS_EVAL)
    except (PeeralignError, LookupError, ValueError, TypeError, SyntaxError) as error:
        # A task of somebody's own, scored by lmms-eval's function and with other columns.
        return said | {"no_rows": f"{type(error).__name__}: {error}"}
    _write_lines(out / "rows" / benchmark / f"{member}.jsonl", rows)
    return said


def _write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    lines = (json.dumps(_plain(row), ensure_ascii=False) + "\n" for row in rows)
    write_whole(path, "".join(lines).encode("utf-8", "replace"))


def _plain(value: Any) -> Any:
    """The value as JSON can hold it; what is not a number is null, functions are their names."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(each) for each in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return getattr(value, "__name__", None) or str(value)


@contextmanager
def _generators_kept() -> Iterator[None]:
    import torch

    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    others = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        if others:
            torch.cuda.set_rng_state_all(others)


@contextmanager
def _warnings_kept() -> Iterator[None]:
    with warnings.catch_warnings():
        yield


@contextmanager
def _pillow_kept(max_pixels: int) -> Iterator[None]:
    """Where lmms-eval or a task opens an image itself, Pillow refuses big ones before decoding."""
    limit, truncated = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
    # Pillow warns above its limit and refuses above twice that.
    Image.MAX_IMAGE_PIXELS = max(1, max_pixels // 2)
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = limit, truncated
