"""The classroom's skills: what can be asked of a scene, with the exact answer.

Nine skills in the five groups of the paper's benchmark table (Panel of Peers, Table A.2). A skill
draws a scene in which its question has one answer, and answers are single words, so that an
answer is right or wrong and never half right.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from peeralign.classroom.world import (
    COLOURS,
    GRID,
    NUM_CELLS,
    SHAPES,
    Scene,
    chart_scene,
    object_scene,
)

DESCRIBE = "describe the image."
MAX_COUNT = 4
MAX_ADDEND = 5


@dataclass(frozen=True, slots=True)
class Item:
    """A question about a scene and its exact answer. Only exams and base training see it."""

    skill: str
    question: str
    answer: str


def _unique(values: list[str]) -> list[str]:
    return [value for value in values if values.count(value) == 1]


def _pick(rng: np.random.Generator, values: list[str] | tuple[str, ...]) -> str:
    return values[int(rng.integers(len(values)))]


def _article(thing: str) -> str:
    return f"{'an' if thing.startswith('orange') else 'a'} {thing}"


def _plural(shape: str) -> str:
    return f"{shape}es" if shape.endswith("s") else f"{shape}s"


def ask_colour(scene: Scene, rng: np.random.Generator) -> Item | None:
    shapes = _unique([str(cell.shape) for _, cell in scene.objects])
    if not shapes:
        return None
    shape = _pick(rng, shapes)
    colour = next(str(cell.colour) for _, cell in scene.objects if cell.shape == shape)
    return Item("colour", f"what colour is the {shape}?", colour)


def ask_shape(scene: Scene, rng: np.random.Generator) -> Item | None:
    colours = _unique([str(cell.colour) for _, cell in scene.objects])
    if not colours:
        return None
    colour = _pick(rng, colours)
    shape = next(str(cell.shape) for _, cell in scene.objects if cell.colour == colour)
    return Item("shape", f"what shape is {colour}?", shape)


def ask_read(scene: Scene, rng: np.random.Generator) -> Item | None:
    if len(scene.digits) != 1:
        return None
    return Item("read", "what is the digit?", str(scene.digits[0]))


def ask_arithmetic(scene: Scene, rng: np.random.Generator) -> Item | None:
    if len(scene.digits) != 2 or max(scene.digits) > MAX_ADDEND:
        return None
    return Item("arithmetic", "what is the sum of the digits?", str(sum(scene.digits)))


def ask_compare(scene: Scene, rng: np.random.Generator) -> Item | None:
    if len(scene.digits) != 2 or scene.digits[0] == scene.digits[1]:
        return None
    return Item("compare", "which digit is larger?", str(max(scene.digits)))


def ask_chart(scene: Scene, rng: np.random.Generator) -> Item | None:
    if not scene.bars:
        return None
    if rng.random() < 0.3:
        tallest = max(scene.bars, key=lambda bar: bar[1])
        return Item("chart", "which bar is tallest?", tallest[0])
    colour, height = scene.bars[int(rng.integers(GRID))]
    return Item("chart", f"how tall is the {colour} bar?", str(height))


def ask_presence(scene: Scene, rng: np.random.Generator) -> Item | None:
    """Half of the things asked for are not there: near misses of what is (POPE's adversarial)."""
    if not scene.objects:
        return None
    there = {f"{cell.colour} {cell.shape}" for _, cell in scene.objects}
    if rng.random() < 0.5:
        return Item("presence", f"is there {_article(_pick(rng, sorted(there)))}?", "yes")
    near = [
        f"{colour} {shape}"
        for colour in COLOURS
        for shape in SHAPES
        if any((colour in thing) != (shape in thing) for thing in there)
    ]
    absent = [thing for thing in near if thing not in there]
    return Item("presence", f"is there {_article(_pick(rng, absent))}?", "no")


def ask_relation(scene: Scene, rng: np.random.Generator) -> Item | None:
    shapes = _unique([str(cell.shape) for _, cell in scene.objects])
    place = {str(cell.shape): i for i, cell in scene.objects if cell.shape in shapes}
    pairs = [
        (a, b)
        for a in shapes
        for b in shapes
        if a != b and (place[a] % GRID == place[b] % GRID or place[a] // GRID == place[b] // GRID)
    ]
    if not pairs:
        return None
    a, b = pairs[int(rng.integers(len(pairs)))]
    same_row = place[a] // GRID == place[b] // GRID
    before = place[a] < place[b]
    answer = ("left" if before else "right") if same_row else ("above" if before else "below")
    return Item("relation", f"where is the {a} from the {b}?", answer)


def ask_place(scene: Scene, rng: np.random.Generator) -> Item | None:
    shapes = _unique([str(cell.shape) for _, cell in scene.objects])
    if not shapes:
        return None
    shape = _pick(rng, shapes)
    place = next(i for i, cell in scene.objects if cell.shape == shape)
    return Item("place", f"which cell is the {shape} in?", str(place + 1))


def ask_count(scene: Scene, rng: np.random.Generator) -> Item | None:
    if not scene.cells:
        return None
    shown = sorted({str(cell.shape) for _, cell in scene.objects})
    shape = _pick(rng, [*shown, *shown, _pick(rng, SHAPES)])
    number = sum(cell.shape == shape for _, cell in scene.objects)
    if number > MAX_COUNT:
        return None
    return Item("count", f"how many {_plural(shape)}?", str(number))


@dataclass(frozen=True, slots=True)
class Skill:
    """A question maker, the paper's category it belongs to, and all answers it can have."""

    ask: Callable[[Scene, np.random.Generator], Item | None]
    category: str
    answers: tuple[str, ...]


SKILLS: dict[str, Skill] = {
    "colour": Skill(ask_colour, "General", tuple(COLOURS)),
    "shape": Skill(ask_shape, "General", SHAPES),
    "arithmetic": Skill(
        ask_arithmetic, "Knowledge", tuple(str(n) for n in range(2 * MAX_ADDEND + 1))
    ),
    "compare": Skill(ask_compare, "Knowledge", tuple(str(n) for n in range(1, MAX_ADDEND + 1))),
    "read": Skill(ask_read, "Chart & OCR", tuple(str(n) for n in range(10))),
    "chart": Skill(ask_chart, "Chart & OCR", (*"123456", *COLOURS)),
    "presence": Skill(ask_presence, "Hallucination", ("yes", "no")),
    "relation": Skill(ask_relation, "Vision-centric", ("left", "right", "above", "below")),
    "count": Skill(ask_count, "Vision-centric", tuple(str(n) for n in range(MAX_COUNT + 1))),
}

# An exercise of base training alone: finding a thing comes before relating two.
EXERCISES: dict[str, Skill] = {
    "place": Skill(ask_place, "Exercise", tuple(str(n) for n in range(1, NUM_CELLS + 1))),
}


def draw_scene(rng: np.random.Generator, skill: str | None = None) -> Scene:
    """A random scene, of the kind that suits `skill` when one is named."""
    if skill == "chart" or (skill is None and rng.random() < 0.2):
        return chart_scene(rng)
    if skill in ("arithmetic", "compare") or (skill is None and rng.random() < 0.3):
        digits = tuple(int(d) for d in rng.integers(0, MAX_ADDEND + 1, size=2))
    elif skill == "read" or rng.random() < 0.5:
        digits = (int(rng.integers(10)),)
    else:
        digits = ()
    few, many = {"count": (3, 6), "relation": (2, 3)}.get(str(skill), (2, 5))
    return object_scene(rng, int(rng.integers(few, many + 1)), digits)


def draw_item(rng: np.random.Generator, skill: str) -> tuple[Scene, Item]:
    """Draw scenes until `skill` has a question about one."""
    while True:
        scene = draw_scene(rng, skill)
        if item := SKILLS[skill].ask(scene, rng):
            return scene, item
