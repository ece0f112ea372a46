"""Images of items."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from evals.standins import cell, png, write_images

from peeralign.evals.layouts.pictures import Pictures
from peeralign.images.load import MAX_PIXELS
from peeralign.records import IMAGE_DTYPE
from peeralign.store.conversations import Unusable


def pictures(root: Path, max_pixels: int = MAX_PIXELS, check: bool = True) -> Pictures:
    return Pictures(root, max_pixels, check)


@pytest.mark.parametrize("value", [png("red"), cell("red"), [png("red")], [cell("red")]])
def test_encoded_images(value: Any, tmp_path: Path) -> None:
    found = pictures(tmp_path)
    picture = found.add(value)
    assert picture.name == picture.digest
    assert found.column([picture.number]).to_list() == [{"bytes": png("red"), "path": None}]


@pytest.mark.parametrize("value", ["a/b.png", ["a/b.png"], {"bytes": None, "path": "a/b.png"}])
def test_named_images(value: Any, tmp_path: Path) -> None:
    write_images(tmp_path, {"a/b.png": "red"})
    found = pictures(tmp_path)
    picture = found.add(value)
    assert picture.name == "a/b.png"
    # The file's content counts, not its name.
    assert picture.digest == found.add(png("red")).digest
    assert found.column([0])[0] == {"bytes": None, "path": str(tmp_path / "a/b.png")}


def test_equal_images_are_held_once(tmp_path: Path) -> None:
    found = pictures(tmp_path)
    numbers = [found.add(png(("red", "blue")[n % 2])).number for n in range(200)]
    assert set(numbers) == {0, 1}
    column = found.column(numbers)
    assert column.dtype == IMAGE_DTYPE
    assert [image["bytes"] for image in column] == [png("red"), png("blue")] * 100


def test_more_images_than_a_batch(tmp_path: Path) -> None:
    found = pictures(tmp_path)
    colours = [f"#0000{n:02x}" for n in range(150)]
    numbers = [found.add(png(colour)).number for colour in colours]
    assert [image["bytes"] for image in found.column(numbers)] == [png(c) for c in colours]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "no image"),
        ([], "no image"),
        ("", "no image"),
        ({"bytes": None, "path": None}, "no image"),
        (4, "no image"),
        ([png("red"), png("blue")], "several images: 2"),
        ("['a.png', 'b.png']", "several images: 2"),
        (b"not an image", "unusable image: not a PNG, JPEG, WebP, BMP, GIF or TIFF image"),
        ("gone.png", "unusable image: no image file at "),
        ("../outside.png", "unusable image: outside the image root: ../outside.png"),
        ("empty.png", "unusable image: "),
    ],
)
def test_images_that_cannot_be_shown(value: Any, reason: str, tmp_path: Path) -> None:
    write_images(tmp_path, {"outside.png": "red"})
    root = tmp_path / "root"
    root.mkdir()
    (root / "empty.png").write_bytes(b"")
    found = pictures(root)
    for _ in range(2):
        with pytest.raises(Unusable) as caught:
            found.add(value)
        assert str(caught.value).startswith(reason)


def test_large_images(tmp_path: Path) -> None:
    with pytest.raises(Unusable, match="8x6 pixels, more than the limit of 40"):
        pictures(tmp_path, max_pixels=40).add(png("red"))


def test_unchecked_images_are_not_opened(tmp_path: Path) -> None:
    found = pictures(tmp_path, check=False)
    assert found.add(b"not an image").number == 0
    with pytest.raises(Unusable, match="no image file at"):
        found.add("gone.png")
