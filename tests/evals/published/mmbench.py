"""MMBench as it is published: the hub's rows have each rotation, the table's have none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evals.standins import base64_of, cell, write_shard, write_tsv


def _row(index: int, options: str, answer: str, **more: Any) -> dict[str, Any]:
    texts = dict(zip("ABCD", options.split(), strict=False))
    about = {"category": "object_localization", "L2-category": "finegrained_perception"}
    row = {"index": index, "question": "What is it?", "hint": "nan", "answer": answer, **about}
    return {**row, "A": "nan", "B": "nan", "C": "nan", "D": "nan", **texts, **more}


def hub(folder: Path) -> Path:
    red, blue = {"image": cell("red")}, {"image": cell("blue"), "hint": "It is small."}
    rows = [
        _row(241, "cat dog bird", "B", **red),
        _row(252, "ant bee", "A", **blue),
        _row(1_000_241, "dog bird cat", "A", **red),
        _row(1_000_252, "bee ant", "B", **blue),
        _row(2_000_241, "bird cat dog", "C", **red),
    ]
    write_shard(folder / "en/dev-00000-of-00001.parquet", rows)
    write_shard(folder / "en/test-00000-of-00001.parquet", [{**row, "answer": ""} for row in rows])
    write_shard(folder / "cn/dev-00000-of-00001.parquet", rows[1:2])
    return folder


def tsv(folder: Path) -> Path:
    rows = [
        _row(241, "cat dog bird", "B", D=None, hint=None, image=base64_of("red")),
        _row(252, "ant bee", "A", C=None, D=None, hint="It is small.", image=base64_of("blue")),
    ]
    for row in rows:
        row["l2-category"] = row.pop("L2-category")
    return write_tsv(folder / "MMBench_DEV_EN.tsv", rows)
