"""How the files of each benchmark are published, one benchmark a file, by the name of the file.

The names are those of `evals/benchmarks`. A benchmark without a file here is scored from
predictions only.
"""

from __future__ import annotations

import importlib
import re

from peeralign.errors import PeeralignError, nearest
from peeralign.evals.layouts.layout import Layout

NAMES = (
    *("ai2d", "chartqa", "gqa", "hallusionbench", "llavabench", "mathvista", "mmbench", "mme"),
    *("mmhal", "mmmu", "mmstar", "mmvet", "ocrbench", "ocrvqa", "pope", "realworldqa"),
    *("scienceqa", "seedbench", "textvqa"),
)


def find(name: str) -> Layout:
    """The layout of a name, whose case and punctuation do not matter ("MM-Vet" is mmvet)."""
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    if plain not in NAMES:
        raise PeeralignError(
            f"no files of '{name}' can be read, only those of {', '.join(NAMES)}"
            f"{nearest(plain, NAMES)}"
        )
    return importlib.import_module(f"peeralign.evals.layouts.{plain}").LAYOUT
