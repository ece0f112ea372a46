"""`peeralign ask` and `peeralign consistency` as a user calls them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from peeralign.cli import app, guarded

RUNNER = CliRunner()


@pytest.fixture(scope="module")
def picture(scenes: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "scene.png"
    path.write_bytes(scenes[0]["image"]["bytes"])
    return path


def ask(*arguments: str) -> str:
    done = RUNNER.invoke(app, ["ask", *arguments], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout.strip()


def test_asking_with_and_without_describing(picture: Path, tmp_path: Path) -> None:
    plain = ask(str(picture), "describe the image.", "--member", "classroom:cleo")
    assert len(plain.split()) > 3
    prompts = tmp_path / "mine.toml"
    prompts.write_text(
        'version = 1\nplain = ["describe the image."]\nguided = "x"\nmisleading = ["x"]\n'
        'infused = "{description} {question}"\n'
    )
    told = ask(
        *(str(picture), "how many circles?", "--member", "classroom:cleo"),
        *("--describe", str(prompts), "--max-new-tokens", "24"),
    )
    # The description comes first: asking with it written out is the same.
    assert told == ask(
        *(str(picture), f"{plain} how many circles?"),
        *("--member", "classroom:cleo", "--max-new-tokens", "24"),
    )


def test_a_member_from_a_file(picture: Path, tmp_path: Path) -> None:
    member = tmp_path / "member.toml"
    member.write_text('model = "classroom:cleo"\ndevice = "cpu"\n')
    question = "describe the image."
    assert ask(str(picture), question, "--member", str(member)) == ask(
        str(picture), question, "--member", "classroom:cleo"
    )


PANEL = """
[[members]]
name = "ada"
model = "classroom:ada"
[[members]]
name = "cleo"
model = "classroom:cleo"
[generate]
num_draws = 4
temperature = 1.5
max_new_tokens = 4
[judge]
rubric = "classroom"
readout = "expected"
[train]
epochs = 9
"""


@pytest.fixture(scope="module")
def panel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("panel") / "panel.toml"
    path.write_text(PANEL)
    return path


def test_a_panel_s_best_answer_for_people_and_for_programs(picture: Path, panel: Path) -> None:
    given = (str(picture), "how many circles?", "--panel", str(panel))
    told = json.loads(ask(*given, "--json"))
    first = told["answers"][0]
    assert (told["answer"], told["authors"]) == (first["text"], first["authors"])
    assert told["reward"] == max(answer["reward"] for answer in told["answers"])
    assert (told["reason"], told["question"]) == (None, "how many circles?")
    rewards = [answer["reward"] for answer in told["answers"]]
    assert rewards == sorted(rewards, reverse=True)
    assert sum(answer["num_draws"] for answer in told["answers"]) <= 2 * 4
    for answer in told["answers"]:
        assert set(answer["scores"]) == {"ada", "cleo"}
        assert answer["reward"] == pytest.approx(sum(answer["scores"].values()) / 2)
    answered, by, *rest = ask(*given).splitlines()
    assert answered == told["answer"]
    assert by == f"by {', '.join(told['authors'])}"
    table = "\n".join(rest)
    assert all(name in table for name in ("draws", "reward", "ada", "cleo"))
    assert all(f"{reward:.3f}" in table for reward in rewards)
    # Other draws, by another seed.
    assert json.loads(ask(*given, "--json", "--set", "seed=9"))["answers"] != told["answers"]


def test_settings_of_a_panel_and_one_judge_that_cannot_be_read(picture: Path, panel: Path) -> None:
    given = (str(picture), "how many circles?", "--panel", str(panel), "--json")
    unreadable = ("--set", "judge.rubric=detailed_captions", "--set", "judge.readout=text")
    told = json.loads(
        ask(
            *(*given, "--set", "generate.num_draws=1", "--set", "members.0.answers=false"),
            *("--max-new-tokens", "1", *unreadable),
        )
    )
    (answer,) = told["answers"]
    assert (answer["authors"], answer["num_draws"], answer["reward"]) == (["cleo"], 1, None)
    assert set(answer["reasons"]) == {"ada", "cleo"}
    shown = ask(*given[:-1], *unreadable)
    assert "nobody scored any answer" in shown


def test_one_member_for_programs(picture: Path) -> None:
    given = (str(picture), "how many circles?", "--member", "classroom:cleo")
    assert json.loads(ask(*given, "--json")) == {
        "question": "how many circles?",
        "answer": ask(*given),
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["PICTURE", "what?"], "give one of --member"),
        (["PICTURE", "what?", "--member", "classroom:ada", "--panel", "x.toml"], "give one of"),
        (["PICTURE", "what?", "--panel", "x.toml"], "no panel at x.toml"),
        (["PICTURE", "what?", "--panel", "PANEL", "--set", "train.epochs=1"], "no setting 'train'"),
        (["PICTURE", "what?", "--panel", "PANEL", "--describe", "stic"], "--describe is for"),
        (["PICTURE", "what?", "--member", "classroom:ada", "--set", "seed=1"], "for a panel"),
        (["no.png", "what?", "--panel", "PANEL"], "no file at no.png"),
        (["PICTURE", "what?", "--panel", "missing"], "no panel at missing"),
        (
            ["PICTURE", "what?", "--panel", "PANEL", "--set", "members.0.model=classroom:nobody"],
            "no classroom peer named",
        ),
        (["no.png", "what?", "--member", "classroom:ada"], "no file at no.png"),
        (["PICTURE", "what?", "--member", "classroom:nobody"], "no classroom peer named"),
        (["PICTURE", "what?", "--member", "missing.toml"], "missing.toml"),
        (["PICTURE", "?", "--member", "classroom:ada", "--describe", "stik"], "no prompts named"),
    ],
)
def test_mistakes_are_one_sentence(
    picture: Path, panel: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"PICTURE": str(picture), "PANEL": str(panel)}
    given = [places.get(part, part) for part in arguments]
    assert guarded(lambda: app(["ask", *given], standalone_mode=False)) == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert "Traceback" not in shown.err
    assert shown.out == ""


def test_consistency_of_what_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["consistency", str(tmp_path), "--judge", "classroom:ada"]
    assert guarded(lambda: app(given, standalone_mode=False)) == 2
    assert "error:" in capsys.readouterr().err
    given += ["--readout", "loud"]
    assert guarded(lambda: app(given, standalone_mode=False)) == 2
    assert "text, greedy, expected" in capsys.readouterr().err
