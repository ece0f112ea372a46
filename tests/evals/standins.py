"""Tiny stand-ins of benchmarks' published files, with real images: `standin(name, layout, folder)`.

Each benchmark's are written by the functions `hub`, `tsv` and `original` of `published/NAME.py`.
"""

from __future__ import annotations

import base64
import csv
import importlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
from PIL import Image

from peeralign.evals.layouts.layout import HUB, ORIGINAL, TSV

_WRITERS = {HUB: "hub", TSV: "tsv", ORIGINAL: "original"}


def standin(name: str, layout: str, folder: Path) -> Path:
    """Write a benchmark's files in a layout; the path that a user would give."""
    folder.mkdir(parents=True, exist_ok=True)
    return getattr(importlib.import_module(f"evals.published.{name}"), _WRITERS[layout])(folder)


def layouts_of(name: str) -> list[str]:
    """The layouts of which there are stand-ins."""
    module = importlib.import_module(f"evals.published.{name}")
    return [layout for layout, writer in _WRITERS.items() if hasattr(module, writer)]


def png(colour: str) -> bytes:
    """A small image, another for each colour."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), colour).save(buffer, "PNG")
    return buffer.getvalue()


def cell(colour: str, name: str | None = None) -> dict[str, Any]:
    """An image as the hub stores it."""
    return {"bytes": png(colour), "path": name}


def base64_of(colour: str) -> str:
    """An image as VLMEvalKit stores it."""
    return base64.b64encode(png(colour)).decode()


def write_images(folder: Path, names: dict[str, str]) -> None:
    """Image files, by name and colour."""
    for name, colour in names.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(colour))


def write_shard(file: Path, rows: Sequence[dict[str, Any]]) -> None:
    """A Parquet file of the hub."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(rows).write_parquet(file)


def write_tsv(file: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """A TSV as VLMEvalKit's, with empty cells where a row lacks a column or has null."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with file.open("w", newline="", encoding="utf-8") as opened:
        lines = csv.writer(opened, delimiter="\t")
        lines.writerow(columns)
        lines.writerows([["" if (v := row.get(c)) is None else v for c in columns] for row in rows])
    return file


def write_json(file: Path, value: Any) -> Path:
    """A JSON file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value), encoding="utf-8")
    return file


def write_lines(file: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """A JSON lines file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file
