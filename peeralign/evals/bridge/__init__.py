"""A member as a model of lmms-eval, in a process and an environment of its own (docs/bridge.md).

Nothing here imports lmms-eval before it is asked to: peeralign does not need it.
"""

from __future__ import annotations

from typing import Any


def manifest() -> Any:
    """What lmms-eval's registry is told of us, as the entry point of `lmms_eval.models`."""
    from lmms_eval.models.registry_v2 import ModelManifest  # pyright: ignore[reportMissingImports]

    return ModelManifest("peeralign", "peeralign.evals.bridge.model.MemberModel")
