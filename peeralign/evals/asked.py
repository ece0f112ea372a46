"""The items that an evaluation asks: chosen once, every image looked at, and the same ever after.

OUT/items/BENCHMARK.json         ids of the items, and what else is known of the data
OUT/set-aside/BENCHMARK.jsonl    items that cannot be asked or scored, with their reasons
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from peeralign.errors import PeeralignError
from peeralign.evals.benchmark import Benchmark
from peeralign.evals.benchmarks import canonical, find
from peeralign.evals.items import read_items
from peeralign.evals.judged import GRADINGS
from peeralign.evals.rows import WrongRow, checked
from peeralign.evals.score import check_protocol
from peeralign.progress import Reporter
from peeralign.records import make_id
from peeralign.store.preferences import reason_counts
from peeralign.store.run import write_lines, write_whole

SHORT, LONG = 128, 1024
# Benchmarks whose answers are sentences, or that are worked out before they are given.
_LONG = ("llavabench", "mathvista", "mmhal", "mmmu", "mmvet")


class BenchmarkConfig(BaseModel):
    """One benchmark: its file, and how it is asked and scored."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str
    """A benchmark of docs/benchmarks.md, such as "chartqa"."""
    data: str
    """Its file or folder, in one of the published layouts."""
    split: str | None = None
    """Which split, where the data have several; left out, the one that is reported."""
    image_root: str | None = None
    """The folder that image names are relative to and may not leave."""
    limit: int | None = Field(default=None, ge=1)
    """Only the first items, for a try; the score is then none of the benchmark's."""
    protocol: Literal["official", "lmms-eval", "vlmevalkit"] = "official"
    """Whose rules read and score the replies."""
    prompt: str | None = None
    """The prompt, with {question}, {options} and {hint}; left out, the usual one."""
    max_new_tokens: int | None = Field(default=None, ge=1)
    """Longest reply, in tokens; left out, 128, and 1024 where replies are long."""
    rubric: str | None = None
    """Rubric of a benchmark that a judge grades; left out, the benchmark's."""

    @property
    def longest(self) -> int:
        return self.max_new_tokens or (LONG if self.name in _LONG else SHORT)


def look_at(entry: BenchmarkConfig, max_image_pixels: int) -> None:
    """Raise PeeralignError, before anything is written, if a benchmark's data cannot be read."""
    read_items(
        entry.name,
        entry.data,
        split=entry.split,
        image_root=entry.image_root,
        max_image_pixels=max_image_pixels,
        limit=1,
        prompt=entry.prompt,
    )


def checked_entries(
    benchmarks: Sequence[BenchmarkConfig], has_judge: bool
) -> tuple[BenchmarkConfig, ...]:
    """The same under the names of their modules. Raises PeeralignError for what does not fit."""
    benchmarks = tuple(e.model_copy(update={"name": canonical(e.name)}) for e in benchmarks)
    names = [entry.name for entry in benchmarks]
    if not names:
        raise PeeralignError("no benchmark was named; give --benchmark and --data, or --suite")
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise PeeralignError(f"'{doubled[0]}' is given twice; evaluate it in two folders")
    for entry in benchmarks:
        check_protocol(find(entry.name), entry.protocol)
        grading = GRADINGS.get(entry.name)
        needs_judge = grading and not (grading.is_optional and entry.protocol != "lmms-eval")
        if needs_judge and not has_judge:
            raise PeeralignError(
                f"{find(entry.name).title}, protocol {entry.protocol}, is graded by a judge; name "
                "one with --judge"
            )
        if entry.rubric and not grading:
            raise PeeralignError(f"{find(entry.name).title} is scored by rules; leave out rubric")
    return benchmarks


