"""The loop holds no ground truth: answer columns in the pool change nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl


def test_answer_columns_change_nothing(
    workplace, finished: Path, tmp_path: Path, assert_same_result: Callable[[Path, Path], None]
) -> None:
    pool = pl.read_parquet(workplace.folder / "pool.parquet")
    labelled = tmp_path / "labelled.parquet"
    pool.with_columns(answer=pl.lit("red"), label=pl.lit(1), gpt=pl.lit("x")).write_parquet(
        labelled
    )
    folder = tmp_path / "run"
    done = workplace.run(
        "run", "recipe.toml", "--out", str(folder), "--set", f"pool.path={labelled}"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert_same_result(finished, folder)


def test_no_table_of_the_loop_has_an_answer_column(finished: Path) -> None:
    tables = [p for p in finished.glob("round-1/**/part-*.parquet") if "exam" not in p.parts]
    assert tables
    for path in tables:
        columns = set(pl.read_parquet_schema(path))
        assert not columns & {"answer", "label", "ground_truth", "reference"}, path
