"""peeralign: improve vision-language models without labels, by a panel of their peers.

The names below follow the pipeline. Heavy imports (torch, transformers) happen on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from peeralign.errors import PeeralignError
from peeralign.panel import Member, Panel
from peeralign.progress import Reporter
from peeralign.records import (
    Candidate,
    Comparison,
    Demonstration,
    Judgment,
    PreferencePair,
    Question,
    Reward,
)

if TYPE_CHECKING:
    from peeralign import recipes
    from peeralign.evals.exam import sit_exam
    from peeralign.images.augment import parse_view
    from peeralign.report import write_report
    from peeralign.stages.aggregate import aggregate
    from peeralign.stages.compare import compare
    from peeralign.stages.contrast import contrast
    from peeralign.stages.curate import curate
    from peeralign.stages.generate import generate
    from peeralign.stages.judge import judge
    from peeralign.stages.train import train_member
    from peeralign.store.questions import draw_questions, read_pool

__version__ = "0.1.0"

_LAZY = {
    "read_pool": "peeralign.store.questions",
    "draw_questions": "peeralign.store.questions",
    "parse_view": "peeralign.images.augment",
    "generate": "peeralign.stages.generate",
    "judge": "peeralign.stages.judge",
    "compare": "peeralign.stages.compare",
    "aggregate": "peeralign.stages.aggregate",
    "curate": "peeralign.stages.curate",
    "contrast": "peeralign.stages.contrast",
    "train_member": "peeralign.stages.train",
    "sit_exam": "peeralign.evals.exam",
    "write_report": "peeralign.report",
}

__all__ = [
    "Candidate",
    "Comparison",
    "Demonstration",
    "Judgment",
    "Member",
    "Panel",
    "PeeralignError",
    "PreferencePair",
    "Question",
    "Reporter",
    "Reward",
    "aggregate",
    "compare",
    "contrast",
    "curate",
    "draw_questions",
    "generate",
    "judge",
    "parse_view",
    "read_pool",
    "recipes",
    "sit_exam",
    "train_member",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        value = getattr(importlib.import_module(_LAZY[name]), name)
        globals()[name] = value
        return value
    if name == "recipes":
        return importlib.import_module("peeralign.recipes")
    raise AttributeError(f"module 'peeralign' has no attribute '{name}'")