def choose(entry: BenchmarkConfig, out: Path, max_image_pixels: int, reporter: Reporter) -> None:
    """Note which items of a benchmark are asked, unless that is done.

    Raises PeeralignError if its data cannot be read, or hold no item that can be.
    """
    asked = {**entry.model_dump(mode="json"), "max_image_pixels": max_image_pixels}
    # Before anybody was asked, settings may change from call to call.
    if _note(entry, out).is_file() and facts_of(entry, out).get("asked", asked) == asked:
        return
    title = find(entry.name).title
    reporter.say(f"checking {title} in {entry.data}")
    given = read_items(
        entry.name,
        entry.data,
        split=entry.split,
        image_root=entry.image_root,
        max_image_pixels=max_image_pixels,
        limit=entry.limit,
        prompt=entry.prompt,
    )
    usable, wrong = _scorable(given.items, find(entry.name), entry.protocol)
    lost = pl.concat([given.set_aside, wrong])
    reasons = reason_counts(lost)
    if usable.is_empty():
        why = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
        raise PeeralignError(
            f"{entry.data} holds no usable item of {title}: {why or 'it is empty'}"
        )
    write_lines(out / "set-aside" / f"{entry.name}.jsonl", lost)
    facts = {
        "asked": asked,
        "layout": given.layout,
        "num_set_aside": len(lost),
        "reasons": reasons,
        "digest": _digest(usable),
        "ids": usable["id"].to_list(),
    }
    write_whole(_note(entry, out), json.dumps(facts).encode())


def facts_of(entry: BenchmarkConfig, out: Path) -> dict[str, Any]:
    """What `choose` noted: asked (the settings), layout, num_set_aside, reasons, digest, ids."""
    return json.loads(_note(entry, out).read_text())


def chosen_items(entry: BenchmarkConfig, out: Path, max_image_pixels: int) -> pl.DataFrame:
    """The chosen items (ITEM_SCHEMA). Raises PeeralignError if the data have changed since."""
    facts = facts_of(entry, out)
    chosen = pl.DataFrame({"id": facts["ids"]})
    # Images were looked at once. Which were broken matters only where ids repeat, or for a limit.
    for check_images in (False, True):
        given = read_items(
            entry.name,
            entry.data,
            split=entry.split,
            image_root=entry.image_root,
            max_image_pixels=max_image_pixels,
            limit=entry.limit,
            prompt=entry.prompt,
            check_images=check_images,
        )
        items = chosen.join(given.items, on="id", how="inner", maintain_order="left")
        if _digest(items) == facts["digest"]:
            return items
    raise PeeralignError(f"{entry.data} has changed since {out} was begun; choose another --out")


def _note(entry: BenchmarkConfig, out: Path) -> Path:
    return out / "items" / f"{entry.name}.json"


def _scorable(
    items: pl.DataFrame, benchmark: Benchmark, protocol: str
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(items that can be scored, the others with their reasons)."""
    # What a judge gives later.
    later = {"prediction": None, "score": None, "reference_score": 1, "correctness": None}
    lost: list[tuple[str, str]] = []
    units: dict[Any, list[str]] = {}
    for own_id, row in items.select("id", "row").iter_rows():
        try:
            found = checked(benchmark, {**later, **json.loads(row), "id": own_id}, protocol)
            units.setdefault(benchmark.unit_of(found), []).append(own_id)
        except WrongRow as wrong:
            lost.append((own_id, f"the row {wrong}"))
    if benchmark.rows_of_unit is not None:
        # What is scored together with a lost item is lost with it.
        broken = [names for names in units.values() if len(names) != benchmark.rows_of_unit]
        lost += [(own_id, "without its other question") for names in broken for own_id in names]
    schema = {"id": pl.String, "reason": pl.String}
    aside = pl.DataFrame(lost, schema=schema, orient="row")
    return items.join(aside, on="id", how="anti", maintain_order="left"), aside


def _digest(items: pl.DataFrame) -> str:
    """Changes with whatever is asked, shown or scored; not with where the files lie."""
    # Many items may show one file.
    fingerprint = cache(_fingerprint)
    return make_id(
        *(
            part
            for *row, image in items.select("id", "text", "row", "image").iter_rows()
            for part in (*row, fingerprint(image["path"]) or _hash(image["bytes"]))
        )
    )


def _fingerprint(path: str | None) -> str | None:
    return _hash(Path(path).read_bytes()) if path else None


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
