"""The public names, and the README's Python example as a user would write it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import polars as pl

import peeralign as pp
from peeralign.classroom.demo import draw_pool


def test_every_public_name_is_there() -> None:
    for name in pp.__all__:
        assert getattr(pp, name) is not None, name


def test_import_is_light() -> None:
    code = (
        "import sys, peeralign; "
        "heavy = {'torch', 'transformers', 'matplotlib'} & set(sys.modules); "
        "sys.exit(f'imports {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_run_from_python(tmp_path: Path) -> None:
    draw_pool(3, 12).write_parquet(tmp_path / "pool.parquet")
    config = pp.recipes.pop.Config(
        rounds=1,
        pool={"path": str(tmp_path / "pool.parquet")},
        members=[{"name": "a", "model": "classroom:ada"}, {"name": "b", "model": "classroom:ben"}],
        generate={"num_draws": 3, "max_new_tokens": 6},
        judge={"rubric": "classroom"},
        curate={"min_chosen_reward": 0.5, "min_margin": 0.05},
    )
    summary = pp.recipes.pop.run(config, tmp_path / "run")
    last = summary["rounds"][-1]
    assert last["counts"]["candidates"] == 2 * 3 * 12
    assert last["counts"]["pairs"] > 0
    assert last["panel_mean"] is None
    assert (tmp_path / "run/round-1/members/a/model.safetensors").is_file()


def test_the_stages_work_alone(tmp_path: Path) -> None:
    candidates = pl.DataFrame(
        [
            {"id": f"c{n}", "question_id": "q", "answer_id": text, "author": "a", "draw": n}
            | {"view": "clean", "text": text, "num_tokens": 1, "reason": None}
            for n, text in enumerate(("red", "blue"))
        ]
    )
    judgments = pl.DataFrame(
        [
            {"answer_id": text, "judge": judge, "score": score}
            for text, score in (("red", 1.0), ("blue", 0.2))
            for judge in ("a", "b")
        ]
    )
    from peeralign.stages.aggregate import AggregateConfig
    from peeralign.stages.curate import CurateConfig

    pairs = pp.curate(pp.aggregate(candidates, judgments, AggregateConfig()), CurateConfig())
    assert pairs.select("chosen", "rejected").rows() == [("red", "blue")]
