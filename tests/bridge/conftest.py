"""These tests run where lmms-eval is installed: `make bridge-test` makes such an environment."""

from __future__ import annotations

import importlib.util
import os

import pytest

if importlib.util.find_spec("lmms_eval") is None:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What `datasets` makes of the tests' files goes with them."""
    os.environ["LMMS_EVAL_DATASETS_CACHE"] = str(tmp_path_factory.mktemp("datasets"))
