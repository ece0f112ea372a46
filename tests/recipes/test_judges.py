"""What the judging recipes share: judges that are nothing else, and what a folder begins with."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from peeralign.errors import PeeralignError
from peeralign.judging.rubric import load_rubric
from peeralign.panel import Member
from peeralign.recipes.judges import GradeConfig, begin, judging_panel, write_lines

ADA = Member(name="ada", model="classroom:ada")
NOBODY = pl.DataFrame(schema={"id": pl.String, "reason": pl.String})


def test_members_become_judges_and_nothing_else() -> None:
    (member,) = judging_panel([ADA], GradeConfig()).members
    assert (member.answers, member.judges, member.learns) == (False, True, False)
    with pytest.raises(PeeralignError, match=r"leave judge\.judges"):
        judging_panel([ADA], GradeConfig.model_validate({"judge": {"judges": "self"}}))
    with pytest.raises(PeeralignError, match="ada"):
        judging_panel([ADA, ADA], GradeConfig())


def test_a_judge_that_is_not_there_leaves_no_folder(tmp_path: Path) -> None:
    absent = Member(name="x", model=str(tmp_path / "none"))
    panel = judging_panel([absent], GradeConfig())
    with pytest.raises(PeeralignError, match="no member at"):
        begin(
            *(tmp_path / "out", "judge", "data", "digest", panel, GradeConfig()),
            *(load_rubric("classroom"), NOBODY),
        )
    assert not (tmp_path / "out").exists()


def test_a_folder_is_of_one_file_and_one_recipe(tmp_path: Path) -> None:
    panel, rubric = judging_panel([ADA], GradeConfig()), load_rubric("classroom")
    aside = pl.DataFrame({"id": ["row 1"], "reason": ["no image"]})

    def go(recipe: str = "judge", digest: str = "1") -> None:
        begin(tmp_path / "out", recipe, "data", digest, panel, GradeConfig(), rubric, aside)

    go()
    go()
    written = (tmp_path / "out" / "set-aside.jsonl").read_text()
    assert json.loads(written) == {"id": "row 1", "reason": "no image"}
    with pytest.raises(PeeralignError, match="content = 1, not 2"):
        go(digest="2")
    with pytest.raises(PeeralignError, match="recipe judge, not judge-eval"):
        go(recipe="judge-eval")


def test_lines_of_an_empty_table(tmp_path: Path) -> None:
    write_lines(tmp_path / "none.jsonl", NOBODY)
    assert (tmp_path / "none.jsonl").read_bytes() == b""
