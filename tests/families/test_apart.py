"""The families that need torchvision, in a process of their own.

torchvision never enters the default environment (its wheel is built against a CUDA torch), so
`make setup` puts it into a folder that only this process gets to see.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
APART = ROOT / ".venv" / "apart" / "torchvision"
FAMILIES = [
    "llava-onevision",
    "qwen2.5-vl",
    "qwen3-vl",
    "internvl",
    "smolvlm",
    "pixtral",
    "mistral3",
]


@pytest.mark.skipif(
    "PEERALIGN_TEST_TORCHVISION" in os.environ, reason="this is the process that is started here"
)
@pytest.mark.parametrize(
    ("tests", "named"),
    [
        ("families/test_families.py", FAMILIES),
        pytest.param("engines/test_hostile.py", FAMILIES, marks=pytest.mark.slow),
        pytest.param("engines/test_noise.py", FAMILIES, marks=pytest.mark.slow),
        ("families/test_dry_run.py", ["qwen2.5-vl-7b"]),
    ],
)
def test_families_that_need_torchvision(tests: str, named: list[str]) -> None:
    assert (APART / "torchvision").is_dir(), f"no torchvision in {APART}; run `make setup`"
    path = os.pathsep.join([str(APART), *filter(None, [os.environ.get("PYTHONPATH")])])
    # No cache: the process that runs this test writes it too.
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", ROOT / "tests" / tests],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path, "PEERALIGN_TEST_TORCHVISION": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    missing = [family for family in named if f"[{family}]" not in done.stdout]
    assert not missing, f"not run: {', '.join(missing)}"
