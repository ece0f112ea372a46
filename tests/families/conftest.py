"""The checkpoints that the tests of this folder go through, one family after the other."""

from __future__ import annotations

from pathlib import Path

import pytest
from families.offered import FAMILIES, save_family


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint folder of an untrained model of this family."""
    return save_family(request.param, tmp_path_factory.mktemp("families") / request.param)
