"""The ready recipes build, and differ from the defaults only where they say so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from peeralign.config import build, lay_over, read_toml
from peeralign.judging.rubric import load_rubric
from peeralign.recipes import critic_data, llava_critic, pop, seva, stic

RECIPES = Path(__file__).parents[2] / "recipes"
READY = sorted(RECIPES.glob("*.toml"))
SOURCES = sorted((RECIPES / "sources").glob("*.toml"))
FRAGMENTS = sorted((RECIPES / "fragments").glob("*.toml"))
# A panel has peers; the others learn from their own answers.
MODULES = {"pop": (pop, 2), "seva": (seva, 1), "stic": (stic, 1), "llava_critic": (llava_critic, 1)}


def _build(settings: dict[str, Any], path: Path) -> Any:
    module, _ = MODULES[settings.pop("recipe")]
    return build(module.Config, settings, path.name)


@pytest.mark.parametrize("path", READY, ids=lambda path: path.stem)
def test_it_builds(path: Path) -> None:
    _, fewest = MODULES[read_toml(path)["recipe"]]
    assert len(_build(read_toml(path), path).members) >= fewest


def test_there_are_some() -> None:
    assert {read_toml(path)["recipe"] for path in READY} == set(MODULES)
    assert [path.stem for path in FRAGMENTS] == ["fsdp2", "zero3"]
    assert [path.stem for path in SOURCES] == ["classroom", "llava-critic-7b"]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_sources_build(path: Path) -> None:
    config = build(critic_data.Config, read_toml(path), path.name)
    for source in config.sources:
        for name in filter(None, (source.pointwise, source.pairwise)):
            assert not load_rubric(name).needs_reference or source.answers


@pytest.mark.parametrize("fragment", FRAGMENTS, ids=lambda path: path.stem)
@pytest.mark.parametrize("path", READY, ids=lambda path: path.stem)
def test_a_fragment_changes_only_its_own_table(path: Path, fragment: Path) -> None:
    config = _build(lay_over(read_toml(path), read_toml(fragment)), path)
    assert config.train.sharding is not None
    assert config.train.sharding.kind == fragment.stem
    without = _build(read_toml(path), path)
    assert config.train.model_copy(update={"sharding": None}) == without.train


def test_the_papers_numbers_are_the_defaults() -> None:
    config = build(pop.Config, {"members": [], "pool": {"path": "x"}}, "defaults")
    assert config.rounds == 3
    assert config.questions_per_round == 1_000_000
    assert config.generate.num_draws == 15
    assert (config.curate.min_chosen_reward, config.curate.min_margin) == (0.85, 0.75)
    assert config.aggregate.method == "mean"
    assert config.train.objective == "simpo"
    assert (config.train.learning_rate, config.train.epochs) == (6e-5, 2)
    assert (config.train.weight_decay, config.train.warmup_share) == (0.0, 0.003)
    assert (config.train.batch_size, config.train.max_tokens) == (8, 2048)


def test_every_stabiliser_is_off_by_default() -> None:
    config = build(pop.Config, {"members": [], "pool": {"path": "x"}}, "defaults")
    assert config.curate.tie_tolerance == 0
    assert config.curate.anchor_share == 0
    assert config.train.nll_weight == 0
    assert config.train.replay_share == 0
    assert config.train.keep_pairs is False
    assert config.train.learning_rate_decay == 1
