"""Which items an evaluation asks: chosen once, and the same when they are read again."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from evals.standins import base64_of, cell, png, standin, write_images, write_shard, write_tsv

from peeralign.errors import PeeralignError
from peeralign.evals import asked
from peeralign.evals.asked import LONG, SHORT, BenchmarkConfig, choose, chosen_items, facts_of
from peeralign.evals.layouts.layout import HUB, ORIGINAL
from peeralign.progress import Reporter

PIXELS = 10_000


def charts(folder: Path, *colours: str) -> BenchmarkConfig:
    """Questions whose images have these colours; "none" is no image at all."""
    rows = [
        {
            "question": f"q{place}",
            "answer": str(place),
            "type": "human_test",
            "image": {"bytes": b"none", "path": None} if colour == "none" else cell(colour),
        }
        for place, colour in enumerate(colours)
    ]
    write_shard(folder / "chartqa.parquet", rows)
    return BenchmarkConfig(name="chartqa", data=str(folder / "chartqa.parquet"))


def test_items_are_chosen_once_and_found_again(tmp_path: Path) -> None:
    entry, out = charts(tmp_path, "red", "none", "blue"), tmp_path / "out"
    choose(entry, out, PIXELS, Reporter())
    facts = facts_of(entry, out)
    assert facts["layout"] == HUB
    assert (facts["num_set_aside"], sum(facts["reasons"].values())) == (1, 1)
    aside = map(json.loads, (out / "set-aside/chartqa.jsonl").read_text().splitlines())
    assert [row["id"] for row in aside] == ["2"]
    items = chosen_items(entry, out, PIXELS)
    assert items["id"].to_list() == facts["ids"] == ["1", "3"]
    assert [json.loads(row)["question"] for row in items["row"]] == ["q0", "q2"]
    # Nothing is looked at a second time.
    note = (out / "items/chartqa.json").stat().st_mtime_ns
    choose(entry, out, PIXELS, Reporter())
    assert (out / "items/chartqa.json").stat().st_mtime_ns == note


@pytest.mark.parametrize("colours", [("red", "green"), ("blue", "red"), ("red",)])
def test_other_data_are_refused(colours: tuple[str, ...], tmp_path: Path) -> None:
    entry, out = charts(tmp_path, "red", "blue"), tmp_path / "out"
    choose(entry, out, PIXELS, Reporter())
    charts(tmp_path, *colours)
    with pytest.raises(PeeralignError, match=r"has changed since .*; choose another --out"):
        chosen_items(entry, out, PIXELS)


def test_items_that_repeat_an_id_beside_a_broken_image(tmp_path: Path) -> None:
    rows = [
        {"question_id": "7", "question": question, "answer": "yes", "category": "adversarial"}
        | {"image_source": "a", "image": {"bytes": data, "path": None}}
        for question, data in (("a?", b"none"), ("b?", png("red")))
    ]
    write_shard(tmp_path / "pope.parquet", rows)
    entry, out = BenchmarkConfig(name="pope", data=str(tmp_path / "pope.parquet")), tmp_path / "out"
    choose(entry, out, PIXELS, Reporter())
    assert len(chosen_items(entry, out, PIXELS)) == 1


def test_a_row_that_its_protocol_cannot_score_is_set_aside(tmp_path: Path) -> None:
    path = standin("textvqa", HUB, tmp_path / "textvqa")
    shard = next(iter(path.rglob("validation*.parquet")))
    table = pl.read_parquet(shard)
    nine = pl.col("answers").list.head(9)
    first = pl.int_range(pl.len()) == 0
    table.with_columns(
        pl.when(first).then(nine).otherwise("answers").alias("answers")
    ).write_parquet(shard)
    entry = BenchmarkConfig(name="textvqa", data=str(path))
    choose(entry, tmp_path / "official", PIXELS, Reporter())
    assert facts_of(entry, tmp_path / "official")["num_set_aside"] == 1
    # lmms-eval scores any number of answers.
    other = entry.model_copy(update={"protocol": "lmms-eval"})
    choose(other, tmp_path / "lmms", PIXELS, Reporter())
    assert facts_of(other, tmp_path / "lmms")["num_set_aside"] == 0


def test_nothing_usable(tmp_path: Path) -> None:
    with pytest.raises(PeeralignError, match="holds no usable item of ChartQA"):
        choose(charts(tmp_path, "none"), tmp_path / "out", PIXELS, Reporter())


def test_replies_are_short_unless_they_are_sentences() -> None:
    lengths = {
        name: BenchmarkConfig(name=name, data="x").longest for name in ("pope", "mmvet", "mmmu")
    }
    assert lengths == {"pope": SHORT, "mmvet": LONG, "mmmu": LONG}
    assert BenchmarkConfig(name="pope", data="x", max_new_tokens=9).longest == 9


def table(folder: Path, images: list[str]) -> BenchmarkConfig:
    rows = [
        {"index": place, "question": f"q{place}", "answer": "4", "image": image}
        for place, image in enumerate(images)
    ]
    data = write_tsv(folder / "ChartQA_TEST.tsv", rows)
    return BenchmarkConfig(name="chartqa", data=str(data), limit=2)


def test_a_limit_counts_what_can_be_asked(tmp_path: Path) -> None:
    red, broken = base64_of("red"), "QUJD" * 30
    entry = table(tmp_path, [red, broken, red, red, broken])
    choose(entry, tmp_path / "out", PIXELS, Reporter())
    facts = facts_of(entry, tmp_path / "out")
    assert facts["ids"] == ["0", "2"]
    assert facts["num_set_aside"] == 1
    lost = (tmp_path / "out/set-aside/chartqa.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lost] == ["1"]
    assert chosen_items(entry, tmp_path / "out", PIXELS)["id"].to_list() == ["0", "2"]


def test_what_a_limit_leaves_out_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = table(tmp_path, [base64_of("red")] * 4)
    choose(entry, tmp_path / "out", PIXELS, Reporter())
    read, heights = asked.read_items, []

    def counted(*given, **named):
        found = read(*given, **named)
        heights.append(len(found.items))
        return found

    monkeypatch.setattr(asked, "read_items", counted)
    chosen_items(entry, tmp_path / "out", PIXELS)
    assert heights == [2]


def test_other_pixels_under_an_old_name_are_other_data(tmp_path: Path) -> None:
    data = standin("chartqa", ORIGINAL, tmp_path / "chartqa")
    entry = BenchmarkConfig(name="chartqa", data=str(data))
    choose(entry, tmp_path / "out", PIXELS, Reporter())
    assert len(chosen_items(entry, tmp_path / "out", PIXELS)) == 3
    write_images(data / "test/png", {"b.png": "green"})
    with pytest.raises(PeeralignError, match=r"has changed since .* was begun"):
        chosen_items(entry, tmp_path / "out", PIXELS)
    # Elsewhere, the same files are the same data.
    write_images(data / "test/png", {"b.png": "blue"})
    moved = entry.model_copy(update={"data": str(data.rename(tmp_path / "moved"))})
    assert len(chosen_items(moved, tmp_path / "out", PIXELS)) == 3
