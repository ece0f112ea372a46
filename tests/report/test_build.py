"""The page as a file: whole, self-contained and escaped, for finished and unfinished runs."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest

from peeralign.errors import PeeralignError
from peeralign.images.load import BrokenImage, open_image
from peeralign.report import write_report
from peeralign.store.run import Run

NewRun = Callable[..., Run]


class Page(HTMLParser):
    """A page's elements, its visible text, and every attribute that could load something."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def values(self, *names: str) -> list[str]:
        return [attrs[name] or "" for _, attrs in self.elements for name in names if name in attrs]


@pytest.fixture(scope="module")
def page(report_path: Path) -> Page:
    return Page(report_path)


def test_report_lies_in_the_run_and_names_it(page: Page, report_path: Path) -> None:
    run = Run.existing(report_path.parent)
    assert report_path.name == "report.html"
    assert "<title>a-run" in page.source
    assert run.manifest()["settings_digest"] in page.text
    assert (
        "The panel mean rose from 50.0% in round 0 to 75.0% in round 1 (+25.0 points" in page.text
    )
    assert "not finished" not in page.text


def test_same_run_gives_the_same_bytes(whole_run: Run) -> None:
    first = write_report(whole_run.folder).read_bytes()
    assert write_report(whole_run.folder).read_bytes() == first


def test_nothing_is_loaded_from_anywhere(page: Page) -> None:
    links = page.values(
        "src", "href", "xlink:href", "srcset", "action", "poster", "data", "background"
    )
    assert len(links) > 10
    assert [link[:40] for link in links if not link.startswith(("#", "data:"))] == []
    assert [url for url in re.findall(r"url\(([^)]*)\)", page.source) if url[0] != "#"] == []
    assert "@import" not in page.source


def test_policy_allows_this_script_and_no_other(page: Page) -> None:
    [script] = re.findall(r"<script>(.*?)</script>", page.source, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    [policy] = [attrs["content"] for tag, attrs in page.elements if "http-equiv" in attrs]
    assert policy is not None
    assert f"script-src 'sha256-{digest}';" in policy
    assert "default-src 'none'" in policy


def test_strangers_text_is_escaped(page: Page, write: SimpleNamespace) -> None:
    assert write.script in page.text
    assert write.script not in page.source
    assert [tag for tag, _ in page.elements].count("script") == 1


def test_names_are_escaped_in_figures(new_run: NewRun, write: SimpleNamespace) -> None:
    run = new_run(members=[{"name": '<b id="x">&$x$'}], exam=None)
    name = '<b id="x">&$x$'
    write.exam(run, 0, name, {"count": 1, "colour": 3})
    run.stage(0, "exam", name).finish()
    page = Page(write_report(run.folder))
    assert name in page.text
    assert "b" not in [tag for tag, _ in page.elements]


def test_broken_image_says_why(page: Page, write: SimpleNamespace) -> None:
    with pytest.raises(BrokenImage) as broken:
        open_image(write.broken)
    assert f"No image: {broken.value}" in page.text
    assert [tag for tag, _ in page.elements].count("img") == 1
    assert [tag for tag, _ in page.elements].count("article") == 2


def test_figures_are_labelled_and_ids_are_unique(page: Page) -> None:
    drawings = [attrs for tag, attrs in page.elements if tag == "svg"]
    # Two widths of the scores, two skills, one round's rewards, judges and yield.
    assert len(drawings) == 7
    assert all(attrs["role"] == "img" and attrs["aria-label"] for attrs in drawings)
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in page.values("href", "xlink:href") if link[0] == "#"} <= set(ids)


def test_empty_run(new_run: NewRun) -> None:
    page = Page(write_report(new_run().folder))
    assert "No exam has been scored in this run" in page.text
    assert "Round 0: the exam before training is not finished yet." in page.text
    assert "Round 1: not begun yet." in page.text
    assert "No preference pairs yet." in page.text


@pytest.mark.parametrize(
    "recipe", ["judge", "judge-eval", "critic-data", "sft", "prefer", "eval", "lmms-eval"]
)
def test_folders_without_rounds_have_no_report(recipe: str, tmp_path: Path) -> None:
    Run.open(tmp_path / "other", recipe, {}, 0)
    with pytest.raises(PeeralignError, match=f"holds no rounds .* made by '{recipe}'; give"):
        write_report(tmp_path / "other")


def test_every_stop_gives_a_page(new_run: NewRun, write: SimpleNamespace) -> None:
    run = new_run()
    for member in ("ada", "ben"):
        write.exam(run, 0, member, {"count": 1, "colour": 3})
    page = Page(write_report(run.folder))
    assert (
        "The panel mean before training is 50.0%; no other round has been scored yet." in page.text
    )
    # Round 0 is whole, so its exam is not announced again.
    assert "Round 0:" not in page.text
    for step, missing in (
        (write.questions, "answers, judgments, rewards, pairs, training, exam"),
        (write.candidates, "answers (0 of 2 members done), judgments, rewards"),
        (write.judgments, "judgments (0 of 2 members done), rewards, pairs, training, exam"),
        (write.pairs, "training, exam"),
    ):
        step(run)
        assert f"Round 1: not finished yet: {missing}" in Page(write_report(run.folder)).text


def test_run_without_an_exam(new_run: NewRun, write: SimpleNamespace) -> None:
    run = new_run(exam=None)
    for step in (write.questions, write.candidates, write.judgments, write.pairs):
        step(run)
    for member in ("ada", "ben"):
        run.checkpoint(1, member).mkdir(parents=True)
    page = Page(write_report(run.folder))
    assert "it made 2 pairs" in page.text
    assert "not finished yet:" not in page.text
    assert [tag for tag, _ in page.elements].count("article") == 2


def test_recipe_without_judges_or_thresholds(new_run: NewRun, write: SimpleNamespace) -> None:
    run = new_run(exam=None, judge=None, curate=None, members=None)
    write.questions(run)
    write.candidates(run)
    page = Page(write_report(run.folder))
    assert "Round 1: not finished yet: answers (0 of 2 members done), pairs, training." in page.text
    # What judges give has no place here.
    body = page.source.split("<body>")[1].split("<script>")[0]
    assert "judg" not in body


def test_no_run_at_all(tmp_path: Path) -> None:
    with pytest.raises(PeeralignError, match="no run at"):
        write_report(tmp_path)


def test_damaged_table_is_named(whole_run: Run) -> None:
    whole_run.stage(1, "rewards").shard(0).write_bytes(b"not a table")
    with pytest.raises(PeeralignError, match="cannot be read as a run"):
        write_report(whole_run.folder)
