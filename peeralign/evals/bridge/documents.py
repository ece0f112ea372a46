"""Documents of lmms-eval's data sets, whose images are opened here and not by `datasets`.

`datasets` decodes every image column of a row before anybody can look at its size, and lmms-eval
has Pillow fill up truncated images with grey.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from PIL import Image, ImageFile

from peeralign.images.load import BrokenImage, open_image
from peeralign.store.files import ImageRoot


class Opening(dict[str, Any]):
    """A row whose stored images ({"bytes", "path"}) are opened when they are asked for.

    Getting one raises BrokenImage as `open_image` does, and for a file outside `image_root`; there
    is none without a root: published data sets hold their images' bytes.
    """

    def __init__(self, row: Mapping[str, Any], max_pixels: int, image_root: str | None) -> None:
        super().__init__(row)
        self._max_pixels = max_pixels
        self._root = None if image_root is None else ImageRoot(image_root)

    def __getitem__(self, key: str) -> Any:
        return self._opened(super().__getitem__(key))

    def get(self, key: str, default: Any = None) -> Any:
        try:
            return self[key]
        except KeyError:
            return default

    def _opened(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._opened(each) for each in value]
        if not isinstance(value, dict) or set(value) != {"bytes", "path"}:
            return value
        if not value["bytes"]:
            value = {"bytes": None, "path": self._placed(value["path"])}
        with _truncated_refused():
            return open_image(value, self._max_pixels)

    def _placed(self, path: str | None) -> str:
        if not path:
            raise BrokenImage("it has neither bytes nor a path")
        if self._root is None:
            raise BrokenImage(
                f"its data hold the path {os.path.basename(path)} and no bytes; name the folder "
                "with --image-root"
            )
        place, _, problem = self._root.place(path)
        if place is None:
            raise BrokenImage(str(problem))
        return place


@contextmanager
def _truncated_refused() -> Iterator[None]:
    allowed = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = allowed


def only_image(visuals: list[Any], max_pixels: int) -> Image.Image:
    """The image that a task wants shown. Raises BrokenImage unless it is one, and not too big."""
    if not visuals:
        raise BrokenImage("no image")
    kinds = {type(each).__name__ for each in visuals if not isinstance(each, Image.Image)}
    if kinds:
        raise BrokenImage(f"not an image but {', '.join(sorted(kinds))}")
    if len(visuals) > 1:
        raise BrokenImage(f"{len(visuals)} images, and members take one")
    image = visuals[0]
    if image.width * image.height > max_pixels:
        raise BrokenImage(
            f"{image.width}x{image.height} pixels, more than the limit of {max_pixels}"
        )
    return image.convert("RGB")


def undecoded(dataset: Any) -> Any:
    """A data set, or splits by name, whose image columns stay as they are stored."""
    from datasets import Image as Column
    from datasets import List, Sequence

    if isinstance(dataset, dict):
        return type(dataset)({name: undecoded(split) for name, split in dataset.items()})
    for name, feature in (dataset.features or {}).items():
        if isinstance(feature, Column):
            dataset = dataset.cast_column(name, Column(decode=False))
        elif isinstance(feature, List) and isinstance(feature.feature, Column):
            dataset = dataset.cast_column(name, Sequence(Column(decode=False)))
    return dataset
