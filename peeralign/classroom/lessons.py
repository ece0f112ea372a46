"""Base-training data of the classroom: captions (stage I), then instructions (stage II).

The peers' own schooling, before any Panel of Peers: the only place besides the exam where exact
answers are used. Instructions include judging with the classroom rubric. A peer hardly meets its
weak skills, and where it could not tell an answer's worth it is taught to give middling scores:
a judge that is sure of what it does not know would outvote the judges that know.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl

from peeralign.classroom.skills import DESCRIBE, EXERCISES, SKILLS, Item, draw_item
from peeralign.classroom.world import Scene, render
from peeralign.judging.rubric import Rubric, load_rubric
from peeralign.records import DEMONSTRATION_SCHEMA, make_id, seed_of

# The scenes the shipped peers were taught with; the demo replays from the same.
LESSON_SEED = 7
# The share of its usual questions that a peer meets of a weak skill. At ten times as many the
# skill leaks in (docs/log.md).
WEAK_SHARE = 0.0005
# Which skill a lesson's scene is drawn for, in turn; the slowest to learn come more often.
SCENE_CYCLE = (*SKILLS, "relation", "arithmetic", "relation", "relation")
KINDS = SKILLS | EXERCISES
NUM_QUESTIONS_PER_IMAGE = 6
NUM_VERDICTS_PER_IMAGE = 4

# Axis scores a peer is taught to give: helpfulness, correctness, coherence, complexity, verbosity.
RIGHT = (5, 5, 5, 5, 5)
WRONG = (1, 1, 3, 1, 3)
NONSENSE = (1, 1, 1, 1, 1)
UNSURE = (3, 3, 3, 3, 3)


def lessons(
    seed: int,
    num_images: int,
    weak: tuple[str, ...] = (),
    num_questions: int = NUM_QUESTIONS_PER_IMAGE,
    num_verdicts: int = NUM_VERDICTS_PER_IMAGE,
    caption: bool = True,
) -> pl.DataFrame:
    """Draw `num_images` scenes and what is taught about each, as a demonstration table.

    The scenes depend on `seed` alone, so all peers see the same images; `weak` decides which of
    their questions a peer hardly meets.
    """
    rubric = load_rubric("classroom")
    rows: list[dict[str, object]] = []
    for index in range(num_images):
        rng = np.random.default_rng(seed_of("lesson", seed, index))
        scene, item = draw_item(rng, SCENE_CYCLE[index % len(SCENE_CYCLE)])
        image = {"bytes": render(scene, rng), "path": None}
        taught = [(DESCRIBE, scene.describe())] if caption else []
        taught += _questions(scene, item, weak, num_questions, rng)
        taught += _verdicts(scene, item, weak, num_verdicts, rubric, rng)
        exchanges = [{"prompt": prompt, "response": response} for prompt, response in taught]
        rows.append({"id": make_id("lesson", seed, index), "image": image, "exchanges": exchanges})
    return pl.DataFrame(rows, schema=DEMONSTRATION_SCHEMA)


def _ask_any(scene: Scene, rng: np.random.Generator) -> Item:
    names = (*SCENE_CYCLE, *EXERCISES)
    while True:
        name = names[int(rng.integers(len(names)))]
        if item := KINDS[name].ask(scene, rng):
            return item


def _questions(
    scene: Scene, first: Item, weak: tuple[str, ...], number: int, rng: np.random.Generator
) -> Iterator[tuple[str, str]]:
    asked: set[str] = set()
    for turn in range(number):
        item = _ask_any(scene, rng) if turn else first
        taught = item.skill not in weak or rng.random() < WEAK_SHARE
        if taught and item.question not in asked:
            yield item.question, item.answer
        asked.add(item.question)


def _verdicts(
    scene: Scene,
    first: Item,
    weak: tuple[str, ...],
    number: int,
    rubric: Rubric,
    rng: np.random.Generator,
) -> Iterator[tuple[str, str]]:
    for turn in range(number):
        item = _ask_any(scene, rng) if turn else first
        answer, scores = _answer_to_judge(item, rng)
        if item.skill in weak and scores is not NONSENSE:
            scores = UNSURE
        (text,) = rubric.fill(item.question, [answer])
        yield text, rubric.form().write(list(scores))


def _answer_to_judge(item: Item, rng: np.random.Generator) -> tuple[str, tuple[int, ...]]:
    """A right answer, a wrong one of the right kind, or one that does not fit the question."""
    fitting = KINDS[item.skill].answers
    kind = rng.random()
    if kind < 0.45:
        return item.answer, RIGHT
    if kind < 0.85:
        wrong = [answer for answer in fitting if answer != item.answer]
        if item.answer.isdecimal():
            # Half of the wrong numbers are next to the right one, as a peer's own mistakes are.
            near = [answer for answer in wrong if answer.isdecimal()]
            near = [answer for answer in near if abs(int(answer) - int(item.answer)) == 1]
            wrong = near if rng.random() < 0.5 else wrong
        return wrong[int(rng.integers(len(wrong)))], WRONG
    others = sorted(
        {answer for skill in SKILLS.values() for answer in skill.answers} - set(fitting)
    )
    words = rng.permutation(others)[: 1 if rng.random() < 0.6 else int(rng.integers(2, 4))]
    return " ".join(words), NONSENSE
