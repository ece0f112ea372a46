"""Published files as items."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from evals.standins import base64_of, standin, write_images, write_json, write_tsv

from peeralign.errors import PeeralignError
from peeralign.evals.items import ITEM_SCHEMA, SET_ASIDE_SCHEMA, Items, read_items
from peeralign.evals.layouts.layout import HUB, ORIGINAL, TSV

ROW = {"index": "0", "question": "How many?", "answer": "4", "image": base64_of("red")}


def table(folder: Path, *rows: dict[str, Any]) -> str:
    """A table of ChartQA with these changes to `ROW`."""
    return str(write_tsv(folder / "ChartQA_TEST.tsv", [{**ROW, **row} for row in rows]))


def read(folder: Path, *rows: dict[str, Any], **settings: Any) -> Items:
    return read_items("chartqa", table(folder, *rows), **settings)


def test_items(tmp_path: Path) -> None:
    found = read(tmp_path, {})
    assert found.items.schema == ITEM_SCHEMA
    assert found.set_aside.schema == SET_ASIDE_SCHEMA
    assert found.layout == "VLMEvalKit TSV"
    item = found.items.row(0, named=True)
    assert item["id"] == "0"
    assert item["text"] == "How many?\nAnswer the question with a single word."
    assert item["category"] == "all"
    row = json.loads(item["row"])
    assert row == {"answers": ["4"], "question": "How many?", "image": row["image"]}


def test_what_cannot_be_asked_is_set_aside(tmp_path: Path) -> None:
    broken = [
        ({"index": 1, "image": None}, "no image"),
        ({"index": 2, "image": str([ROW["image"]] * 2)}, "several images: 2"),
        ({"index": 3, "image": "QUJD" * 30}, "unusable image: not a PNG, "),
        ({"index": 4, "answer": None}, "no answer"),
        ({"index": 5, "question": " "}, "no question"),
    ]
    found = read(tmp_path, {}, *(row for row, _ in broken))
    assert found.items["id"].to_list() == ["0"]
    assert len(found.set_aside) == len(broken)
    for (_, reason), (_, said) in zip(broken, found.set_aside.rows(), strict=True):
        assert said.startswith(reason)
    # What broke before its id was known is named by its place.
    assert found.set_aside["id"].to_list() == ["1", "2", "3", "row 5", "row 6"]


@pytest.mark.parametrize("lacking", ["imgname", "query", "label"])
def test_a_row_without_a_key_is_set_aside(lacking: str, tmp_path: Path) -> None:
    path = standin("chartqa", ORIGINAL, tmp_path)
    file = path / "test/test_human.json"
    whole, broken = json.loads(file.read_text())
    write_json(file, [whole, {key: broken[key] for key in broken if key != lacking}])
    found = read_items("chartqa", str(path))
    assert len(found.items) == 2
    assert len(found.set_aside) == 1


def test_images_may_go_unchecked(tmp_path: Path) -> None:
    found = read(tmp_path, {"image": "QUJD" * 30}, check_images=False)
    assert found.items.height == 1
    with pytest.raises(PeeralignError, match="0 was set aside for 'unusable image: 8x6"):
        read(tmp_path, {}, max_image_pixels=40)


def test_rows_that_no_protocol_scores_are_set_aside(tmp_path: Path) -> None:
    row = {**ROW, "category": "adversarial"}
    path = write_tsv(tmp_path / "POPE.tsv", [row, {**row, "index": 1, "answer": "Yes"}])
    found = read_items("pope", str(path))
    assert found.items["id"].to_list() == ["1"]
    assert found.set_aside.rows() == [
        ("0", "cannot be scored: it has an answer that is neither yes nor no")
    ]


def test_no_usable_item_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PeeralignError) as caught:
        read(tmp_path, {"image": None})
    assert str(caught.value).startswith(
        f"{tmp_path / 'ChartQA_TEST.tsv'} holds no usable item of ChartQA: 0 was set aside for "
        "'no image'; get it from the hub data set lmms-lab/ChartQA"
    )
    path = write_json(tmp_path / "a.json", [])
    with pytest.raises(PeeralignError, match=r"looked for the columns .* and it has none; get it"):
        read_items("chartqa", str(path))


def test_an_empty_table(tmp_path: Path) -> None:
    file = tmp_path / "a.tsv"
    file.write_text("index\tquestion\tanswer\n")
    with pytest.raises(PeeralignError, match="holds no usable item of ChartQA; get it from"):
        read_items("chartqa", str(file))


def test_ids_that_repeat(tmp_path: Path) -> None:
    found = read(tmp_path, {}, {}, {"answer": "5"}, {"index": "0/2"}, {"question": "Why?"})
    assert found.items["id"].to_list() == ["0", "0/2", "0/2/2", "0/3"]
    assert found.set_aside.rows() == [("0", "the same as an earlier item")]


def test_items_without_an_id_have_their_rows_number(tmp_path: Path) -> None:
    path = standin("chartqa", HUB, tmp_path)
    # Through all shards.
    assert read_items("chartqa", str(path)).items["id"].to_list() == ["1", "2", "3"]


def test_a_limit_is_of_usable_items(tmp_path: Path) -> None:
    rows = [{"index": n, "image": None if n == 1 else ROW["image"]} for n in range(5)]
    found = read(tmp_path, *rows, limit=2)
    assert found.items["id"].to_list() == ["0", "2"]
    assert found.set_aside["id"].to_list() == ["1"]
    assert read(tmp_path, *rows, limit=9).items.height == 4
    with pytest.raises(PeeralignError, match=r"^limit is 0; ask for at least 1 item$"):
        read(tmp_path, *rows, limit=0)


def test_a_prompt_of_the_users_own(tmp_path: Path) -> None:
    assert read(tmp_path, {}, prompt="Q: {question}\nA:").items["text"][0] == "Q: How many?\nA:"
    with pytest.raises(PeeralignError, match=r"^prompt has no \{question\}"):
        read(tmp_path, {}, prompt="Look.")


def test_an_image_root_of_the_users_own(tmp_path: Path) -> None:
    path = standin("chartqa", ORIGINAL, tmp_path / "data")
    (path / "test/png").rename(tmp_path / "charts")
    with pytest.raises(PeeralignError, match="was set aside for 'unusable image: no image file at"):
        read_items("chartqa", str(path))
    found = read_items("chartqa", str(path), image_root=str(tmp_path / "charts"))
    assert found.items.height == 3
    with pytest.raises(PeeralignError, match=r"^no folder at .*; set image_root to the folder of"):
        read_items("chartqa", str(path), image_root=str(tmp_path / "gone"))


def test_surrogates_of_json_are_replaced(tmp_path: Path) -> None:
    write_images(tmp_path / "png", {"a.png": "red"})
    path = tmp_path / "test_human.json"
    path.write_text('[{"imgname": "a.png", "query": "\\ud800?", "label": "4"}]')
    found = read_items("chartqa", str(path))
    assert "\ud800" not in found.items["text"][0]
    assert "\ud800" not in found.items["row"][0]


def test_the_same_questions_in_every_layout(tmp_path: Path) -> None:
    texts = [
        sorted(
            read_items("chartqa", str(standin("chartqa", kind, tmp_path / kind[:3]))).items["text"]
        )
        for kind in (HUB, TSV, ORIGINAL)
    ]
    assert texts[0] == texts[1] == texts[2]


def test_another_benchmark_s_file_is_not_taken_for_it(tmp_path: Path) -> None:
    path = standin("pope", TSV, tmp_path)
    with pytest.raises(PeeralignError, match=r"POPE's file and was given for ChartQA"):
        read_items("chartqa", str(path))
    # Under a name that nobody publishes, columns decide.
    other = path.rename(tmp_path / "mine.tsv")
    assert read_items("pope", str(other)).items.height > 0
