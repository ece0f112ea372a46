"""Data sets of the hub are fetched when the user asks, and never else. Tests are offline."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
from evals.standins import layouts_of, standin
from huggingface_hub.utils import filter_repo_objects

from peeralign.errors import PeeralignError
from peeralign.evals.items import read_items
from peeralign.evals.layouts import find
from peeralign.evals.layouts.hub import patterns
from peeralign.evals.layouts.layout import HUB, ORIGINAL

COMMIT = "0e673461e182fd5be3cba87d4f7db7e1c6f177a9"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub."""
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    return folder


@pytest.mark.parametrize("layout", layouts_of("chartqa"))
def test_local_files_need_no_network(
    layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("something was fetched")

    path = standin("chartqa", layout, tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert read_items("chartqa", str(path)).items.height == 3


def test_what_is_in_the_cache_is_read(cache: Path) -> None:
    folder = cache / "datasets--lmms-lab--ChartQA"
    standin("chartqa", HUB, folder / "snapshots" / COMMIT)
    (folder / "refs").mkdir()
    (folder / "refs/main").write_text(COMMIT)
    found = read_items("chartqa", "hub:lmms-lab/ChartQA")
    again = read_items("chartqa", f"hub:lmms-lab/ChartQA@{COMMIT}")
    assert found.items.height == 3
    assert found.items.equals(again.items)


def test_images_of_the_cache_are_links(cache: Path) -> None:
    folder = cache / "datasets--Shengcao1006--MMHal-Bench"
    snapshot = folder / "snapshots" / COMMIT
    standin("mmhal", ORIGINAL, snapshot)
    (folder / "refs").mkdir()
    (folder / "refs/main").write_text(COMMIT)
    (folder / "blobs").mkdir()
    for number, image in enumerate(sorted((snapshot / "images").iterdir())):
        image.rename(folder / "blobs" / str(number))
        image.symlink_to(f"../../../blobs/{number}")
    found = read_items("mmhal", "hub:Shengcao1006/MMHal-Bench").items
    assert [json.loads(row)["image"] for row in found["row"]] == ["93_o.jpg", "25_o.jpg"]
    # A link to anywhere else is none of the snapshot's.
    (cache / "secret.png").write_bytes((folder / "blobs/0").read_bytes())
    (snapshot / "images/25_o.jpg").unlink()
    (snapshot / "images/25_o.jpg").symlink_to(cache / "secret.png")
    found = read_items("mmhal", str(snapshot))
    assert found.items.height == 1
    assert found.set_aside["reason"][0].startswith("unusable image: outside the image root: ")


@pytest.mark.usefixtures("cache")
def test_offline_is_one_sentence() -> None:
    with pytest.raises(PeeralignError) as caught:
        read_items("chartqa", "hub:lmms-lab/ChartQA")
    sentence = str(caught.value)
    assert sentence.startswith("lmms-lab/ChartQA cannot be fetched from the hub (")
    assert "; give the path of local files instead, from " in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize("path", ["hub:", "hub:ChartQA", "hub:a/b/c"])
def test_no_name_of_a_data_set(path: str) -> None:
    with pytest.raises(PeeralignError, match=r"names no data set; write hub:OWNER/NAME"):
        read_items("chartqa", path)


@pytest.mark.parametrize(
    ("name", "split", "files"),
    [
        ("pope", "test", ["data/test-00000-of-00003.parquet", "test/0000.parquet"]),
        ("pope", "popular", ["Full/popular-00000-of-00001.parquet"]),
        (
            "gqa",
            "testdev",
            [
                "testdev_balanced_images/testdev-00000-of-00001.parquet",
                "testdev_balanced_instructions/testdev-00000-of-00001.parquet",
            ],
        ),
        ("mmhal", "test", ["data/test-00000-of-00003.parquet", "images/a.jpg"]),
    ],
)
def test_only_what_is_needed_is_fetched(name: str, split: str, files: list[str]) -> None:
    there = [
        "README.md",
        "Full/popular-00000-of-00001.parquet",
        "data/test-00000-of-00003.parquet",
        "data/train-00000-of-00001.parquet",
        "images/a.jpg",
        "test/0000.parquet",
        "testdev_all_images/testdev-00000-of-00001.parquet",
        "testdev_balanced_images/testdev-00000-of-00001.parquet",
        "testdev_balanced_instructions/testdev-00000-of-00001.parquet",
    ]
    chosen = list(filter_repo_objects(there, allow_patterns=patterns(find(name), split)))
    assert set(files) <= set(chosen)
    assert not {"README.md", "data/train-00000-of-00001.parquet"} & set(chosen)
    assert ("testdev_all_images/testdev-00000-of-00001.parquet" in chosen) is False
