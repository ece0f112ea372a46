"""The classroom's scenes: 48 x 48 px, a grid of 3 x 3 cells of 16 px, one cell a ViT patch.

Two kinds of scene exist. An *object scene* puts coloured shapes and digits into cells; a *chart*
draws three coloured bars of height 1 to 6 from the bottom. Half of the digits are real handwriting
(scikit-learn's `load_digits`), half are printed. A scene knows its exact content, which is where
the classroom's answers come from.
"""

from __future__ import annotations

import functools
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

CELL_PX = 16
GRID = 3
IMAGE_PX = CELL_PX * GRID
NUM_CELLS = GRID * GRID
MAX_BAR = 6

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 40, 40),
    "green": (40, 180, 60),
    "blue": (50, 80, 230),
    "yellow": (235, 215, 50),
    "purple": (160, 60, 190),
    "orange": (240, 140, 30),
}
SHAPES = ("circle", "square", "triangle", "cross")
# Handwriting is split by index, so the exam shows hands no peer was trained on.
NUM_TRAINING_HANDS = 1300

_PRINTED = (
    "01110 10001 10001 10001 10001 10001 01110",
    "00100 01100 00100 00100 00100 00100 01110",
    "01110 10001 00001 00110 01000 10000 11111",
    "11110 00001 00001 01110 00001 00001 11110",
    "00010 00110 01010 10010 11111 00010 00010",
    "11111 10000 11110 00001 00001 10001 01110",
    "00110 01000 10000 11110 10001 10001 01110",
    "11111 00001 00010 00100 01000 01000 01000",
    "01110 10001 10001 01110 10001 10001 01110",
    "01110 10001 10001 01111 00001 00010 01100",
)


@dataclass(frozen=True, slots=True)
class Cell:
    """What one cell shows: nothing, a coloured shape, or a digit."""

    colour: str | None = None
    shape: str | None = None
    digit: int | None = None

    @property
    def name(self) -> str:
        if self.digit is not None:
            return str(self.digit)
        return f"{self.colour} {self.shape}" if self.shape else "blank"


@dataclass(frozen=True, slots=True)
class Scene:
    """Nine cells row by row, or, when `bars` is set, a chart of three (colour, height) bars."""

    cells: tuple[Cell, ...] = ()
    bars: tuple[tuple[str, int], ...] = ()

    @property
    def objects(self) -> list[tuple[int, Cell]]:
        return [(i, cell) for i, cell in enumerate(self.cells) if cell.shape]

    @property
    def digits(self) -> list[int]:
        return [cell.digit for cell in self.cells if cell.digit is not None]

    def describe(self) -> str:
        """Name everything shown, in reading order."""
        if self.bars:
            return " ".join(f"{colour} bar {height}" for colour, height in self.bars)
        return " ".join(cell.name for cell in self.cells)


def object_scene(rng: np.random.Generator, num_objects: int, digits: tuple[int, ...]) -> Scene:
    """Place `num_objects` random shapes and the given digits into distinct random cells."""
    places = rng.permutation(NUM_CELLS)[: num_objects + len(digits)]
    cells = [Cell()] * NUM_CELLS
    colours = list(COLOURS)
    for place in places[:num_objects]:
        colour = colours[rng.integers(len(colours))]
        cells[place] = Cell(colour, SHAPES[rng.integers(len(SHAPES))])
    for place, digit in zip(places[num_objects:], digits, strict=True):
        cells[place] = Cell(digit=digit)
    return Scene(cells=tuple(cells))


def chart_scene(rng: np.random.Generator) -> Scene:
    """Three bars of distinct colours and distinct heights, so that one is the tallest."""
    colours = rng.permutation(list(COLOURS))[:GRID]
    heights = rng.permutation(np.arange(1, MAX_BAR + 1))[:GRID]
    return Scene(bars=tuple((str(c), int(h)) for c, h in zip(colours, heights, strict=True)))


@functools.cache
def _handwriting() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    pixels, targets = load_digits(return_X_y=True)
    return np.asarray(pixels, dtype=np.float32).reshape(-1, 8, 8) / 16.0, np.asarray(targets)


def _digit_mask(rng: np.random.Generator, digit: int, unseen_hands: bool) -> np.ndarray:
    if rng.random() < 0.5:
        rows = _PRINTED[digit].split()
        glyph = np.array([[float(pixel) for pixel in row] for row in rows], dtype=np.float32)
        mask = np.zeros((CELL_PX, CELL_PX), dtype=np.float32)
        mask[1:15, 3:13] = glyph.repeat(2, axis=0).repeat(2, axis=1)
        return mask
    images, targets = _handwriting()
    span = slice(NUM_TRAINING_HANDS, None) if unseen_hands else slice(0, NUM_TRAINING_HANDS)
    offset = span.start or 0
    choices = np.flatnonzero(targets[span] == digit) + offset
    hand = images[choices[rng.integers(len(choices))]]
    mask = np.zeros((CELL_PX, CELL_PX), dtype=np.float32)
    mask[1:15, 1:15] = hand.repeat(2, axis=0).repeat(2, axis=1)[1:15, 1:15]
    return mask


@functools.cache
def _shape_mask(shape: str) -> np.ndarray:
    y, x = np.mgrid[0:CELL_PX, 0:CELL_PX] - (CELL_PX - 1) / 2
    radius = 5.5
    if shape == "circle":
        return (x**2 + y**2 <= radius**2).astype(np.float32)
    if shape == "square":
        return ((abs(x) <= radius - 0.5) & (abs(y) <= radius - 0.5)).astype(np.float32)
    if shape == "triangle":
        return ((y <= radius) & (abs(x) <= (y + radius) / 2)).astype(np.float32)
    thin = (abs(x) <= 1.5) | (abs(y) <= 1.5)
    return (thin & (abs(x) <= radius) & (abs(y) <= radius)).astype(np.float32)


def render(
    scene: Scene, rng: np.random.Generator, unseen_hands: bool = False, jitter_px: int = 1
) -> bytes:
    """Draw the scene as PNG bytes, objects shifted by up to `jitter_px`, with pixel noise."""
    canvas = np.full((IMAGE_PX, IMAGE_PX, 3), 24.0, dtype=np.float32)
    for place, cell in enumerate(scene.cells):
        if cell.shape is None and cell.digit is None:
            continue
        if cell.digit is not None:
            mask = _digit_mask(rng, cell.digit, unseen_hands)
            colour = (245.0, 245.0, 245.0)
        else:
            mask, colour = _shape_mask(str(cell.shape)), COLOURS[str(cell.colour)]
        mask = np.roll(mask, tuple(rng.integers(-jitter_px, jitter_px + 1, size=2)), axis=(0, 1))[
            ..., None
        ]
        top, left = CELL_PX * (place // GRID), CELL_PX * (place % GRID)
        box = canvas[top : top + CELL_PX, left : left + CELL_PX]
        box[:] = box * (1 - mask) + np.array(colour, dtype=np.float32) * mask
    for column, (colour, height) in enumerate(scene.bars):
        top = IMAGE_PX - height * (IMAGE_PX // MAX_BAR)
        left = CELL_PX * column + 4 + int(rng.integers(-1, 2))
        canvas[top:, left : left + 8] = COLOURS[colour]
    canvas += rng.normal(0.0, 8.0, size=canvas.shape)
    image = Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()
