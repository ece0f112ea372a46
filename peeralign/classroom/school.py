"""Build the classroom's peers from nothing: the papers' base recipe, at the classroom's size."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from peeralign.classroom.lessons import LESSON_SEED, lessons
from peeralign.classroom.peers import PEERS, build_model, build_processor, save_peer
from peeralign.errors import PeeralignError, nearest
from peeralign.progress import Reporter
from peeralign.recipes.sft import SftConfig, train_on_demonstrations
from peeralign.store.run import write_table

NUM_CAPTION_IMAGES = 12_800
NUM_INSTRUCTION_IMAGES = 12_800

# A random vision tower and language model have nothing to align, so unlike LLaVA's stage I
# everything learns from the start.
_ALL = ("vision", "projector", "language")
STAGE_I = SftConfig(
    learning_rate=1e-3,
    epochs=1,
    batch_size=64,
    scheduler="constant_with_warmup",
    warmup_share=0.2,
    adam_beta2=0.98,
    train_parts=list(_ALL),
)
STAGE_II = SftConfig(
    learning_rate=1e-3,
    epochs=3,
    batch_size=32,
    warmup_share=0.03,
    adam_beta2=0.98,
    train_parts=list(_ALL),
)


def build_peers(out: Path, names: list[str], reporter: Reporter) -> None:
    """Write OUT/NAME/ for each named peer (all by default): float16 checkpoints.

    Same seeds, same weights on the same machine and versions; an interrupted build goes on.
    Raises PeeralignError for an unknown name.
    """
    for name in names or list(PEERS):
        if name not in PEERS:
            raise PeeralignError(
                f"no classroom peer named '{name}', there are {', '.join(PEERS)}"
                f"{nearest(name, PEERS)}"
            )
        start = time.perf_counter()
        _build_peer(out, name, reporter)
        reporter.say(f"{name}: {out / name} ({(time.perf_counter() - start) / 60:.1f} minutes)")


def _build_peer(out: Path, name: str, reporter: Reporter) -> None:
    from transformers import AutoModelForImageTextToText

    if (out / name / "config.json").is_file():
        return
    architecture, weak = PEERS[name]
    work = out / f".{name}"
    captions, instructions = work / "captions.parquet", work / "instructions.parquet"
    if not captions.is_file():
        table = lessons(LESSON_SEED, NUM_CAPTION_IMAGES, num_questions=0, num_verdicts=0)
        write_table(captions, table)
    if not instructions.is_file():
        write_table(instructions, lessons(LESSON_SEED, NUM_INSTRUCTION_IMAGES, weak))
    processor = build_processor()
    if not (work / "untrained" / "config.json").is_file():
        model = build_model(architecture, processor, seed=sorted(PEERS).index(name))
        save_peer(model, processor, work / "untrained")
    first = train_on_demonstrations(
        str(work / "untrained"),
        str(captions),
        work / "stage-1",
        STAGE_I,
        reporter,
        f"{name}: captions",
    )
    second = train_on_demonstrations(
        str(first), str(instructions), work / "stage-2", STAGE_II, reporter, f"{name}: instructions"
    )
    trained = AutoModelForImageTextToText.from_pretrained(second)
    save_peer(trained.half(), processor, out / name)
    shutil.rmtree(work)
