"""Predictions as VLMEvalKit's files."""

from __future__ import annotations

import ast
import csv
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from evals.standins import base64_of, standin, write_tsv

from peeralign.errors import PeeralignError
from peeralign.evals.benchmarks import NAMES
from peeralign.evals.export import export_vlmevalkit
from peeralign.evals.items import read_items
from peeralign.evals.layouts.layout import TSV

KIT = "VLMEvalKit TSV"
CHOICES = {"answer": "B", "choices": ["a dog", "a cat", "=1+1"]}
HALLUSION = {
    **{"answer": "no", "category": "VS", "subcategory": "chart"},
    **{"set_id": "4", "figure_id": "1", "question_id": "0"},
}
# A row of each benchmark, beside id, question and prediction.
ROWS: dict[str, dict[str, Any]] = {
    "ai2d": CHOICES,
    "chartqa": {"answer": "12%", "split": "test_human"},
    "gqa": {"answer": "left"},
    "hallusionbench": HALLUSION,
    "mathvista": {
        **{"answer": "a cat", "choices": ["a dog", "a cat"], "answer_type": "text"},
        **{"task": "figure question answering", "skills": ["logical reasoning"]},
    },
    "mmbench": {**CHOICES, "category": "ocr", "l2_category": "perception", "split": "dev"},
    "mme": {"answer": "yes", "category": "OCR", "image": "OCR/0001.jpg"},
    "mmmu": {"answers": ["B"], "choices": ["x", "y"], "category": "Art"},
    "mmstar": {**CHOICES, "category": "math", "l2_category": "geometry"},
    "mmvet": {"answer": "x <AND> y", "capabilities": ["ocr", "math"]},
    "ocrbench": {"answers": ["CENTRE"], "category": "Regular Text Recognition"},
    "ocrvqa": {"answers": ["Anne", "Ann"]},
    "pope": {"answer": "no", "category": "random"},
    "realworldqa": CHOICES,
    "scienceqa": {**CHOICES, "subject": "natural science"},
    "seedbench": CHOICES,
    "textvqa": {"answers": ["it's", "x", "x", "x", "x", "x", "x", "x", "x", "x"]},
}
DATASETS = {
    "ai2d": "AI2D_TEST",
    "chartqa": "ChartQA_TEST",
    "gqa": "GQA_TestDev_Balanced",
    "hallusionbench": "HallusionBench",
    "mathvista": "MathVista_MINI",
    "mmbench": "MMBench_DEV_EN",
    "mme": "MME",
    "mmmu": "MMMU_DEV_VAL",
    "mmstar": "MMStar",
    "mmvet": "MMVet",
    "ocrbench": "OCRBench",
    "ocrvqa": "OCRVQA_TESTCORE",
    "pope": "POPE",
    "realworldqa": "RealWorldQA",
    "scienceqa": "ScienceQA_TEST",
    "seedbench": "SEEDBench_IMG",
    "textvqa": "TextVQA_VAL",
}


def write_rows(folder: Path, name: str, rows: list[dict[str, Any]], member: str = "ada") -> None:
    place = folder / "rows" / name / f"{member}.jsonl"
    place.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        json.dumps({"id": str(n), "question": f"what {n}?", "prediction": "B", **row})
        for n, row in enumerate(rows)
    ]
    place.write_text("\n".join(lines))


def write_layouts(folder: Path, layout: str = KIT, split: str | None = None) -> None:
    listed = [{"name": name, "layout": layout, "split": split} for name in NAMES]
    (folder / "figures.json").write_text(json.dumps({"benchmarks": listed}))


def read(path: str | Path) -> list[dict[str, str]]:
    with Path(path).open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines, delimiter="\t"))


def test_every_benchmark_has_its_file_or_a_reason(tmp_path: Path) -> None:
    for name in NAMES:
        write_rows(tmp_path, name, [ROWS.get(name, {"answer": "x"})] * 2)
    write_layouts(tmp_path)
    done = export_vlmevalkit(tmp_path, tmp_path / "kit")
    assert {file["benchmark"]: file["dataset"] for file in done["files"]} == DATASETS
    for file in done["files"]:
        assert file["path"] == str(tmp_path / "kit" / "ada" / f"ada_{file['dataset']}.tsv")
        table = read(file["path"])
        assert [line["prediction"] for line in table] == ["B", "B"]
        assert [line["question"] for line in table] == ["what 0?", "what 1?"]
        assert len({line["index"] for line in table}) == 2
    assert {left["benchmark"] for left in done["left_out"]} == {"chair", "llavabench", "mmhal"}
    assert all(left["reason"] for left in done["left_out"])


