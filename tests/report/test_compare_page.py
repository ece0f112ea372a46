"""A comparison's page: what it shows, from what, and that strangers' text stays text."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from evals.folders import gqa, png, write_eval, write_exam_file, write_run
from report.test_browser import CHROMIUM, browser  # noqa: F401

from peeralign.evals.compare import Comparison, compare
from peeralign.evals.items import read_items
from peeralign.evals.sheets import open_side
from peeralign.report.compare_page import CARDS, collect_cards, render, write_page

if TYPE_CHECKING:
    from playwright.sync_api import Browser

SCRIPT = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>"
NUMBER = 60
BEFORE = {"count": "0" * 40 + "1" * 20, "colour": "-" * 30 + "0" * 30}
AFTER = {"count": "1" * 40 + "0" * 20, "colour": "0" * 30 + "-" * 30}


def compared(a: Path, b: Path, a_round: int | None = None, seed: int = 0) -> Comparison:
    return compare(open_side(a, a_round), open_side(b, None), seed=seed, resamples=200)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    exam = write_exam_file(tmp_path / "exam.parquet", {"count": NUMBER, "colour": NUMBER})
    return write_run(tmp_path / "run", exam, {0: {"ada": BEFORE}, 1: {"ada": AFTER}})


def test_the_gallery_is_a_bounded_draw_of_each_outcome(run: Path) -> None:
    cards, lost = collect_cards(compared(run, run, 0))
    assert lost == {}
    counts = Counter(card.outcome for card in cards)
    assert counts == dict.fromkeys(("B wins", "A wins", "tie, different answers"), CARDS)
    drawn = [card.item for card in cards]
    assert [card.item for card in collect_cards(compared(run, run, 0))[0]] == drawn
    other = [card.item for card in collect_cards(compared(run, run, 0, seed=1))[0]]
    assert set(other) != set(drawn)
    # Drawn from all of them, not the first.
    assert max(int(item.split("-")[1]) for item in drawn if item.startswith("count")) > 25


def test_a_card_has_the_image_and_what_both_said(run: Path) -> None:
    card = next(
        card for card in collect_cards(compared(run, run, 0))[0] if card.outcome == "B wins"
    )
    assert (card.question, card.expected, card.members) == ("count?", "yes", "ada")
    assert card.image_url is not None
    assert card.image_url.startswith("data:image/png;base64,")
    a, b = card.answers
    assert (a.side, a.text, a.reading, a.score) == ("A", "no", "read as it stands", 0.0)
    assert (b.side, b.text, b.look) == ("B", "yes", "chosen")
    tie = next(card for card in collect_cards(compared(run, run, 0))[0] if "tie" in card.outcome)
    assert {said.look for said in tie.answers} == {"even"}
    assert {said.reading for said in tie.answers} == {"not read", "read as it stands"}


def test_without_data_there_is_a_card_without_image(run: Path) -> None:
    comparison = compared(run, run, 0)
    (run.parent / "exam.parquet").unlink()
    cards, lost = collect_cards(comparison)
    assert len(cards) == 3 * CARDS
    assert all(card.image_url is None and card.image_problem for card in cards)
    assert list(lost) == ["exam"]
    assert "No images of exam: no exam at" in render(comparison)


def test_ties_with_equal_answers_are_not_shown(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", None, {0: {"ada": BEFORE}, 1: {"ada": BEFORE}})
    comparison = compared(run, run, 0)
    assert collect_cards(comparison) == ([], {})
    assert "No item on which the two differ." in render(comparison)
    assert "by row" in render(comparison)


def evaluations(tmp_path: Path, **keys: Any) -> list[Path]:
    right, wrong = gqa("1" * 20, **keys), gqa("0" * 20, **keys, wrong=SCRIPT)
    members = [{SCRIPT.replace("/", ""): rows} for rows in (right, wrong)]
    return [
        write_eval(tmp_path / name, {"gqa": rows, "pope": rows}, data=str(tmp_path / "gone"))
        for name, rows in zip("ab", members, strict=True)
    ]


def chartqa(folder: Path, number: int) -> Path:
    """ChartQA's test set as its authors publish it, with one image broken."""
    (folder / "test" / "png").mkdir(parents=True)
    rows = []
    for place in range(number):
        name = f"{place}.png"
        (folder / "test" / "png" / name).write_bytes(b"none" if place == 0 else png(place))
        rows.append({"imgname": name, "query": f"how many at {place}?", "label": str(place)})
    (folder / "test" / "test_human.json").write_text(json.dumps(rows))
    return folder


