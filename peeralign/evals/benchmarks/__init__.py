"""The benchmarks, one a file, by the name of the file."""

from __future__ import annotations

import importlib
import re

from peeralign.errors import PeeralignError, nearest
from peeralign.evals.benchmark import Benchmark

NAMES = (
    *("ai2d", "chair", "chartqa", "gqa", "hallusionbench", "llavabench", "mathvista", "mmbench"),
    *("mme", "mmhal", "mmmu", "mmstar", "mmvet", "ocrbench", "ocrvqa", "pope", "realworldqa"),
    *("scienceqa", "seedbench", "textvqa"),
)


def canonical(name: str) -> str:
    """The name in `NAMES`; case and punctuation do not matter ("MM-Vet" is mmvet)."""
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    if plain not in NAMES:
        raise PeeralignError(
            f"no benchmark named '{name}', there are {', '.join(NAMES)}{nearest(plain, NAMES)}"
        )
    return plain


def find(name: str) -> Benchmark:
    """The benchmark of a name (see `canonical`)."""
    return importlib.import_module(f"peeralign.evals.benchmarks.{canonical(name)}").BENCHMARK
