"""Questions of benchmarks from the files as they are published, with what scoring needs of each.

Nothing is downloaded, unless the path says so ("hub:OWNER/NAME"). docs/benchmarks.md lists the
files of each benchmark and how its questions are worded; `evals/layouts` reads them.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from peeralign.errors import PeeralignError
from peeralign.escape import without_surrogates
from peeralign.evals import benchmarks, layouts
from peeralign.evals.benchmark import Benchmark
from peeralign.evals.layouts.layout import Form, Item, Layout, Row
from peeralign.evals.layouts.pictures import Picture, Pictures
from peeralign.evals.layouts.prompts import check_template, worded
from peeralign.evals.layouts.source import open_source
from peeralign.evals.rows import WrongRow, checked
from peeralign.images.load import MAX_PIXELS
from peeralign.records import IMAGE_DTYPE
from peeralign.store.conversations import Unusable

ITEM_SCHEMA = pl.Schema(
    {
        # Unique in its table.
        "id": pl.String,
        # Exactly what a member is asked.
        "text": pl.String,
        "category": pl.String,
        "image": IMAGE_DTYPE,
        # A JSON object of the keys that scoring needs beside id and prediction.
        "row": pl.String,
    }
)
SET_ASIDE_SCHEMA = pl.Schema({"id": pl.String, "reason": pl.String})
# What a judge adds later; here, anything that its checks take.
_FROM_JUDGES = {"score": None, "reference_score": 5}


@dataclass(frozen=True)
class Items:
    """What is asked of a member."""

    items: pl.DataFrame
    """ITEM_SCHEMA, in the order of the files."""
    set_aside: pl.DataFrame
    """SET_ASIDE_SCHEMA: what cannot be asked or scored, and why."""
    layout: str
    """Which of the published forms it was, for people."""


def read_items(
    name: str,
    path: str,
    *,
    split: str | None = None,
    image_root: str | None = None,
    max_image_pixels: int = MAX_PIXELS,
    limit: int | None = None,
    prompt: str | None = None,
    check_images: bool = True,
) -> Items:
    """Read a benchmark's questions from a file or folder as it is published.

    `split` names shards of a hub data set, or values of a column `split`. Images that rows name lie
    in `image_root`, by default the usual folder beside the file, and may not be outside it. `limit`
    keeps the first items, with all that are scored together with one of them. `prompt` is a
    template of {question}, {options} and {hint} instead of the usual wording. `check_images` opens
    each image; those that cannot be, or have more than `max_image_pixels`, are set aside.

    A member is shown one image, so items without one or with several are set aside, as are those
    that no protocol can score. Of several items with one id, those that are alike are set aside;
    others get "/2" and so on after their id.

    Raises PeeralignError for files that are missing, unreadable or of unknown columns, for a split
    that is not there, and if no item is usable.
    """
    if prompt is not None:
        check_template(prompt)
    if limit is not None and limit < 1:
        raise PeeralignError(f"limit is {limit}; ask for at least 1 item")
    benchmark, layout = benchmarks.find(name), layouts.find(name)
    _check_name(layout, path)
    opened = open_source(layout, path, split)
    root = Path(image_root).expanduser() if image_root else opened.image_root()
    if not root.is_dir():
        raise PeeralignError(f"no folder at {root}; set image_root to the folder of the images")
    kept = _Kept(benchmark, layout, prompt, limit, Pictures(root, max_image_pixels, check_images))
    for number, row in enumerate(opened.rows, start=1):
        if kept.is_full():
            break
        kept.offer(number, row, opened.form)
    if not kept.columns["id"]:
        first = next(iter(kept.set_aside), None)
        why = f": {first[0]} was set aside for '{first[1]}'" if first else ""
        raise PeeralignError(
            f"{path} holds no usable item of {layout.title}{why}; get it from {layout.places()}"
        )
    return Items(
        kept.table(),
        pl.DataFrame(kept.set_aside, schema=SET_ASIDE_SCHEMA, orient="row"),
        opened.form.kind,
    )


def _check_name(layout: Layout, path: str) -> None:
    """Raise PeeralignError for another benchmark's file: many have the same columns."""
    name = Path(path).name
    owners = [each for each in map(layouts.find, layouts.NAMES) if name in each.tsv]
    if owners and layout.title not in [each.title for each in owners]:
        raise PeeralignError(
            f"{path} is {owners[0].title}'s file and was given for {layout.title}; name the "
            "benchmark that it is of, or rename the file if that is not so"
        )


