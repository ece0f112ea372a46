"""Fetches a data set of the hub, when the user asks for that with "hub:OWNER/NAME"."""

from __future__ import annotations

from pathlib import Path

from peeralign.errors import PeeralignError
from peeralign.evals.layouts.layout import Layout

PREFIX = "hub:"


def fetched(layout: Layout, path: str, split: str | None) -> Path:
    """The local folder of a data set; what is there already is not fetched again.

    Only Parquet shards of the split are fetched, with those of configurations and the original
    files that the layout needs. Raises PeeralignError if the hub cannot be reached or does not
    have it.
    """
    from huggingface_hub import snapshot_download

    name, _, revision = path.removeprefix(PREFIX).strip().partition("@")
    if name.count("/") != 1:
        raise PeeralignError(f"'{path}' names no data set; write hub:OWNER/NAME or ...@REVISION")
    try:
        folder = snapshot_download(
            name,
            repo_type="dataset",
            revision=revision or None,
            allow_patterns=patterns(layout, layout.split if split is None else split),
        )
    except Exception as error:  # the network's errors are those of the client's own libraries
        why = " ".join(str(error).split("\n")[0].split()) or type(error).__name__
        raise PeeralignError(
            f"{name} cannot be fetched from the hub ({why}); give the path of local files instead, "
            f"from {layout.places()}"
        ) from error
    return Path(folder)


def patterns(layout: Layout, split: str) -> list[str]:
    """Names of the shards of a split, in the hub's patterns, where * crosses folders."""
    shards = [f"{split}-*.parquet", f"{split}/*.parquet", f"{split}.parquet"]
    if layout.configs:
        configs = (*layout.configs, *layout.more_configs)
        return [f"{config}/{shard}" for config in configs for shard in shards]
    return [*shards, *(f"*/{shard}" for shard in shards), *layout.hub_files]