def asked_from(folder: Path, name: str, table: Path) -> list[str]:
    """Ids of a table's items, after an evaluation of it was written with a reply to each."""
    items = read_items(name, str(table)).items
    write_layouts(folder)
    rows = [json.loads(row) | {"id": own_id} for own_id, row in items.select("id", "row").rows()]
    write_rows(folder, name, rows)
    return [row["id"] for row in rows]


@pytest.mark.parametrize("name", sorted(set(DATASETS) - {"mmbench"}))
def test_what_was_asked_from_its_own_table_is_exported(name: str, tmp_path: Path) -> None:
    table = standin(name, TSV, tmp_path / "data")
    ids = asked_from(tmp_path, name, table)
    (file,) = export_vlmevalkit(tmp_path, tmp_path / "kit")["files"]
    lines = read(file["path"])
    assert [line["id"] for line in lines] == ids
    if name in ("ai2d", "mmmu", "mmstar", "realworldqa", "scienceqa", "seedbench"):
        known = pl.read_csv(table, separator="\t", infer_schema=False)["index"].to_list()
        assert {line["index"] for line in lines} <= set(known)


def test_rotations_are_exported_by_their_index(tmp_path: Path) -> None:
    row = {"question": "What?", "answer": "B", "A": "cat", "B": "dog", "image": base64_of("red")}
    turned = row | {"answer": "A", "A": "dog", "B": "cat"}
    table = [{"index": 7, **row}, {"index": 1_000_007, **turned}]
    file = write_tsv(tmp_path / "MMBench_DEV_EN.tsv", table)
    assert asked_from(tmp_path, "mmbench", file) == ["7", "7-1"]
    (found,) = export_vlmevalkit(tmp_path, tmp_path / "kit")["files"]
    lines = read(found["path"])
    assert [(line["index"], line["id"]) for line in lines] == [("7", "7"), ("1000007", "7-1")]
    # Rotations that the file does not have, VLMEvalKit would look up in vain.
    write_tsv(tmp_path / "MMBench_DEV_EN.tsv", table[:1])
    assert asked_from(tmp_path, "mmbench", file) == ["7", "7-1"]
    (left,) = export_vlmevalkit(tmp_path, tmp_path / "kit")["left_out"]
    assert "whole numbers" in left["reason"]


def exported(tmp_path: Path, name: str, *rows: dict[str, Any]) -> list[dict[str, str]]:
    """The lines of the benchmark's file."""
    write_rows(tmp_path, name, [{**ROWS[name], **row} for row in rows or ({},)])
    write_layouts(tmp_path)
    (file,) = export_vlmevalkit(tmp_path, tmp_path / "kit")["files"]
    return read(file["path"])


def test_options_are_columns(tmp_path: Path) -> None:
    few = {"choices": ["yes", "no"]}
    first, second = exported(tmp_path, "mmbench", {"id": "7"}, {"id": "1000007", **few})
    assert [first[letter] for letter in "ABC"] == ["a dog", "a cat", "=1+1"]
    assert [second[letter] for letter in "ABC"] == ["yes", "no", ""]
    assert (first["index"], second["index"]) == ("7", "1000007")
    assert first["answer"] == "B"
    groups = (first["category"], first["l2-category"], first["split"])
    assert groups == ("ocr", "perception", "dev")


def test_lists_are_the_text_of_lists(tmp_path: Path) -> None:
    # VLMEvalKit evaluates these cells as Python, even of one answer.
    assert exported(tmp_path / "a", "ocrbench")[0]["answer"] == "['CENTRE']"
    answers = ast.literal_eval(exported(tmp_path / "b", "textvqa")[0]["answer"])
    assert answers == ROWS["textvqa"]["answers"]
    assert exported(tmp_path / "c", "ocrvqa")[0]["answer"] == "['Anne', 'Ann']"
    assert exported(tmp_path / "d", "chartqa")[0]["answer"] == "12%"


def test_yes_and_no_as_they_are_compared(tmp_path: Path) -> None:
    line = exported(tmp_path / "a", "mme")[0]
    assert (line["answer"], line["image_path"], line["category"]) == ("Yes", "OCR/0001.jpg", "OCR")
    assert exported(tmp_path / "b", "pope")[0]["answer"] == "No"
    line = exported(tmp_path / "c", "hallusionbench", {"id": "VS_chart_4_1_0"})[0]
    # The rating takes the fourth to the sixth part.
    assert line["index"].split("_")[3:6] == ["4", "1", "0"]
    assert (line["category"], line["l2-category"], line["answer"]) == ("VS", "chart", "No")


