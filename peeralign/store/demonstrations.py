"""Read instruction data: images with prompts and the responses to imitate."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from peeralign.errors import PeeralignError
from peeralign.records import DEMONSTRATION_SCHEMA, make_id


def read_demonstrations(path: str, one_exchange_a_row: bool = False) -> pl.DataFrame:
    """Read a Parquet or JSONL file as a table of DEMONSTRATION_SCHEMA.

    Two layouts: `image` with `exchanges` (a list of {prompt, response}, independent of each
    other), or flat rows of `image`, `prompt`, `response`. `image` is a {bytes, path} struct or a
    path, relative to the file's folder. Raises PeeralignError when the file cannot be used.
    """
    file = Path(path)
    if not file.is_file():
        raise PeeralignError(f"no instruction data at {path}: the file does not exist")
    try:
        if file.suffix == ".parquet":
            table = pl.read_parquet(file, hive_partitioning=False)
        else:
            table = pl.read_ndjson(file, infer_schema_length=None)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise PeeralignError(f"{path} is not readable instruction data: {error}") from error
    missing = {"image"} - set(table.columns)
    if "exchanges" not in table.columns:
        missing |= {"prompt", "response"} - set(table.columns)
    if missing:
        raise PeeralignError(
            f"{path} has no column '{sorted(missing)[0]}'; instruction data needs 'image' and "
            "either 'exchanges' or 'prompt' and 'response'"
        )
    if table.is_empty():
        raise PeeralignError(f"{path} holds no instruction data")
    if table["image"].null_count():
        raise PeeralignError(f"{path} has rows without an image")
    table = _with_ids(_with_image_structs(table, file.parent))
    if "exchanges" not in table.columns:
        exchange = pl.struct("prompt", "response")
        table = table.with_columns(pl.concat_list(exchange).alias("exchanges"))
    table = table.select(DEMONSTRATION_SCHEMA.names())
    try:
        table = table.cast(DEMONSTRATION_SCHEMA)
    except pl.exceptions.PolarsError as error:
        raise PeeralignError(
            f"{path} is not instruction data: 'image' must be a path or {{bytes, path}}, "
            "'exchanges' a list of {prompt, response}"
        ) from error
    taught = table["exchanges"].explode().struct.unnest()
    nothing = (table["exchanges"].list.len().fill_null(0) == 0).any()
    if nothing or taught["prompt"].null_count() or taught["response"].null_count():
        raise PeeralignError(f"{path} has rows without a prompt or without a response")
    if one_exchange_a_row:
        table = table.explode("exchanges").with_columns(pl.concat_list("exchanges"))
    return table


def _with_image_structs(table: pl.DataFrame, folder: Path) -> pl.DataFrame:
    if table.schema["image"] != pl.String:
        return table
    paths = [str((folder / path).resolve()) for path in table["image"]]
    image = pl.struct(
        pl.lit(None, pl.Binary).alias("bytes"), pl.Series("path", paths, dtype=pl.String)
    )
    return table.with_columns(image.alias("image"))


def _with_ids(table: pl.DataFrame) -> pl.DataFrame:
    if "id" in table.columns:
        return table.with_columns(pl.col("id").cast(pl.String))
    ids = [make_id("demonstration", index) for index in range(len(table))]
    return table.with_columns(pl.Series("id", ids, dtype=pl.String))
