"""Finding the files in what the user gives."""

from __future__ import annotations

from pathlib import Path

import pytest
from evals.standins import cell, standin, write_json, write_shard, write_tsv

from peeralign.errors import PeeralignError
from peeralign.evals.layouts import find
from peeralign.evals.layouts.layout import HUB, ORIGINAL, TSV, Form, Item, Layout
from peeralign.evals.layouts.source import Opened, open_source

CHARTQA = find("chartqa")


def opened(path: Path, split: str | None = None, layout: Layout = CHARTQA) -> Opened:
    return open_source(layout, str(path), split)


def refused(path: Path, split: str | None = None, layout: Layout = CHARTQA) -> str:
    with pytest.raises(PeeralignError) as caught:
        list(opened(path, split, layout).rows)
    return str(caught.value)


def of_configs(configs: tuple[str, ...] | None) -> Layout:
    form = Form(HUB, ("question",), lambda row: Item(row["question"], None, {}))
    return Layout("Set", (form,), "{question}", configs=configs, hub="o/set")


def test_shards_are_read_in_order(tmp_path: Path) -> None:
    source = opened(standin("chartqa", HUB, tmp_path)).source
    assert [file.name for file in source.files] == [
        "test-00000-of-00002.parquet",
        "test-00001-of-00002.parquet",
    ]


@pytest.mark.parametrize(
    "name", ["val.parquet", "val-00000-of-00001-0e673461e182fd5b.parquet", "val/0000.parquet"]
)
def test_names_of_shards(name: str, tmp_path: Path) -> None:
    write_shard(tmp_path / name, [{"question": "q", "answer": "a", "image": cell("red")}])
    assert opened(tmp_path, "val").source.by_name
    # The only split is read, whatever its name.
    assert len(list(opened(tmp_path).rows)) == 1


def test_a_split_that_is_not_there(tmp_path: Path) -> None:
    path = standin("chartqa", HUB, tmp_path)
    assert refused(path, "vals") == (
        f"{path} has no split 'vals', only test, val; set split to one of these; "
        "did you mean 'val'?"
    )


@pytest.mark.parametrize("configs", [None, ("c",)])
def test_several_configurations_are_ambiguous(
    configs: tuple[str, ...] | None, tmp_path: Path
) -> None:
    for config in ("a", "b"):
        write_shard(tmp_path / config / "test-0.parquet", [{"question": config}])
    assert refused(tmp_path, layout=of_configs(configs)) == (
        f"{tmp_path} has the split 'test' of several configurations, a, b; give the folder of one"
    )


@pytest.mark.parametrize(("configs", "questions"), [((), ["a", "b"]), (("b",), ["b"])])
def test_configurations_that_a_layout_names(
    configs: tuple[str, ...], questions: list[str], tmp_path: Path
) -> None:
    for config in ("a", "b"):
        write_shard(tmp_path / config / "test-0.parquet", [{"question": config}])
    rows = opened(tmp_path, layout=of_configs(configs)).rows
    assert [row["question"] for row in rows] == questions


def test_a_folder_of_several_tables(tmp_path: Path) -> None:
    table = [{"index": 0, "question": "q", "answer": "a", "image_path": "x.png"}]
    for name in ("OCRVQA_TEST.tsv", "OCRVQA_TESTCORE.tsv", "Other.tsv"):
        write_tsv(tmp_path / name, table)
    assert refused(tmp_path, layout=find("ocrvqa")) == (
        f"{tmp_path} holds OCRVQA_TEST.tsv, OCRVQA_TESTCORE.tsv; give one of these files"
    )
    (tmp_path / "OCRVQA_TESTCORE.tsv").unlink()
    assert opened(tmp_path, layout=find("ocrvqa")).form.kind == TSV


def test_nothing_at_the_path(tmp_path: Path) -> None:
    assert refused(tmp_path / "gone") == (
        f"no ChartQA at {tmp_path / 'gone'}; get it from the hub data set lmms-lab/ChartQA "
        "('hub:lmms-lab/ChartQA' as the path fetches it) or VLMEvalKit "
        "(https://opencompass.openxlab.space/utils/VLMEval/ChartQA_TEST.tsv) or the authors "
        "(https://github.com/vis-nlp/ChartQA)"
    )


def test_a_folder_without_the_files(tmp_path: Path) -> None:
    assert refused(tmp_path).startswith(
        f"{tmp_path} holds no ChartQA: looked for *.parquet, ChartQA_TEST.tsv, "
        "test/test_human.json, test/test_augmented.json, test_*.json; get it from the hub data set"
    )


def test_unknown_columns(tmp_path: Path) -> None:
    file = write_json(tmp_path / "a.json", [{"question": "q", "gold": "a"}])
    assert refused(file).startswith(
        f"{file} is no ChartQA as it is published: looked for the columns imgname, query, label "
        "(original files), and it has question, gold; get it from the hub data set"
    )


def test_an_unknown_kind_of_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a\n")
    assert refused(tmp_path / "a.csv") == (
        f"{tmp_path / 'a.csv'} is of an unknown kind; ChartQA is read from files that end in "
        ".parquet, .tsv, .json, .jsonl, .ndjson, .txt, or their folder"
    )


def test_shards_of_different_columns(tmp_path: Path) -> None:
    path = standin("chartqa", HUB, tmp_path)
    write_shard(path / "data/test-00001-of-00002.parquet", [{"question": "q"}])
    assert "has no column 'answer', which " in refused(path)


def test_a_column_tells_splits_apart(tmp_path: Path) -> None:
    path = standin("chartqa", TSV, tmp_path)
    assert len(list(opened(path).rows)) == 3
    assert [row["index"] for row in opened(path, "test_augmented").rows] == ["2"]
    assert refused(path, "val") == (
        f"{path} has no split 'val', only test_human, test_augmented; set split to one of these"
    )


def test_where_images_lie(tmp_path: Path) -> None:
    path = standin("chartqa", ORIGINAL, tmp_path)
    assert opened(path).image_root() == path / "test/png"
    assert opened(path / "test/test_human.json").image_root() == path / "test/png"
    table = [{"index": 0, "question": "q", "answer": "a", "image_path": "x.png"}]
    local = write_tsv(tmp_path / "ChartQA_TEST_local.tsv", table)
    assert opened(local).image_root() == tmp_path
    (tmp_path / "images").mkdir()
    assert opened(local).image_root() == tmp_path / "images"
    (tmp_path / "images/ChartQA_TEST").mkdir()
    assert opened(local).image_root() == tmp_path / "images/ChartQA_TEST"
