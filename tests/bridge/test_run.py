"""A member as lmms-eval's model, from its task to our rows, and the traps on the way."""

from __future__ import annotations

import importlib.util
import io
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bridge.tasks import write_task
from datasets import Dataset, Features, List, Value
from datasets import Image as Column
from PIL import Image, ImageFile

from peeralign.classroom.demo import draw_exam
from peeralign.engines.base import AnswerRequest, Draw, Sampling
from peeralign.engines.local import LocalEngine
from peeralign.engines.opening import open_engine
from peeralign.errors import PeeralignError
from peeralign.evals.bridge import run as bridge_run
from peeralign.evals.bridge.run import Settings, run_tasks
from peeralign.evals.export import export_vlmevalkit
from peeralign.evals.score import score_file
from peeralign.images.load import open_image
from peeralign.panel import Member
from peeralign.progress import Reporter

ADA = Member(name="ada", model="classroom:ada")
# The classroom's peers know questions and nothing that is said around them.
BARE = {"lmms_eval_specific_kwargs": {"default": {"pre_prompt": "", "post_prompt": ""}}}


def png(width: int, height: int, mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


def exam_docs(number: int) -> list[dict[str, Any]]:
    """Documents as ChartQA's are."""
    exam = draw_exam(5, per_skill=number // 9 + 1).sample(number, seed=0)
    return [
        {
            "image": row["image"],
            "question": row["text"],
            "answer": row["answer"],
            "type": "human_test" if place % 2 else "augmented_test",
        }
        for place, row in enumerate(exam.iter_rows(named=True))
    ]


def run(folder: Path, *tasks: str, **settings: Any) -> dict[str, Any]:
    chosen = Settings(include_path=str(folder), **settings)
    return run_tasks(ADA, tasks, folder / "out", chosen, Reporter())


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_same_items_through_our_own_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs = exam_docs(60)
    name = write_task(tmp_path, "chartqa", docs, Column(), **BARE)
    results = run(tmp_path, name)

    engine = open_engine(ADA)
    requests = [AnswerRequest(open_image(doc["image"]), doc["question"], (0,)) for doc in docs]
    ours = [draws[0].text for draws in engine.answer(requests, Sampling(max_new_tokens=16))]
    rows = tmp_path / "out" / "rows" / "chartqa" / "ada.jsonl"
    assert [row["prediction"] for row in lines(rows)] == ours

    figures = score_file("chartqa", rows, "lmms-eval")
    theirs = results["results"][name]
    assert 0.3 < figures["score"] < 1
    assert figures["score"] == pytest.approx(theirs["relaxed_overall,none"], abs=1e-6)
    assert figures["relaxed_accuracy_human"] == pytest.approx(
        theirs["relaxed_human_split,none"], abs=1e-6
    )
    assert results == json.loads((tmp_path / "out" / "results.json").read_text())
    said = results["peeralign"]["tasks"][name]
    assert said["score"] == figures
    assert (said["num_items"], said["num_unanswered"]) == (60, ours.count(None))
    samples = lines(tmp_path / "out" / "samples" / f"{name}.jsonl")
    assert [sample["filtered_resps"][0] for sample in samples] == [text or "" for text in ours]
    graded = [sample["relaxed_overall"] for sample in samples]
    assert sum(graded) / 60 == pytest.approx(figures["score"], abs=1e-6)

    # Again: the same, from the replies that are there; and nothing else into the same folder.
    with monkeypatch.context() as patch:
        patch.delattr(LocalEngine, "answer")
        again = run(tmp_path, name)
    assert again["results"] == results["results"]
    with pytest.raises(PeeralignError, match="limit"):
        run(tmp_path, name, limit=3)


def test_tasks_that_want_different_replies(tmp_path: Path) -> None:
    docs = exam_docs(6)
    asked = [
        {**doc, "question_id": "1", "answer": "yes", "category": "random"} for doc in reversed(docs)
    ]
    one = write_task(tmp_path, "chartqa", docs, Column(), **BARE)
    other = write_task(tmp_path, "pope", asked, Column(), **BARE)
    found = run(tmp_path, one, other)["peeralign"]["tasks"]
    assert [found[name]["benchmark"] for name in (one, other)] == ["chartqa", "pope"]
    rows = [
        [row["prediction"] for row in lines(tmp_path / "out" / "rows" / name / "ada.jsonl")]
        for name in ("chartqa", "pope")
    ]
    assert rows[0] == rows[1][::-1]
    assert any(rows[0])


def test_a_task_with_other_columns_keeps_its_results(tmp_path: Path) -> None:
    docs = [
        {("text" if key == "question" else key): doc[key] for key in doc} for doc in exam_docs(3)
    ]
    name = write_task(tmp_path, "chartqa", docs, Column(), doc_to_text="text")
    results = run(tmp_path, name)
    assert results["peeralign"]["tasks"][name]["no_rows"] == "KeyError: 'question'"
    assert "relaxed_overall,none" in results["results"][name]
    assert not (tmp_path / "out" / "rows").exists()


def test_a_launcher_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(PeeralignError, match="start it without a launcher"):
        run(tmp_path, "chartqa")


class Says:
    """An engine with one reply to everything."""

    def __init__(self, reply: str) -> None:
        self.reply = reply

    def answer(self, requests: list[AnswerRequest], sampling: Sampling) -> list[list[Draw]]:
        return [[Draw(self.reply, 1)] for _ in requests]

    def close(self) -> None:
        pass


def test_reasoning_is_no_part_of_a_reply(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docs = [{**exam_docs(1)[0], "answer": "red"}] * 2
    name = write_task(tmp_path, "chartqa", docs, Column(), **BARE)
    monkeypatch.setattr(bridge_run, "open_engine", lambda member: Says("<think>blue?</think> red"))
    results = run(tmp_path, name)
    rows = lines(tmp_path / "out" / "rows" / "chartqa" / "ada.jsonl")
    assert [row["prediction"] for row in rows] == ["red", "red"]
    assert results["results"][name]["relaxed_overall,none"] == 1
    assert results["peeralign"]["tasks"][name]["score"]["score"] == 1


def test_two_tasks_of_one_benchmark_are_not_mixed(tmp_path: Path) -> None:
    name = write_task(tmp_path, "chartqa", exam_docs(2), Column(), **BARE)
    with_other = (tmp_path / "chartqa.yaml").read_text().replace(name, "chartqa_other")
    (tmp_path / "other.yaml").write_text(with_other)
    with pytest.raises(PeeralignError, match="chartqa_local and chartqa_other are both chartqa"):
        run(tmp_path, name, "chartqa_other")


def test_the_process_is_left_as_it_was(tmp_path: Path) -> None:
    name = write_task(tmp_path, "chartqa", exam_docs(3), Column(), **BARE)
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    limit = Image.MAX_IMAGE_PIXELS
    random.seed(7)
    np.random.seed(7)
    torch.manual_seed(7)
    run(tmp_path, name)
    drawn = random.random(), np.random.random(), torch.rand(1).item()
    random.seed(7)
    np.random.seed(7)
    torch.manual_seed(7)
    assert drawn == (random.random(), np.random.random(), torch.rand(1).item())
    assert limit == Image.MAX_IMAGE_PIXELS
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False
    assert "wandb" not in sys.modules


def test_what_importing_lmms_eval_changes_is_put_back(tmp_path: Path) -> None:
    name = write_task(tmp_path, "chartqa", exam_docs(1), Column(), **BARE)
    code = f"""
import warnings
from pathlib import Path
from PIL import Image, ImageFile
from peeralign.evals.bridge.run import Settings, run_tasks
from peeralign.panel import Member
from peeralign.progress import Reporter
before = list(warnings.filters), Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
member = Member(name="ada", model="classroom:ada")
run_tasks(member, [{name!r}], Path("out"), Settings(include_path="."), Reporter())
assert before == (
    list(warnings.filters), Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
)
from accelerate.state import PartialState
assert not PartialState._shared_state, "an Accelerator was made"
"""
    command = [sys.executable, "-W", "default", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr


def test_images_that_lmms_eval_opens_itself_are_limited_too(tmp_path: Path) -> None:
    # This task's first row is opened before anything of ours is asked.
    (tmp_path / "utils.py").write_text(
        "def opened(dataset):\n"
        "    return dataset.map(lambda doc: {'answer': str(doc['image'].width)})\n"
    )
    docs = [{**exam_docs(1)[0], "image": {"bytes": png(3000, 2000, "1"), "path": None}}]
    name = write_task(tmp_path, "chartqa", docs, Column(), **BARE)
    task = (tmp_path / "chartqa.yaml").read_text()
    task = task.replace("process_docs: null", "process_docs: !function utils.opened")
    (tmp_path / "chartqa.yaml").write_text(task)
    with pytest.raises(PeeralignError, match=r"do not load \(.*exceeds limit of 5000000 pixels"):
        run(tmp_path, name, max_image_pixels=5_000_000)


def test_lmms_eval_deletes_nothing_and_makes_no_accelerator(tmp_path: Path) -> None:
    from lmms_eval.api.model import lmms
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.tasks import TaskManager

    from peeralign.evals.bridge.model import MemberModel

    name = write_task(tmp_path, "chartqa", exam_docs(2), Column(), **BARE)
    model = MemberModel(open_engine(ADA))
    # What lmms-eval would delete: a network that is the model's own attribute.
    model.network = model.engine.model
    simple_evaluate(
        model,
        tasks=[name],
        task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False),
        batch_size=1,
        distributed_executor_backend="torchrun",
    )
    assert isinstance(model.network, torch.nn.Module)
    assert not hasattr(model, "accelerator")
    lmms.clean(model)
    assert not hasattr(model, "network"), "lmms-eval's own clean no longer deletes"


def test_torchvision_is_not_here_and_a_misfit_is_named(tmp_path: Path) -> None:
    assert importlib.util.find_spec("torchvision") is None
    misfit = tmp_path / "torchvision"
    misfit.mkdir()
    message = "operator torchvision::nms does not exist"
    (misfit / "__init__.py").write_text(f"raise RuntimeError('{message}')")
    code = "from peeralign.evals.bridge.run import check_environment; check_environment()"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {code}"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "PeeralignError: torchvision does not fit torch" in done.stderr
    assert message in done.stderr
    assert "pip uninstall torchvision" in done.stderr


def test_images_that_cannot_be_used_are_counted_and_the_run_goes_on(tmp_path: Path) -> None:
    docs = exam_docs(4)
    whole = png(400, 400)
    # The first one is the row that lmms-eval looks at when it makes the task.
    docs[0]["image"] = {"bytes": png(9000, 9000, "1"), "path": None}
    docs[1]["image"] = {"bytes": b"no image", "path": None}
    docs[2]["image"] = {"bytes": whole[: len(whole) // 2], "path": None}
    name = write_task(tmp_path, "chartqa", docs, Column(), **BARE)
    results = run(tmp_path, name)
    said = results["peeralign"]["tasks"][name]
    assert said["num_unanswered"] == 3
    aside = {row["id"]: row["reason"] for row in lines(tmp_path / "out/set-aside/chartqa.jsonl")}
    assert "81000000 pixels" in aside["0"]
    assert aside["1"].startswith("not a PNG")
    assert aside["2"].startswith("cannot be decoded")
    rows = lines(tmp_path / "out" / "rows" / "chartqa" / "ada.jsonl")
    assert [row["prediction"] is None for row in rows] == [True] * 3 + [False]
    assert said["score"]["num_none"] == 3


def test_images_by_path_stay_inside_the_image_root(tmp_path: Path) -> None:
    docs = exam_docs(2)
    root = tmp_path / "images"
    root.mkdir()
    for place, where in enumerate((root, tmp_path)):
        (where / f"{place}.png").write_bytes(docs[place]["image"]["bytes"])
        docs[place]["image"] = {"bytes": None, "path": str(where / f"{place}.png")}
    name = write_task(tmp_path, "chartqa", docs, Column(decode=False), **BARE)
    # `datasets` would put the files' bytes into the Parquet: the paths are to stay.
    features = Features(
        {
            "image": {"bytes": Value("binary"), "path": Value("string")},
            **dict.fromkeys(("question", "answer", "type"), Value("string")),
        }
    )
    Dataset.from_list(docs, features=features).to_parquet(tmp_path / "chartqa.parquet")
    run(tmp_path, name, image_root=str(root))
    aside = lines(tmp_path / "out" / "set-aside" / "chartqa.jsonl")
    assert [row["id"] for row in aside] == ["1"]
    assert aside[0]["reason"].startswith("outside the image root")
    run_tasks(ADA, [name], tmp_path / "bare", Settings(include_path=str(tmp_path)), Reporter())
    aside = lines(tmp_path / "bare" / "set-aside" / "chartqa.jsonl")
    assert [row["reason"] for row in aside] == [
        f"its data hold the path {n}.png and no bytes; name the folder with --image-root"
        for n in range(2)
    ]


def test_a_question_without_an_image_or_with_several(tmp_path: Path) -> None:
    image = exam_docs(1)[0]["image"]
    docs = [
        {"image": images, "question": "what colour is the cross?", "answer": "red"}
        for images in ([image], [], [image, image])
    ]
    (tmp_path / "utils.py").write_text("def visuals(doc):\n    return doc['image']\n")
    metric = {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}
    name = write_task(
        *(tmp_path, "chartqa", docs, List(Column())),
        process_results=None,
        doc_to_text="question",
        metric_list=[metric],
    )
    with (tmp_path / "chartqa.yaml").open("a") as task:
        task.write("doc_to_visual: !function utils.visuals\n")
    results = run(tmp_path, name)
    said = results["peeralign"]["tasks"][name]
    assert said["benchmark"] is None
    assert said["reasons"] == {"no image": 1, "2 images, and members take one": 1}
    samples = lines(tmp_path / "out" / "samples" / f"{name}.jsonl")
    assert [bool(sample["filtered_resps"][0]) for sample in samples] == [True, False, False]


def test_tasks_that_members_cannot_answer_are_refused_before_any_work(tmp_path: Path) -> None:
    name = write_task(
        tmp_path,
        "chartqa",
        exam_docs(2),
        Column(),
        output_type="loglikelihood",
        generation_kwargs=None,
    )
    with pytest.raises(PeeralignError, match="output_type is generate_until"):
        run(tmp_path, name)
    with pytest.raises(PeeralignError, match="did you mean 'chartqa_local'"):
        run(tmp_path, "chartqa_locale")
    assert not (tmp_path / "out" / "replies").exists()


def test_the_command(tmp_path: Path) -> None:
    name = write_task(tmp_path, "pope", [
        {**doc, "question_id": "1", "answer": "yes", "category": "random"} for doc in exam_docs(4)
    ], Column(), **BARE)  # fmt: skip
    done = subprocess.run(
        [
            *(sys.executable, "-m", "peeralign.cli", "lmms-eval", "--member", "classroom:ada"),
            *("--tasks", name, "--out", str(tmp_path / "out"), "--limit", "3", "--offline"),
            *("--include-path", str(tmp_path)),
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "pope_local, 3 items: pope_accuracy" in done.stdout
    assert "by our lmms-eval protocol: accuracy" in done.stdout
    rows = lines(tmp_path / "out" / "rows" / "pope" / "ada.jsonl")
    assert [row["id"] for row in rows] == ["0", "1", "2"]


def test_exported_files_are_read_by_pandas_as_they_are(tmp_path: Path) -> None:
    import pandas as pd

    awkward = ["=1+1", "a\tb", "two\nlines", "\r\n", 'a "B"', "'", "-1", " x ", "\\t", "None"]
    place = tmp_path / "rows" / "gqa" / "ada.jsonl"
    place.parent.mkdir(parents=True)
    rows = [
        {"id": str(n), "question": text, "answer": "x", "prediction": text}
        for n, text in enumerate(awkward)
    ]
    place.write_text("\n".join(map(json.dumps, rows)))
    (file,) = export_vlmevalkit(tmp_path, tmp_path / "kit")["files"]
    # As VLMEvalKit loads a TSV.
    table = pd.read_csv(file["path"], sep="\t")
    assert [str(text) for text in table["prediction"]] == [*awkward[:-1], "nan"]
    assert file["num_missing"] == 1
    assert table["index"].tolist() == list(range(len(awkward)))
