"""MMStar's published files."""

from __future__ import annotations

import json
from pathlib import Path

from evals.loaded import read
from evals.published.mmstar import HINT
from evals.standins import standin

from peeralign.evals.benchmarks import find
from peeralign.evals.items import read_items
from peeralign.evals.layouts.hub import patterns
from peeralign.evals.layouts.layout import HUB, TSV
from peeralign.evals.layouts.mmstar import LAYOUT
from peeralign.evals.rows import checked

INSTRUCTION = "Answer with the option's letter from the given choices directly."


def test_the_hub_is_asked_as_it_stands(tmp_path: Path) -> None:
    found = read_items("mmstar", str(standin("mmstar", HUB, tmp_path)))
    assert found.items["text"].to_list() == [
        f"Where is it?\nOptions: A: On it., B: Under a, b., C: In it.\n{INSTRUCTION}",
        f"{HINT}\nQuestion: Find x <image 1>\nChoices:\n(A) 4\n(B) 6\n{INSTRUCTION}",
        f"Which of A and B is it?\n{INSTRUCTION}",
        f"Which one?\nOptions: A: <image 1>, B: <image 2>, C: nan\n{INSTRUCTION}",
    ]
    assert found.set_aside.is_empty()


def test_both_have_the_same_rows(tmp_path: Path) -> None:
    asked, table = read("mmstar", TSV, tmp_path)
    assert asked[0] == f"Where is it?\nA. On it.\nB. Under a, b.\nC. In it.\n{INSTRUCTION}"
    hub, items = find("mmstar"), read_items("mmstar", str(standin("mmstar", HUB, tmp_path / "hub")))
    whole = [{"id": "1", "prediction": "", **json.loads(row)} for row in items.items["row"]]
    rows = [checked(hub, row, "lmms-eval") for row in whole]
    keys = ("question", "choices", "answer", "category", "l2_category")
    assert [[row.get(key) for key in keys] for row in rows[:2]] == [
        [row[key] for key in keys] for row in table
    ]
    assert table[0]["choices"] == ["On it.", "Under a, b.", "In it."]
    assert table[1]["question"] == "Find x"
    # Options that cannot be told from the question are not made up.
    assert "choices" not in rows[2]
    # Options that are parts of the image keep their names; one that is not there is none.
    assert (rows[3]["question"], rows[3]["choices"]) == ("Which one?", ["<image 1>", "<image 2>"])


def test_a_template_takes_the_hub_apart(tmp_path: Path) -> None:
    path = str(standin("mmstar", HUB, tmp_path))
    found = read_items("mmstar", path, prompt="{question}\n{options}", limit=2)
    assert found.items["text"].to_list() == [
        "Where is it?\nA. On it.\nB. Under a, b.\nC. In it.",
        "Find x\nA. 4\nB. 6",
    ]


def test_the_file_of_the_hub_is_fetched() -> None:
    assert "mmstar.parquet" in patterns(LAYOUT, LAYOUT.split)
