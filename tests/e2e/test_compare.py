"""`peeralign compare` on a run as a user makes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def test_a_run_before_and_after_training(workplace: Any, finished: Path) -> None:
    done = workplace.run(
        *("compare", "finished", "finished", "--round", "0", "--json", "--out", "compare.html")
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    rounds = json.loads((finished / "summary.json").read_text())["rounds"]
    (entry,) = found["benchmarks"]
    assert [pair["a"] for pair in entry["pairs"]] == ["ada", "ben"]
    for pair in [*entry["pairs"], entry["mean"]]:
        figure = pair["figures"]["mean over skills"]
        for side, summary in (("a", rounds[0]), ("b", rounds[1])):
            scores = {name: each["mean"] for name, each in summary["members"].items()}
            expected = scores[pair[side]] if side in pair else summary["panel_mean"]
            assert abs(figure[side] - expected) < 2e-6
    page = (workplace.folder / "compare.html").read_text()
    differ = sum(pair["wins"] + pair["losses"] for pair in entry["pairs"])
    assert page.count('<img src="data:image/png') >= min(differ, 12)
