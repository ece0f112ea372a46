"""What all readers of users' files share: safe paths, JSON lines, and one sentence per mistake."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl

from peeralign.errors import PeeralignError


class ImageRoot:
    """The folder that image paths are relative to and may not leave, whatever they link to."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = os.path.realpath(folder)
        self._inside = self.folder.rstrip(os.sep) + os.sep
        # Data name many files in few folders; resolving each folder once saves most of the work.
        self._folders: dict[str, str] = {}

    def place(self, path: str) -> tuple[str | None, str | None, str | None]:
        """Where the file at `path` lies, its name inside the root, and what is wrong with it.

        Either the last is None, or the first two are.
        """
        folder, name = os.path.split(os.path.join(self.folder, path.replace("\0", "")))
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder)
        resolved = os.path.join(self._folders[folder], name)
        if name in ("", ".", "..") or os.path.islink(resolved):
            resolved = os.path.realpath(resolved)
        if not resolved.startswith(self._inside):
            return None, None, f"outside the image root: {path}"
        if "\0" in path or not os.path.isfile(resolved):
            return None, None, f"no image file at {resolved}"
        return resolved, resolved[len(self._inside) :], None


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what goes wrong while `path` is read into one sentence."""
    try:
        yield
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        why = str(error).strip().split("\n")[0]
        raise PeeralignError(
            f"{path} cannot be read as {path.suffix[1:]} ({why}); check the file or write it anew"
        ) from error


def json_objects(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON lines file. Raises PeeralignError at a line that is none."""
    return (value for _, value in numbered_objects(path))


def numbered_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The same, each with the number of its line; the first line is 1."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                value, why = json.loads(line.decode()), "not an object"
            except (ValueError, RecursionError) as error:
                value, why = None, getattr(error, "msg", str(error))
            if not isinstance(value, dict):
                raise PeeralignError(
                    f"{path} is no JSON lines at line {number} ({why}); write one object per line"
                )
            yield number, value


def listed(names: Iterable[object]) -> str:
    """The names in one line, at most 20 of them."""
    texts = [str(name) for name in names]
    return ", ".join(texts[:20]) + (f" and {len(texts) - 20} more" if len(texts) > 20 else "")
