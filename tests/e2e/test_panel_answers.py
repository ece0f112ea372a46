"""A finished run's members answer together, as a user asks them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl


def test_the_members_of_a_run_answer_with_their_last_weights(workplace, finished: Path) -> None:
    row = pl.read_parquet(workplace.folder / "pool.parquet").row(3, named=True)
    (workplace.folder / "scene.png").write_bytes(row["image"]["bytes"])

    def ask(panel: str, *more: str) -> dict[str, Any]:
        done = workplace.here(
            "ask", "scene.png", row["question"], "--panel", panel, "--json", *more
        )
        assert done.returncode == 0, done.stderr
        # One object and nothing else: bars go to the other stream.
        assert "ada judges" in done.stderr
        return json.loads(done.stdout)

    before = set(finished.rglob("*"))
    told = ask("finished")
    assert told["answer"]
    assert {name for answer in told["answers"] for name in answer["scores"]} == {"ada", "ben"}
    learnt = [
        ("--set", f"members.{place}.model={finished / 'round-1' / 'members' / name}")
        for place, name in enumerate(("ada", "ben"))
    ]
    assert ask("recipe.toml", *(part for pair in learnt for part in pair)) == told
    untaught = ask("recipe.toml")
    assert [answer["scores"] for answer in untaught["answers"]] != [
        answer["scores"] for answer in told["answers"]
    ]
    assert set(finished.rglob("*")) == before