def test_mathvista_and_mmvet(tmp_path: Path) -> None:
    number = {"answer": "12", "choices": None, "answer_type": "integer"}
    options, free = exported(tmp_path / "a", "mathvista", {}, number)
    assert (options["question_type"], options["answer_option"]) == ("multi_choice", "B")
    assert ast.literal_eval(options["choices"]) == ["a dog", "a cat"]
    assert ast.literal_eval(free["skills"]) == ["logical reasoning"]
    assert (free["question_type"], free["answer_option"], free["answer"]) == ("free_form", "", "12")
    assert exported(tmp_path / "b", "mmvet")[0]["category"] == "ocr,math"


AWKWARD = [
    "=HYPERLINK(1)",
    "+1",
    "-1",
    "@x",
    "a\tb",
    "line one\nline two\r\nline three",
    'he said "B"',
    '"',
    "'",
    " blanks ",
    "\\n",
    "1e5",
    "日本",
    "<b>&amp;",
    ",;|",
]


def test_replies_are_read_back_as_they_are(tmp_path: Path) -> None:
    rows = [{"prediction": text, "question": text} for text in AWKWARD]
    table = exported(tmp_path, "chartqa", *rows)
    assert [line["prediction"] for line in table] == AWKWARD
    path = tmp_path / "kit" / "ada" / "ada_ChartQA_TEST.tsv"
    frame = pl.read_csv(path, separator="\t", infer_schema=False)
    assert frame["prediction"].to_list() == AWKWARD
    assert frame["question"].to_list() == AWKWARD
    assert frame["index"].to_list() == [str(n) for n in range(len(AWKWARD))]


def test_replies_that_pandas_takes_for_none_are_counted(tmp_path: Path) -> None:
    write_rows(tmp_path, "gqa", [{"answer": "x", "prediction": p} for p in (None, "None", "none")])
    (file,) = export_vlmevalkit(tmp_path, tmp_path / "kit")["files"]
    assert file["num_missing"] == 2
    assert [line["prediction"] for line in read(file["path"])] == ["", "None", "none"]


def test_options_are_exported_only_by_the_numbers_of_vlmevalkit(tmp_path: Path) -> None:
    write_rows(tmp_path, "ai2d", [CHOICES])
    (left,) = export_vlmevalkit(tmp_path, tmp_path / "kit")["left_out"]
    assert "were not asked from it" in left["reason"]
    write_layouts(tmp_path, "hub Parquet")
    assert not export_vlmevalkit(tmp_path, tmp_path / "kit")["files"]
    write_layouts(tmp_path)
    assert export_vlmevalkit(tmp_path, tmp_path / "kit")["files"]
    write_rows(tmp_path, "ai2d", [{**CHOICES, "id": "q1"}])
    (left,) = export_vlmevalkit(tmp_path, tmp_path / "kit")["left_out"]
    assert "whole numbers" in left["reason"]


def test_ids_of_other_benchmarks_may_be_anything(tmp_path: Path) -> None:
    table = exported(tmp_path, "gqa", {"id": "n1"}, {"id": "n2"})
    assert [(line["index"], line["id"]) for line in table] == [("0", "n1"), ("1", "n2")]


def test_the_data_set_by_split_or_by_name(tmp_path: Path) -> None:
    write_rows(tmp_path, "scienceqa", [CHOICES], "ben")
    write_layouts(tmp_path, split="validation")
    (file,) = export_vlmevalkit(tmp_path, tmp_path / "kit")["files"]
    assert file["path"].endswith("/kit/ben/ben_ScienceQA_VAL.tsv")
    given = {"Science-QA": "ScienceQA_TEST"}
    (file,) = export_vlmevalkit(tmp_path, tmp_path / "kit", given)["files"]
    assert file["dataset"] == "ScienceQA_TEST"
    with pytest.raises(PeeralignError, match="no rows of pope"):
        export_vlmevalkit(tmp_path, tmp_path / "kit", {"pope": "POPE"})


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    write_rows(tmp_path, "pope", [{"answer": "yes"}])
    write_rows(tmp_path, "mathvista", [{**ROWS["mathvista"], "answer": "a bird"}])
    write_rows(tmp_path, "mine", [{"answer": "x"}])
    left = {
        each["benchmark"]: each["reason"]
        for each in export_vlmevalkit(tmp_path, tmp_path / "kit")["left_out"]
    }
    assert left["pope"] == "row 1 has no 'category', which VLMEvalKit needs"
    assert "none of its options" in left["mathvista"]
    assert "no benchmark has this name" in left["mine"]
    with pytest.raises(PeeralignError, match=r"no rows/BENCHMARK/MEMBER\.jsonl"):
        export_vlmevalkit(tmp_path / "kit", tmp_path / "other")
    (tmp_path / "figures.json").write_text("[]")
    with pytest.raises(PeeralignError, match="write it anew"):
        export_vlmevalkit(tmp_path, tmp_path / "kit")
