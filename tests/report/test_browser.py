"""The report in a real browser, opened from disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from report.compared import EXPLANATION, write_critic_run
from report.contrasted import write_overlap, write_seva

from peeralign.report import write_report
from peeralign.store.run import Run

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

NAMES = ("chromium", "chromium-browser", "google-chrome")


def find_chromium() -> str | None:
    usual = Path("/usr/bin/chromium")
    return str(usual) if usual.is_file() else next(filter(None, map(shutil.which, NAMES)), None)


CHROMIUM = find_chromium()
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason=f"no browser: none of {', '.join(NAMES)} is installed"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield started
        started.close()


@pytest.fixture
def opened(browser: Browser, report_path: Path) -> Iterator[SimpleNamespace]:
    """The report's page, and what it complained about and asked for while it is open."""
    page = browser.new_page()
    seen = SimpleNamespace(page=page, errors=[], requests=[])
    page.on("console", lambda m: seen.errors.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    page.on("request", lambda request: seen.requests.append(request.url))
    page.goto(report_path.as_uri())
    yield seen
    page.close()


def visible_cards(page: Page) -> list[str]:
    return page.locator(".card:visible .question").all_inner_texts()


COLOUR, COUNT = "what colour is the circle?", "how many circles?"


def test_loads_quietly_and_alone(opened: SimpleNamespace) -> None:
    assert opened.errors == []
    assert [url for url in opened.requests if not url.startswith(("file://", "data:"))] == []


def test_strangers_script_did_not_run(opened: SimpleNamespace, write: SimpleNamespace) -> None:
    assert opened.page.evaluate("window.hacked") is None
    assert opened.page.locator(".rejected blockquote").first.inner_text() == write.script


def test_images_are_decoded(opened: SimpleNamespace) -> None:
    widths = opened.page.eval_on_selector_all("img", "images => images.map(i => i.naturalWidth)")
    assert widths == [48]


def test_filters(opened: SimpleNamespace) -> None:
    page = opened.page
    assert visible_cards(page) == [COLOUR, COUNT]
    page.select_option("#filter-category", "General")
    assert visible_cards(page) == [COLOUR]
    assert page.inner_text("#shown") == "1 of 2 shown"
    page.click("#filter-reset")
    assert visible_cards(page) == [COLOUR, COUNT]
    page.select_option("#filter-round", "1")
    page.select_option("#filter-author", "ben")
    assert visible_cards(page) == [COLOUR, COUNT]
    page.fill("#filter-text", "MANY circles")
    assert visible_cards(page) == [COUNT]
    page.fill("#filter-text", "nowhere to be found")
    assert visible_cards(page) == []
    assert page.is_visible("#nothing")


def test_narrow_page_does_not_scroll_sideways(opened: SimpleNamespace) -> None:
    opened.page.set_viewport_size({"width": 400, "height": 800})
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= 400


def test_rounds_are_chosen_by_buttons(browser: Browser, whole_run: Run) -> None:
    for stage in ("candidates/ada", "candidates/ben", "judgments/ada", "judgments/ben"):
        shutil.copytree(whole_run.round_folder(1) / stage, whole_run.round_folder(2) / stage)
    page = browser.new_page()
    page.goto(write_report(whole_run.folder).as_uri())
    shown = page.locator("#judges [data-tab]:visible")
    assert shown.get_attribute("data-tab") == "2"
    page.click("#judges button[data-show='1']")
    assert shown.get_attribute("data-tab") == "1"
    assert page.locator("#judges button[aria-pressed='true']").inner_text() == "Round 1"
    page.close()


def test_pairs_between_views(browser: Browser, tmp_path: Path, write: SimpleNamespace) -> None:
    run = write_seva(tmp_path / "seva", write.questions)
    write_overlap(run, "ada")
    page = browser.new_page(viewport={"width": 400, "height": 800})
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(write_report(run.folder).as_uri())
    assert len(visible_cards(page)) == 3
    page.select_option("#filter-view", "dark")
    assert visible_cards(page) == [COLOUR]
    page.select_option("#filter-author", "ben")
    assert visible_cards(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    assert errors == []
    page.close()


def test_what_critics_said(browser: Browser, tmp_path: Path, write: SimpleNamespace) -> None:
    run = write_critic_run(tmp_path / "critic", write.questions)
    page = browser.new_page(viewport={"width": 400, "height": 800})
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(write_report(run.folder).as_uri())
    assert page.evaluate("window.hacked") is None
    assert page.locator(".said").first.inner_text() == EXPLANATION
    page.select_option("#filter-author", "ben")
    assert page.locator(".card:visible .chosen blockquote").all_inner_texts() == ["bar"]
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    assert errors == []
    page.close()