@dataclass
class _Kept:
    """Items that can be asked, column by column."""

    benchmark: Benchmark
    layout: Layout
    prompt: str | None
    limit: int | None
    pictures: Pictures
    columns: dict[str, list[Any]] = field(
        default_factory=lambda: {name: [] for name in ("id", "text", "category", "image", "row")}
    )
    set_aside: list[tuple[str, str]] = field(default_factory=list)
    units: set[tuple[Any, ...]] = field(default_factory=set)
    by_id: dict[str, list[str]] = field(default_factory=dict)

    def is_over(self) -> bool:
        """Whether only what is scored together with an item is still wanted."""
        return self.limit is not None and len(self.columns["id"]) >= self.limit

    def is_full(self) -> bool:
        """Whether nothing more can be wanted."""
        return self.is_over() and not self.units

    def offer(self, number: int, row: Row, form: Form) -> None:
        """Take a row in, if it is wanted, or set it aside."""
        name, wanted = f"row {number}", not self.is_over()
        try:
            item = form.item(row)
            name = _id_of(item, number)
            keys = _keys_of(item)
            # The image's name is known once it was opened; what is scored by it has it already.
            _check_scored(self.benchmark, {"image": "-", **keys})
            unit = self.benchmark.unit_of({"image": "-", **keys})
            wanted = wanted or unit in self.units
            if wanted:
                self._add(name, item, keys, unit)
        except Unusable as reason:
            if wanted:
                self.set_aside.append((name, str(reason)))

    def _add(self, name: str, item: Item, keys: Row, unit: tuple[Any, ...] | None) -> None:
        picture = self.pictures.add(item.image)
        row = {"image": picture.name, **keys}
        text = without_surrogates(worded(item, self.layout, self.prompt))
        encoded = without_surrogates(json.dumps(row, ensure_ascii=False, sort_keys=True))
        name = self._unique(name, text, encoded, picture)
        category = without_surrogates(item.category) if item.category else "all"
        if unit is not None:
            self.units.add(unit)
        values = (name, text, category, picture.number, encoded)
        for column, value in zip(self.columns.values(), values, strict=True):
            column.append(value)

    def _unique(self, name: str, text: str, encoded: str, picture: Picture) -> str:
        content = hashlib.sha256(f"{text}\0{encoded}\0{picture.digest}".encode()).hexdigest()
        same = self.by_id.setdefault(name, [])
        if content in same:
            raise Unusable("the same as an earlier item")
        same.append(content)
        if len(same) == 1:
            return name
        copies = itertools.count(len(same))
        numbered = next(other for copy in copies if (other := f"{name}/{copy}") not in self.by_id)
        self.by_id[numbered] = [content]
        return numbered

    def table(self) -> pl.DataFrame:
        texts = {name: values for name, values in self.columns.items() if name != "image"}
        images = self.pictures.column(self.columns["image"])
        return pl.DataFrame(texts).with_columns(image=images).select(*ITEM_SCHEMA).cast(ITEM_SCHEMA)


def _id_of(item: Item, number: int) -> str:
    name = "" if item.id is None else without_surrogates(str(item.id)).strip()
    return name or str(number)


def _keys_of(item: Item) -> Row:
    if not item.question.strip():
        raise Unusable("no question")
    row: Row = {"question": item.question.strip()}
    if item.options:
        row["choices"] = list(item.options)
    if item.category:
        row["category"] = item.category
    return row | {key: value for key, value in item.row.items() if value is not None}


def _check_scored(benchmark: Benchmark, row: Row) -> None:
    """Raises Unusable if the row would stop scoring in every protocol."""
    wrong = None
    for protocol in benchmark.needs:
        try:
            checked(benchmark, {"id": "1", "prediction": "", **_FROM_JUDGES, **row}, protocol)
            return
        except WrongRow as error:
            wrong = wrong or error
    raise Unusable("cannot be scored", f"it {wrong}")
