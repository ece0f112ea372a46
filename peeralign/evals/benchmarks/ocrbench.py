"""OCRBench (Liu et al., 2023): an answer inside the reply is a point; 1,000 items, 10 types.

Case and line breaks do not matter but for formulas (HME100k), where blanks do not and case does.
The official script and lmms-eval know formulas by the item's data set, VLMEvalKit by its type;
lmms-eval folds full-width characters too, and divides by 1,000 however many items there are.
"""

from __future__ import annotations

from collections.abc import Sequence

from peeralign.evals.benchmark import LMMS_EVAL, OFFICIAL, VLMEVALKIT, Benchmark, Graded, Row
from peeralign.evals.measures import Measure, count, mean

RECOGNITION = (
    "Regular Text Recognition",
    "Irregular Text Recognition",
    "Artistic Text Recognition",
    "Handwriting Recognition",
    "Digit String Recognition",
    "Non-Semantic Text Recognition",
)
FORMULAS = "Handwritten Mathematical Expression Recognition"
TYPES = (
    *RECOGNITION,
    "Scene Text-centric VQA",
    "Doc-oriented VQA",
    "Key Information Extraction",
    FORMULAS,
)
NUM_ITEMS = 1000
_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: " "}


def grade(row: Row, protocol: str) -> Graded:
    """1 if one of the answers is a part of the reply."""
    if protocol == VLMEVALKIT:
        is_formula = row["category"] == FORMULAS
    else:
        is_formula = row["dataset"] == "HME100k"
    reply = row["prediction"].strip() if protocol == LMMS_EVAL else row["prediction"]
    folded = [_folded(text, is_formula, protocol) for text in (reply, *row["answers"])]
    return Graded(float(any(text in folded[0] for text in folded[1:])), "parsed", folded[0])


def _folded(text: str, is_formula: bool, protocol: str) -> str:
    if is_formula:
        return text.strip().replace("\n", " ").replace(" ", "")
    if protocol == LMMS_EVAL:
        text = text.translate(_FULL_WIDTH)
    return text.lower().strip().replace("\n", " ")


def measures(rows: Sequence[Row], grades: Sequence[Graded], protocol: str) -> dict[str, Measure]:
    """Points in all, of all kinds of recognition, and of each type; lmms-eval: a share of 1,000."""
    scores = [grade.score for grade in grades]
    types = [row["category"] for row in rows]
    if protocol == LMMS_EVAL:
        return {"Final Score": mean(scores, scale=len(rows) / NUM_ITEMS)}
    sums = {"Final Score": TYPES, "Text Recognition": RECOGNITION}
    sums |= {kind: (kind,) for kind in TYPES}
    pairs = list(zip(scores, types, strict=True))
    return {
        name: count([score * (kind in members) for score, kind in pairs])
        for name, members in sums.items()
    }


def complaint(row: Row, protocol: str) -> str | None:
    """A type that OCRBench does not have would be counted nowhere."""
    if row["category"] in TYPES:
        return None
    return f"has the category '{row['category']}'; give one of {', '.join(TYPES)}"


BENCHMARK = Benchmark(
    title="OCRBench",
    headline="Final Score",
    needs={
        OFFICIAL: ("answers", "category", "dataset"),
        LMMS_EVAL: ("answers", "category", "dataset"),
        VLMEVALKIT: ("answers", "category"),
    },
    grade=grade,
    measures=measures,
    unit="points, one an item (lmms-eval: thousandths of them)",
    splits=(),
    complaint=complaint,
)
