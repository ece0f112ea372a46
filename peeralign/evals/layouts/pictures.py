"""Images of published rows: one to an item, opened once to see whether it can be."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from peeralign.evals.layouts.cells import listed
from peeralign.images.load import BrokenImage, open_image
from peeralign.records import IMAGE_DTYPE
from peeralign.store.conversations import Unusable
from peeralign.store.files import ImageRoot

# Images that are in memory as Python objects at a time, beside the table of them.
_BATCH = 64


class Picture(NamedTuple):
    """An item's image."""

    number: int
    """Its place in `Pictures.column`."""
    name: str
    """Its name inside the image root; of an encoded image, its hash."""
    digest: str
    """Hash of the file's bytes."""


class Pictures:
    """Images that items share are held once, however many items there are."""

    def __init__(self, root: Path, max_pixels: int, check: bool) -> None:
        self.root = ImageRoot(root)
        self.blobs = _blobs(Path(self.root.folder))
        self.max_pixels = max_pixels
        self.check = check
        self._known: dict[str, Picture | str] = {}
        self._batch: list[dict[str, Any]] = []
        self._chunks: list[pl.Series] = []
        self._count = 0

    def add(self, value: Any) -> Picture:
        """The only image of a cell. Raises Unusable if there is none, several, or a broken one."""
        data, path = self._bytes_and_path(value)
        if data is not None:
            digest = hashlib.sha256(data).hexdigest()
            return self._once(digest, {"bytes": data, "path": None}, digest)
        resolved, name, problem = self._place(path)
        if resolved is None or name is None:
            raise Unusable("unusable image", problem or "")
        return self._once(resolved, {"bytes": None, "path": resolved}, name)

    def column(self, numbers: list[int]) -> pl.Series:
        """The images of these numbers (IMAGE_DTYPE); equal ones share their memory."""
        self._flush()
        empty = pl.Series("image", [], dtype=IMAGE_DTYPE)
        images = pl.concat([empty, *self._chunks]) if self._chunks else empty
        return images.gather(numbers)

    def _place(self, path: str) -> tuple[str | None, str | None, str | None]:
        found = self.root.place(path)
        whole = os.path.normpath(os.path.join(self.root.folder, path))
        if self.blobs is None or found[0] or not whole.startswith(self.root.folder + os.sep):
            return found
        resolved, _, problem = self.blobs.place(whole)
        return resolved, os.path.relpath(whole, self.root.folder), problem

    def _once(self, key: str, image: dict[str, Any], name: str) -> Picture:
        if key not in self._known:
            self._known[key] = self._opened(key, image, name)
        known = self._known[key]
        if isinstance(known, str):
            raise Unusable("unusable image", known)
        return known

    def _opened(self, key: str, image: dict[str, Any], name: str) -> Picture | str:
        """The image, or what is wrong with it."""
        try:
            if self.check:
                open_image(image, self.max_pixels)
            picture = Picture(self._count, name, key if image["bytes"] else _file_digest(key))
        except (BrokenImage, OSError) as error:
            return str(error)
        self._keep(image)
        return picture

    def _keep(self, image: dict[str, Any]) -> None:
        self._batch.append(image)
        self._count += 1
        if len(self._batch) == _BATCH:
            self._flush()

    def _flush(self) -> None:
        if self._batch:
            self._chunks.append(pl.Series("image", self._batch, dtype=IMAGE_DTYPE))
            self._batch = []

    def _bytes_and_path(self, value: Any) -> tuple[bytes | None, str]:
        values = [each for each in listed(value) if each is not None]
        if len(values) > 1:
            raise Unusable("several images", str(len(values)))
        data = path = values[0] if values else None
        if isinstance(data, dict):
            data, path = data.get("bytes"), data.get("path")
        if isinstance(data, bytes) and data:
            return data, ""
        if isinstance(path, str) and path.strip():
            return None, path
        raise Unusable("no image")


def _blobs(root: Path) -> ImageRoot | None:
    """Where the files lie that a snapshot in the hub's cache links to, if the root is in one."""
    for folder in root.parents:
        if folder.name == "snapshots" and (folder.parent / "blobs").is_dir():
            return ImageRoot(folder.parent / "blobs")
    return None


def _file_digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