def test_images_of_an_evaluation_come_from_its_data(tmp_path: Path) -> None:
    data = chartqa(tmp_path / "data", 12)
    found = read_items("chartqa", str(data), check_images=False, limit=11).items
    sides = []
    for name, said in (("a", "7"), ("b", "the same as asked")):
        rows = [
            {"id": item, **json.loads(row), "prediction": said if said == "7" else text}
            for item, text, row in found.select("id", "text", "row").iter_rows()
        ]
        written = {"chartqa": {"x": rows}}
        sides.append(write_eval(tmp_path / name, written, data=str(data), limit=11))
    cards, lost = collect_cards(compared(*sides))
    assert (len(cards), lost) == (11, {})
    broken = [card for card in cards if card.image_url is None]
    assert [card.question for card in broken] == ["how many at 0?"]
    shutil.rmtree(data)
    cards, lost = collect_cards(compared(*sides))
    assert len(cards) == 11
    assert not any(card.image_url for card in cards)
    assert str(data) in lost["ChartQA"]


def test_strangers_text_is_escaped(tmp_path: Path) -> None:
    page = render(compared(*evaluations(tmp_path, category=SCRIPT, question=SCRIPT)))
    assert "&lt;script&gt;window.hacked" in page
    assert page.count("<script") == 1
    assert "<img src=x" not in page
    # The protocol stands beside the name, in each of the three tables.
    assert page.count("GQA, official") == 3
    assert page.count("POPE, official") >= 3


def test_it_loads_nothing(run: Path) -> None:
    page = render(compared(run, run, 0))
    assert "default-src 'none'" in page
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert all(source.startswith(("data:", "#")) for source in sources)
    assert page == render(compared(run, run, 0))


def test_a_chart_for_each_unit(tmp_path: Path) -> None:
    rows = [{**row, "score": 0.5, "capabilities": "rec"} for row in gqa("1" * 12)]
    sides = [
        write_eval(tmp_path / name, {"gqa": {"x": rows}, "pope": {"x": rows}, "mmvet": {"x": rows}})
        for name in "ab"
    ]
    page = render(compared(*sides))
    assert "B minus A (share, 0 to 1)" in page
    assert "B minus A (points, 0 to 100)" in page
    assert page.count("<svg") == 2


@pytest.mark.skipif(CHROMIUM is None, reason="no browser is installed")
def test_in_a_browser(browser: Browser, run: Path, tmp_path: Path) -> None:  # noqa: F811
    path = tmp_path / "out" / "compare.html"
    write_page(compared(run, run, 0), path)
    page, errors, requests = browser.new_page(viewport={"width": 400, "height": 900}), [], []
    page.on("console", lambda message: errors.append(message.text))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.as_uri())
    cards = page.locator(".card:visible")
    assert cards.count() == 3 * CARDS
    page.select_option("#filter-outcome", "A wins")
    assert cards.count() == CARDS
    assert page.inner_text("#shown") == f"{CARDS} of {3 * CARDS} shown"
    page.fill("#filter-text", "colour")
    assert cards.count() == 0
    page.click("#filter-reset")
    assert cards.count() == 3 * CARDS
    widths = page.eval_on_selector_all(".card img", "images => images.map(i => i.naturalWidth)")
    assert widths == [40] * (3 * CARDS)
    assert page.evaluate("document.documentElement.scrollWidth") == 400
    assert errors == []
    assert [url for url in requests if not url.startswith(("file://", "data:"))] == []
    page.close()
