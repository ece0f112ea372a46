"""The classroom's questions: every answer worked out again from the scene, and from the picture."""

from __future__ import annotations

import io
import re
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from peeralign.classroom.skills import EXERCISES, SKILLS, Item, draw_item, draw_scene
from peeralign.classroom.world import COLOURS, NUM_TRAINING_HANDS, SHAPES, Cell, Scene, render
from peeralign.records import seed_of

NUM_DRAWS = 150
SINGULAR = {"circles": "circle", "squares": "square", "triangles": "triangle", "crosses": "cross"}


def drawn(skill: str, number: int = NUM_DRAWS) -> list[tuple[Scene, Item]]:
    return [draw_item(np.random.default_rng([7, place]), skill) for place in range(number)]


def places(scene: Scene, want: Callable[[Cell], bool]) -> list[tuple[int, int]]:
    """(row, column) of the cells that are wanted."""
    return [divmod(place, 3) for place, cell in enumerate(scene.cells) if want(cell)]


def only(scene: Scene, shape: str) -> tuple[int, int]:
    found = places(scene, lambda cell: cell.shape == shape)
    assert len(found) == 1, f"{shape} is not unique"
    return found[0]


def work_out(scene: Scene, question: str) -> str:
    """The answer to a classroom question, without the code that made the question."""
    if found := re.fullmatch(r"what colour is the (\w+)\?", question):
        row, column = only(scene, found[1])
        return str(scene.cells[3 * row + column].colour)
    if found := re.fullmatch(r"what shape is (\w+)\?", question):
        ((row, column),) = places(scene, lambda cell: cell.colour == found[1])
        return str(scene.cells[3 * row + column].shape)
    if question == "what is the digit?":
        (digit,) = [cell.digit for cell in scene.cells if cell.digit is not None]
        return str(digit)
    if question == "what is the sum of the digits?":
        one, two = [cell.digit for cell in scene.cells if cell.digit is not None]
        return str(one + two)
    if question == "which digit is larger?":
        one, two = [cell.digit for cell in scene.cells if cell.digit is not None]
        assert one != two
        return str(one if one > two else two)
    if found := re.fullmatch(r"how tall is the (\w+) bar\?", question):
        (height,) = [height for colour, height in scene.bars if colour == found[1]]
        return str(height)
    if question == "which bar is tallest?":
        order = sorted(scene.bars, key=lambda bar: bar[1])
        assert order[-1][1] > order[-2][1]
        return order[-1][0]
    if found := re.fullmatch(r"is there (an?) (\w+) (\w+)\?", question):
        article, colour, shape = found.groups()
        assert (article == "an") == (colour[0] in "aeiou")
        there = places(scene, lambda cell: (cell.colour, cell.shape) == (colour, shape))
        return "yes" if there else "no"
    if found := re.fullmatch(r"where is the (\w+) from the (\w+)\?", question):
        (row, column), (other_row, other_column) = only(scene, found[1]), only(scene, found[2])
        if row == other_row:
            return "left" if column < other_column else "right"
        assert column == other_column
        return "above" if row < other_row else "below"
    if found := re.fullmatch(r"how many (\w+)\?", question):
        return str(len(places(scene, lambda cell: cell.shape == SINGULAR[found[1]])))
    if found := re.fullmatch(r"which cell is the (\w+) in\?", question):
        row, column = only(scene, found[1])
        return str(3 * row + column + 1)
    raise AssertionError(f"unknown question: {question}")


@pytest.mark.parametrize("skill", SKILLS)
def test_every_answer_is_right(skill: str) -> None:
    for scene, item in drawn(skill):
        assert item.skill == skill
        assert item.answer == work_out(scene, item.question), (scene, item)
        assert item.answer in SKILLS[skill].answers


@pytest.mark.parametrize("skill", [*SKILLS, *EXERCISES])
def test_what_is_asked_of_any_scene_is_right(skill: str) -> None:
    """As lessons ask: of scenes that were drawn for something else."""
    asked = 0
    for place in range(400):
        rng = np.random.default_rng([11, place])
        scene = draw_scene(rng)
        kind = (SKILLS | EXERCISES)[skill]
        if item := kind.ask(scene, rng):
            asked += 1
            assert item.answer == work_out(scene, item.question), (scene, item)
            assert item.answer in kind.answers
    assert asked > 20


@pytest.mark.parametrize("skill", SKILLS)
def test_answers_are_single_words_that_all_occur(skill: str) -> None:
    answers = SKILLS[skill].answers
    assert len(set(answers)) == len(answers)
    assert all(re.fullmatch(r"\w+", answer) for answer in answers)
    # The rarest, a sum of 0 or 10, has a chance of 1 in 36.
    assert {item.answer for _, item in drawn(skill, 400)} == set(answers)


def test_half_of_what_is_asked_for_is_there() -> None:
    answers = [item.answer for _, item in drawn("presence", 600)]
    # Standard deviation 0.02.
    assert answers.count("yes") / 600 == pytest.approx(0.5, abs=0.08)


