"""LoRA folders for vLLM, each content under a name, path and number of its own.

vLLM keeps computed prefixes by an adapter's name and path, and loaded adapters by its number. Where
a folder is written again in the next round, the old adapter's results would be used in silence
(vllm-project/vllm#42125), so a copy is given out in a folder named by a digest of the content.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peeralign.errors import PeeralignError

FILES = ("adapter_config.json", "adapter_model.safetensors")
# What vLLM reserves room for; an adapter between two of them takes the larger one.
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
# Parts of a model before its language model, as transformers and peft name them in weights.
BEFORE_LANGUAGE = (
    "vision_tower",
    "vision_model",
    "vision_encoder",
    "visual",
    "multi_modal_projector",
    "mm_projector",
    "connector",
    "merger",
)


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA whose content will not change. `folder` is our copy."""

    digest: str
    folder: Path
    max_lora_rank: int

    def request(self) -> dict[str, Any]:
        """Name, number and path of vLLM's LoRARequest."""
        # Positive and below 2^31, as the number ends up in 32-bit tensors.
        number = int(self.digest[:8], 16) % (2**31 - 1) + 1
        return {"name": f"peeralign-{self.digest}", "id": number, "path": str(self.folder)}


def keep_adapter(source: str) -> Adapter:
    """Copy a LoRA folder under its digest. Raises PeeralignError for what vLLM would not run."""
    folder = Path(source)
    for name in FILES:
        if not (folder / name).is_file():
            raise PeeralignError(
                f"the adapter {source} has no {name}; give the folder of a LoRA that peft saved "
                "as safetensors"
            )
    rank = _rank(folder)
    _check_weights(folder)
    # Copied first and hashed afterwards, so the digest is that of the bytes vLLM will read.
    parent = _copies_folder()
    fresh = Path(tempfile.mkdtemp(dir=parent))
    digest = hashlib.sha256()
    for name in FILES:
        shutil.copyfile(folder / name, fresh / name)
        with (fresh / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    named = parent / digest.hexdigest()[:32]
    if named.is_dir():
        shutil.rmtree(fresh)
    else:
        fresh.rename(named)
    return Adapter(named.name, named, rank)


def _rank(folder: Path) -> int:
    try:
        config = json.loads((folder / FILES[0]).read_text(encoding="utf-8"))
        needed = max([config["r"], *(config.get("rank_pattern") or {}).values()])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PeeralignError(
            f"the adapter {folder} has no readable LoRA rank in {FILES[0]}; save it with peft"
        ) from error
    fitting = [rank for rank in RANKS if rank >= needed]
    if not fitting:
        raise PeeralignError(
            f"the adapter {folder} has rank {needed}, and vLLM takes at most {RANKS[-1]}; merge it "
            "into its model"
        )
    return fitting[0]


def _check_weights(folder: Path) -> None:
    """Refuse what vLLM would leave out: it puts a LoRA on the language model alone, silently."""
    with (folder / FILES[1]).open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(min(length, 100_000_000)))
        except ValueError as error:
            raise PeeralignError(
                f"the adapter {folder} holds no readable {FILES[1]}; copy it again"
            ) from error
    for name in header:
        part = next((part for part in BEFORE_LANGUAGE if part in name.split(".")), None)
        if part is not None:
            raise PeeralignError(
                f"the adapter {folder} also changes {part}, which vLLM would leave out; merge it "
                "into its model, or train it on the language model alone"
            )


_COPIES: list[Path] = []


def _copies_folder() -> Path:
    """Where this process keeps its copies until it ends."""
    if not _COPIES:
        _COPIES.append(Path(tempfile.mkdtemp(prefix="peeralign-adapters-")))
        atexit.register(shutil.rmtree, _COPIES[0], ignore_errors=True)
    return _COPIES[0]
