"""Base training: it learns, trains only the parts it should, and resumes exactly."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from safetensors.torch import load_file

from peeralign.classroom.lessons import lessons
from peeralign.config import build
from peeralign.errors import PeeralignError
from peeralign.progress import Reporter
from peeralign.recipes.sft import ALIGN, CRITIC, SFT, SftConfig, train_on_demonstrations
from peeralign.training.parts import part_of


@pytest.fixture(scope="module")
def captions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lessons") / "captions.parquet"
    lessons(3, 24, num_questions=0, num_verdicts=0).write_parquet(path)
    return path


def _changed_parts(before: Path, after: Path) -> set[str]:
    old, new = load_file(before / "model.safetensors"), load_file(after / "model.safetensors")
    assert old.keys() == new.keys()
    return {part_of(name) for name in old if not old[name].equal(new[name])}


def test_align_trains_the_projector_alone(
    peer_folder: Path, captions: Path, tmp_path: Path
) -> None:
    config = build(SftConfig, ALIGN, "align")
    final = train_on_demonstrations(
        str(peer_folder), str(captions), tmp_path / "out", config, Reporter()
    )
    assert _changed_parts(peer_folder, final) == {"projector"}


def test_sft_trains_projector_and_language_model(
    peer_folder: Path, captions: Path, tmp_path: Path
) -> None:
    config = build(SftConfig, SFT, "sft")
    final = train_on_demonstrations(
        str(peer_folder), str(captions), tmp_path / "out", config, Reporter()
    )
    assert _changed_parts(peer_folder, final) == {"projector", "language"}


def test_flat_rows_and_grouped_exchanges_train_alike(
    peer_folder: Path, captions: Path, tmp_path: Path
) -> None:
    grouped = pl.read_parquet(captions)
    flat = tmp_path / "flat.parquet"
    grouped.explode("exchanges").unnest("exchanges").write_parquet(flat)
    config = build(SftConfig, SFT, "sft")
    weights = [
        (
            train_on_demonstrations(
                str(peer_folder), str(data), tmp_path / f"out-{number}", config, Reporter()
            )
            / "model.safetensors"
        ).read_bytes()
        for number, data in enumerate((captions, flat))
    ]
    assert weights[0] == weights[1]


def test_critics_learn_whole_and_replay_is_mixed_in(
    peer_folder: Path, captions: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.parquet"
    lessons(4, 24, num_questions=1, num_verdicts=0, caption=False).write_parquet(other)
    weights = []
    for name, replay in (("alone", {}), ("mixed", {"replay": str(other), "replay_share": 0.5})):
        config = build(SftConfig, {**CRITIC, **replay, "batch_size": 8}, "critic")
        final = train_on_demonstrations(
            str(peer_folder), str(captions), tmp_path / name, config, Reporter()
        )
        assert _changed_parts(peer_folder, final) == {"vision", "projector", "language"}
        weights.append((final / "model.safetensors").read_bytes())
    assert weights[0] != weights[1]


def test_replay_needs_data_and_a_share(tmp_path: Path) -> None:
    for given in ({"replay_share": 0.5}, {"replay": "x.parquet"}):
        with pytest.raises(PeeralignError, match="give both replay and replay_share, or neither"):
            build(SftConfig, {**SFT, **given}, "sft")


def test_settings_of_preference_training_are_refused(
    peer_folder: Path, captions: Path, tmp_path: Path
) -> None:
    config = build(SftConfig, {**SFT, "nll_weight": 0.5}, "sft")
    with pytest.raises(PeeralignError, match="supervised training has no objective"):
        train_on_demonstrations(
            str(peer_folder), str(captions), tmp_path / "out", config, Reporter()
        )
