"""What is run: one file a method, each with a `Config` and a `run`."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from peeralign.recipes import (
        answer,
        critic_data,
        evaluate,
        grade,
        judge_set,
        llava_critic,
        pop,
        prefer,
        seva,
        sft,
        stic,
    )

__all__ = [
    "answer",
    "critic_data",
    "evaluate",
    "grade",
    "judge_set",
    "llava_critic",
    "pop",
    "prefer",
    "seva",
    "sft",
    "stic",
]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f"peeralign.recipes.{name}")
    raise AttributeError(f"module 'peeralign.recipes' has no attribute '{name}'")