def test_what_is_not_there_shares_its_colour_or_its_shape_with_something() -> None:
    for scene, item in drawn("presence"):
        if item.answer == "no":
            asked = set(item.question.removesuffix("?").split()[-2:])
            assert any(len({cell.colour, cell.shape} & asked) == 1 for cell in scene.cells)


# The share of the commonest answer: what a peer scores that has learnt to look at nothing.
BLIND = {
    **{"colour": 1 / 6, "shape": 1 / 4, "read": 1 / 10, "relation": 1 / 4, "presence": 1 / 2},
    # The sum 5 has 6 of 36 chances, the larger digit 5 has 10 of 30.
    **{"arithmetic": 1 / 6, "compare": 1 / 3},
    # Heights share 7 of 10 questions.
    "chart": 0.7 / 6,
    "count": 0.51,
}


@pytest.mark.parametrize("skill", SKILLS)
def test_a_skill_cannot_be_guessed_blindly(skill: str) -> None:
    answers = [item.answer for _, item in drawn(skill, 600)]
    most = max(answers.count(answer) for answer in set(answers)) / 600
    # Three standard deviations of a share of 600 are 0.06 at most.
    assert most == pytest.approx(BLIND[skill], abs=0.06)


def test_items_and_pictures_belong_to_their_seeds() -> None:
    for skill in SKILLS:
        first, again, other = (draw_item(np.random.default_rng(seed), skill) for seed in (3, 3, 4))
        assert first == again
        assert first != other
        pictures = [render(first[0], np.random.default_rng(seed)) for seed in (5, 5, 6)]
        assert pictures[0] == pictures[1]
        assert pictures[0] != pictures[2]


def pixels(data: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(data))
    assert image.size == (48, 48)
    assert image.mode == "RGB"
    return np.asarray(image, dtype=float)


def nearest_colour(pixel: np.ndarray) -> str:
    names = {**COLOURS, "white": (245, 245, 245), "dark": (24, 24, 24)}
    return min(names, key=lambda name: float(np.abs(pixel - np.array(names[name])).sum()))


@pytest.mark.parametrize("skill", ["colour", "count", "relation"])
def test_the_picture_shows_the_scene(skill: str) -> None:
    for place, (scene, _) in enumerate(drawn(skill, 40)):
        picture = pixels(render(scene, np.random.default_rng(place)))
        for number, cell in enumerate(scene.cells):
            row, column = divmod(number, 3)
            box = picture[16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
            if cell.digit is None:
                # Every shape covers the middle of its cell.
                middle = box[7:9, 7:9].mean(axis=(0, 1))
                assert nearest_colour(middle) == (cell.colour or "dark")


def test_shapes_look_different() -> None:
    drawings = []
    for shape in SHAPES:
        scene = Scene(cells=(Cell("red", shape), *[Cell()] * 8))
        drawings.append(pixels(render(scene, np.random.default_rng(0)))[:16, :16, 0] > 120)
    for place, one in enumerate(drawings):
        assert 30 < one.sum() < 130
        for other in drawings[:place]:
            assert (one != other).sum() >= 10


def test_bars_are_as_tall_as_they_say() -> None:
    for place, (scene, _) in enumerate(drawn("chart", 40)):
        picture = pixels(render(scene, np.random.default_rng(place)))
        for column, (colour, height) in enumerate(scene.bars):
            strip = picture[:, 16 * column + 7 : 16 * column + 9].mean(axis=1)
            rows = [nearest_colour(pixel) for pixel in strip]
            assert rows == ["dark"] * (48 - 8 * height) + [colour] * (8 * height)


def hand_of(box: np.ndarray) -> int | None:
    """Which of scikit-learn's handwritten digits a cell shows, or None for a printed one."""
    seen = (box.mean(axis=2) - 24.0) / 221.0
    images = load_digits().images / 16.0
    hands = images.repeat(2, axis=1).repeat(2, axis=2)
    hands[:, [0, 15], :] = hands[:, :, [0, 15]] = 0.0
    errors = np.stack(
        [
            np.abs(np.roll(hands, (down, right), axis=(1, 2)) - seen).mean(axis=(1, 2))
            for down in (-1, 0, 1)
            for right in (-1, 0, 1)
        ]
    )
    best = errors.min(axis=0)
    # The right hand differs by noise alone (8 of 221 grey levels, three channels): about 0.017.
    return int(best.argmin()) if best.min() < 0.03 else None


@pytest.mark.parametrize("unseen", [True, False])
def test_exam_digits_come_from_hands_that_lessons_do_not_show(unseen: bool) -> None:
    targets = load_digits().target
    hands = []
    for place in range(60):
        rng = np.random.default_rng(seed_of("hands", place))
        digit = int(rng.integers(10))
        scene = Scene(cells=(*[Cell()] * 4, Cell(digit=digit), *[Cell()] * 4))
        box = pixels(render(scene, rng, unseen_hands=unseen))[16:32, 16:32]
        hand = hand_of(box)
        if hand is not None:
            assert targets[hand] == digit
            hands.append(hand)
    # Half are printed.
    assert 15 < len(hands) < 45
    assert all((hand >= NUM_TRAINING_HANDS) == unseen for hand in hands)
