"""One self-contained HTML page about a run: `write_report(run_folder)`."""

from __future__ import annotations

from pathlib import Path

__all__ = ["write_report"]


def write_report(run_folder: Path) -> Path:
    """Write `run_folder`/report.html from what the run holds so far, and return its path.

    Raises PeeralignError if there is no run at `run_folder` or a table of it cannot be read.
    """
    # Matplotlib and SciPy take a second to import, which only a report should cost.
    from peeralign.report import build

    return build.write_report(run_folder)
