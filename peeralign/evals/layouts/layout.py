"""What a benchmark's published files look like, and what one of their rows asks.

A benchmark has one `Layout`, with a `Form` for each way in which its files are published: the
Parquet of the hub, the TSV of VLMEvalKit, the authors' own files. A form knows the columns by which
it is told apart, and turns a row into an `Item`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peeralign.errors import PeeralignError

Row = dict[str, Any]
HUB, TSV, ORIGINAL = "hub Parquet", "VLMEvalKit TSV", "original files"
SUFFIXES = {HUB: (".parquet",), TSV: (".tsv",), ORIGINAL: (".json", ".jsonl", ".ndjson", ".txt")}
# Its server; the addresses are those of VLMEvalKit at e8e78f0.
TSV_ADDRESS = "https://opencompass.openxlab.space/utils/"
# Rows carry, under this name, the path of their file relative to the folder that was given.
FILE = "_file"


@dataclass(frozen=True, slots=True)
class Item:
    """What a row asks, before it is worded."""

    question: str
    """The bare question."""
    image: Any
    """Encoded bytes, a file's name, {"bytes", "path"}, a list of these, or None."""
    row: Mapping[str, Any]
    """Keys that scoring needs beside id and prediction. `choices`, `category`, `question` and
    `image` (its name, else its hash) are added from the item where they are not here."""
    id: Any = None
    """Unique in the file; without one it is the row's number, from 1."""
    options: Sequence[str] = ()
    """Texts of the options, A first."""
    hint: str = ""
    category: str | None = None
    asked: str | None = None
    """The whole text as the field asks it, where no wording of the layout gives that; what is asked
    unless the user gives a template."""


@dataclass(frozen=True)
class Source:
    """The files that were found."""

    layout: Layout
    folder: Path
    """The folder that was given, or that of the file."""
    files: tuple[Path, ...]
    split: str | None
    """The split that the user asked for, if any."""
    by_name: bool
    """Whether the files were chosen by the name of the split, and so hold nothing else."""

    def beside(self, name: str) -> Path:
        """A further file or folder that the form needs. Raises PeeralignError if it is missing."""
        beside = self.files[0].parent
        for folder in dict.fromkeys((beside, self.folder, beside.parent)):
            if (folder / name).exists():
                return folder / name
        raise PeeralignError(
            f"{self.layout.title} needs {name} beside {self.files[0]}, and it is not there; "
            f"get it from {self.layout.places()}"
        )


def of_split(rows: Iterable[Row], source: Source) -> Iterator[Row]:
    """The rows of the split that was asked for, where a column `split` tells them apart."""
    seen: dict[str, None] = {}
    num_kept = 0
    for row in rows:
        named = row.get("split")
        if source.split is not None and not source.by_name and named is not None:
            seen[str(named)] = None
            if str(named) != source.split:
                continue
        num_kept += 1
        yield row
    if seen and not num_kept:
        raise PeeralignError(
            f"{source.files[0]} has no split '{source.split}', only {', '.join(seen)}; "
            "set split to one of these"
        )


@dataclass(frozen=True)
class Form:
    """One way in which the files are published."""

    kind: str
    """HUB, TSV or ORIGINAL."""
    columns: tuple[str, ...]
    """All of these columns are there, or it is not this form."""
    item: Callable[[Row], Item]
    """What a row asks. Raises `Unusable` with the reason why it cannot be asked."""
    files: tuple[str, ...] = ()
    """Patterns of the original files within a folder; all files that fit are read, in order."""
    rows: Callable[[Iterable[Row], Source], Iterator[Row]] = of_split
    """The rows to ask, from those of the files: chosen, split up or joined with other files."""
    images: tuple[str, ...] = ("images",)
    """Where images named in rows lie: the first of these folders that is beside the file or in the
    folder that was given, else the file's own folder."""
    rooted: bool = False
    """Whether images are named from the folder that was given."""


@dataclass(frozen=True)
class Layout:
    """How a benchmark is published, and how its questions are worded."""

    title: str
    forms: tuple[Form, ...]
    prompt: str
    """The usual wording, a template of {question}, {options} and {hint} (see `prompts`)."""
    split: str = "test"
    """The split of the hub's shards that is read unless the user names another."""
    prompt_without_options: str | None = None
    """The wording of items without options, if it differs."""
    hub: str | None = None
    """Name of the hub data set, owner/name."""
    configs: tuple[str, ...] | None = None
    """The hub's configurations that are read; () is all of them, None that there is one."""
    more_configs: tuple[str, ...] = ()
    """Configurations that are fetched too, since a form reads further files from them."""
    hub_files: tuple[str, ...] = ()
    """Patterns of original files that are on the hub; fetched too, where they are."""
    tsv: tuple[str, ...] = ()
    """Names of VLMEvalKit's files."""
    tsv_folder: str = "VLMEval"
    """Folder of VLMEvalKit's server that has them."""
    original: str | None = None
    """Address of the authors' files."""

    def places(self) -> str:
        """Where to get the files, as a sentence can hold it."""
        found = []
        if self.hub:
            found.append(f"the hub data set {self.hub} ('hub:{self.hub}' as the path fetches it)")
        if self.tsv:
            tables = (f"{TSV_ADDRESS}{self.tsv_folder}/{name}" for name in self.tsv)
            found.append(f"VLMEvalKit ({', '.join(tables)})")
        if self.original:
            found.append(f"the authors ({self.original})")
        return " or ".join(found)
