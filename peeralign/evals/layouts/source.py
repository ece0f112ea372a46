"""Finds, in what the user gives, the files of a benchmark and the form that they have."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from peeralign.errors import PeeralignError, nearest
from peeralign.evals.layouts.hub import PREFIX, fetched
from peeralign.evals.layouts.layout import (
    FILE,
    HUB,
    SUFFIXES,
    TSV,
    Form,
    Layout,
    Row,
    Source,
)
from peeralign.evals.layouts.tables import open_table
from peeralign.store.files import listed

# "validation-00000-of-00003.parquet", with the hash of older snapshots or without.
_SHARD = re.compile(r"(.+?)(?:-\d+(?:-of-\d+)?(?:-[0-9a-f]{16})?)?\.parquet")


@dataclass(frozen=True)
class Opened:
    """Files of a known form."""

    source: Source
    form: Form
    rows: Iterator[Row]

    def image_root(self) -> Path:
        """Where images that rows name lie, if the user does not say it."""
        if self.form.rooted:
            return self.source.folder
        first = self.source.files[0]
        names = list(self.form.images)
        if self.form.kind == TSV:
            # Where VLMEvalKit unpacks images of large files, whose table then ends in "_local".
            names.insert(0, f"images/{first.stem.removesuffix('_local')}")
        beside = first.parent
        places = [folder / name for folder in (beside, self.source.folder) for name in names]
        return next((place for place in places if place.is_dir()), beside)


def open_source(layout: Layout, path: str, split: str | None) -> Opened:
    """Open the file or folder at `path`; "hub:OWNER/NAME[@REVISION]" is fetched first.

    Raises PeeralignError for a file that is missing (with where to get it), for a folder in which
    several could be meant, and for columns that no form has.
    """
    if path.startswith(PREFIX):
        given = fetched(layout, path, split)
    else:
        given = Path(path).expanduser()
    if not given.exists():
        raise PeeralignError(f"no {layout.title} at {path}; get it from {layout.places()}")
    by_name = False
    files = (given,)
    if given.is_dir():
        files, by_name = _files_in(given, layout, split)
    folder = given if given.is_dir() else given.parent
    columns, rows = open_table(_known_kind(files[0], layout))
    form = _form(layout, files[0], columns)
    source = Source(layout, folder, files, split, by_name)
    return Opened(source, form, form.rows(_all_rows(source, form, rows), source))


def _all_rows(source: Source, form: Form, first: Iterator[Row]) -> Iterator[Row]:
    for file in source.files:
        if file == source.files[0]:
            rows = first
        else:
            columns, rows = open_table(file)
            if lacking := [name for name in form.columns if name not in columns]:
                raise PeeralignError(
                    f"{file} has no column '{lacking[0]}', which {source.files[0]} has; "
                    "give files of one form"
                )
        name = file.relative_to(source.folder).as_posix()
        for row in rows:
            yield {**row, FILE: name}


def _known_kind(file: Path, layout: Layout) -> Path:
    suffixes = tuple(itertools.chain(*(SUFFIXES[form.kind] for form in layout.forms)))
    if file.suffix.lower() in suffixes:
        return file
    raise PeeralignError(
        f"{file} is of an unknown kind; {layout.title} is read from files that end in "
        f"{listed(dict.fromkeys(suffixes))}, or their folder"
    )


def _form(layout: Layout, file: Path, columns: list[str]) -> Form:
    candidates = [form for form in layout.forms if file.suffix.lower() in SUFFIXES[form.kind]]
    for form in candidates:
        if set(form.columns) <= set(columns):
            return form
    wanted = " or ".join(f"{', '.join(form.columns)} ({form.kind})" for form in candidates)
    raise PeeralignError(
        f"{file} is no {layout.title} as it is published: looked for the columns {wanted}, and "
        f"it has {listed(columns) or 'none'}; get it from {layout.places()}"
    )


def _files_in(folder: Path, layout: Layout, split: str | None) -> tuple[tuple[Path, ...], bool]:
    """The files in a folder, and whether they were chosen by the name of the split."""
    kinds = {form.kind for form in layout.forms}
    shards = sorted(folder.rglob("*.parquet")) if HUB in kinds else []
    if shards:
        return _shards(folder, shards, layout, split), True
    if TSV in kinds:
        tables = [folder / name for name in layout.tsv if (folder / name).is_file()]
        if len(tables) > 1:
            raise PeeralignError(
                f"{folder} holds {listed(table.name for table in tables)}; give one of these files"
            )
        if tables:
            return tuple(tables), False
    looked_for = []
    for form in layout.forms:
        found = [file for pattern in form.files for file in sorted(folder.glob(pattern))]
        if found:
            return tuple(dict.fromkeys(found)), False
        looked_for += form.files[:3]
    names = [*(("*.parquet",) if HUB in kinds else ()), *layout.tsv, *looked_for]
    raise PeeralignError(
        f"{folder} holds no {layout.title}: looked for {listed(names)}; "
        f"get it from {layout.places()}"
    )


def _shards(
    folder: Path, shards: list[Path], layout: Layout, split: str | None
) -> tuple[Path, ...]:
    by_split: dict[str, dict[str, list[Path]]] = {}
    for shard in shards:
        config, name = _config_and_split(shard.relative_to(folder))
        by_split.setdefault(name, {}).setdefault(config, []).append(shard)
    wanted = layout.split if split is None else split
    if wanted not in by_split and split is None and len(by_split) == 1:
        wanted = next(iter(by_split))
    if wanted not in by_split:
        raise PeeralignError(
            f"{folder} has no split '{wanted}', only {listed(by_split)}; "
            f"set split to one of these{nearest(wanted, by_split)}"
        )
    configs = by_split[wanted]
    if len(configs) > 1 and layout.configs:
        chosen = {name: configs[name] for name in layout.configs if name in configs}
        configs = chosen or configs
    if len(configs) > 1 and layout.configs != ():
        raise PeeralignError(
            f"{folder} has the split '{wanted}' of several configurations, "
            f"{listed(sorted(configs))}; give the folder of one"
        )
    return tuple(file for _, files in sorted(configs.items()) for file in files)


def _config_and_split(shard: Path) -> tuple[str, str]:
    """Of "CONFIG/validation-00000-of-00003.parquet", or of "CONFIG/validation/0000.parquet"."""
    folders = [part for part in shard.parts[:-1] if part != "data"]
    match = _SHARD.fullmatch(shard.name)
    name = match[1] if match else shard.stem
    if name.isdecimal() and folders:
        name = folders.pop()
    return "/".join(folders), name
