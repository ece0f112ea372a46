"""The one exception a user's own mistake raises. The command line prints it and exits with 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PeeralignError(Exception):
    """What happened, where, and what to do, in one sentence."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest of `known`, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""
