"""The lmms-eval protocol against lmms-eval's own code: every row, and every figure over all rows.

Replies are drawn from what the rules look for, and go through lmms-eval's whole pipeline: filters,
its task's function, its aggregation.
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bridge.tasks import evaluated

from peeralign.evals.benchmark import LMMS_EVAL, Graded
from peeralign.evals.benchmarks.mme import COGNITION, PERCEPTION
from peeralign.evals.benchmarks.mmmu import DISCIPLINES
from peeralign.evals.benchmarks.ocrbench import TYPES
from peeralign.evals.bridge.rows import row_of
from peeralign.evals.score import grade_rows, score_rows

NUM_DOCS = 4000
Docs = list[dict[str, Any]]
WORDS = (
    "the",
    "a",
    "cat",
    "dog",
    "red",
    "so",
    "is",
    "answer",
    "DNA",
    "result",
    "final",
    "could be",
)
MARKS = (" ", " ", " ", ". ", ".", ", ", ",", "\n", ": ", "!", "'", "?", "=", "(", ")", "  ", "\t")


def joined(draw: random.Random, parts: tuple[str, ...], most: int = 5) -> str:
    """Up to `most` of the parts, with blanks and marks between and around them."""
    pieces = [draw.choice(["", "", draw.choice(MARKS)])]
    for _ in range(draw.randint(0, most)):
        pieces += [draw.choice(parts), draw.choice(MARKS)]
    if draw.random() < 0.6 and len(pieces) > 1:
        pieces.pop()
    text = "".join(pieces)
    return text.upper() if draw.random() < 0.1 else text


def chartqa(draw: random.Random, number: int) -> tuple[dict[str, Any], str]:
    texts = ("yes", "Yes", "No", "0", "0.0", "-3", "1e3", "nan", "inf", "1,000", "12%", "%", "1_0")
    near = f"{draw.uniform(-30, 30):.2f}"
    near_by = f"{float(near) * draw.choice([0.94, 0.95, 0.951, 1, 1.049, 1.05, 1.06]):.4f}"
    pool = (*texts, near, near_by, f"{near}%", f"{near_by}%", f" {near_by} %")
    doc = {
        "question": f"question {number}",
        "answer": draw.choice([near, f"{near}%", *texts]),
        "type": draw.choice(["human_test", "augmented_test"]),
    }
    reply = draw.choice([*pool, doc["answer"], f"{doc['answer']} ", joined(draw, pool, 2)])
    return doc, reply


def textvqa(draw: random.Random, number: int) -> tuple[dict[str, Any], str]:
    words = (*WORDS, "dont", "don't", "somebody'd", "three", "none", "3", "1,000", "7.5", "it's")
    words = (*words, "coca-cola", "a/b", "U.S.", "'tis", "ow's'at", "zero", "ten", '"', "x@y", "&")
    options = [joined(draw, words, 3) for _ in range(draw.randint(1, 4))]
    number_of_answers = draw.choice([10, 10, 10, 1, 3])
    doc = {
        "question": f"question {number}",
        "question_id": number,
        "answers": [draw.choice(options) for _ in range(number_of_answers)],
    }
    changed = draw.choice(options).replace(",", draw.choice(["", ","])).title()
    return doc, draw.choice([*options, changed, joined(draw, words, 3)])


def ocrbench(draw: random.Random, number: int) -> tuple[dict[str, Any], str]:
    parts = (
        "CENTRE",
        "Centre",
        "12.5",
        "\\frac { a }",
        "{b}",
        "\uff21\uff22",
        "ab",
        "\u3000",
        "\uff11\uff12",
        "x y",
    )
    answers = [joined(draw, parts, 2) or "x" for _ in range(draw.randint(1, 2))]
    doc = {
        "question": f"question {number}",
        "answer": answers,
        "dataset": draw.choice(["HME100k", "IIIT5K", "svt"]),
        "question_type": draw.choice(TYPES),
    }
    around = joined(draw, parts, 2) + draw.choice(answers) + joined(draw, parts, 2)
    return doc, draw.choice([around, around.lower(), around.replace(" ", ""), joined(draw, parts)])


def pope(draw: random.Random, number: int) -> tuple[dict[str, Any], str]:
    parts = ("yes", "Yes", "no", "No", "NO", "not", "maybe", "Yes.", "there is")
    doc = {
        "question": f"Is there a dog in image {number}?",
        "question_id": str(number),
        "answer": draw.choice(["yes", "no", "Yes", "No "]),
        "category": draw.choice(["random", "popular", "adversarial"]),
    }
    return doc, draw.choice(
        [draw.choice(parts), f" {draw.choice(parts)}\n", joined(draw, parts, 3)]
    )


def lettered(draw: random.Random, options: list[str]) -> str:
    """A reply about options: letters in all the forms that rules know, options' texts, words."""
    letter = draw.choice(string.ascii_uppercase[: len(options) + 1])
    forms = ("{}", "{}.", "({})", "{}. ", " {} ", "{})", "**{}**", "The answer is {}.", "is {}")
    forms = (*forms, "{}: x", "option {}", "{}..", "{},", "'{}'", "{} or B", "(A) not ({})", "NB{}")
    said = draw.choice(forms).format(letter if draw.random() < 0.8 else letter.lower())
    texts = (said, *options, *WORDS)
    return draw.choice([said, said, joined(draw, texts, 8), f"{letter}. {draw.choice(options)}"])


def options_of(draw: random.Random, least: int = 2, most: int = 5) -> list[str]:
    words = ("moon", "the moon", "Sun", "a star", "B", "12", "Earth and moon", "D2", "x.")
    return [draw.choice(words) for _ in range(draw.randint(least, most))]


def ai2d(draw: random.Random, number: int) -> tuple[dict[str, Any], str]:
    options = options_of(draw, 4, 4)
    doc = {
        "question": f"question {number}",
        "options": options,
        "answer": str(draw.randrange(len(options))),
    }
    return doc, lettered(draw, options)


def scienceqa(draw: random.Random, number: int) -> tuple[dict[str, Any], str]:
    choices = options_of(draw)
    doc = {
        "question": f"question {number}",
        "choices": choices,
        "answer": draw.randrange(len(choices)),
        "hint": draw.choice(["", "a hint"]),
        "subject": draw.choice(["natural science", "social science", "language science"]),
        "grade": f"grade{draw.randint(1, 12)}",
    }
    return doc, lettered(draw, choices)


def mmmu(draw: random.Random, number: int) -> tuple[dict[str, Any], str]:
    subject = draw.choice(", ".join(DISCIPLINES.values()).split(", "))
    doc: dict[str, Any] = {"id": f"validation_{subject}_{number}", "question": f"question {number}"}
    if draw.random() < 0.6:
        options = options_of(draw)
        right = draw.choice(string.ascii_uppercase[: len(options)])
        doc |= {"question_type": "multiple-choice", "options": str(options), "answer": right}
        return doc, lettered(draw, options)
    numbers = ("12", "-3.5", "1,000", "1.2e3", ".5", "3.14159", "8.0")
    answers = [*numbers, "cat", "x", "Red Dog", "['12', 'twelve']", "12.001", "1000"]
    doc |= {"question_type": "open", "options": "[]", "answer": draw.choice(answers)}
    parts = (*WORDS, *numbers, doc["answer"], "Therefore", "thus", "12.", "$5", "x", "= 12")
    return doc, joined(draw, parts, 8)


def mme(draw: random.Random, number: int) -> tuple[dict[str, Any], str]:
    tasks = (*PERCEPTION, *COGNITION)
    parts = ("yes", "Yes", "no", "No", "y", "N", "not", "Ye", "s", "unknown", "a no", "..yes")
    doc = {
        "question": f"question {number}",
        "question_id": f"image-{number // 2}",
        "answer": draw.choice(["Yes", "No"]),
        "category": tasks[number // 2 % len(tasks)],
    }
    reply = draw.choice([doc["answer"], draw.choice(parts), joined(draw, parts, 3)])
    return doc, reply


FOUR = ["a dog", "the cat", "B", "none of them"]


def mmstar(draw: random.Random, number: int) -> tuple[dict[str, Any], str]:
    ability = draw.choice(["math", "logical reasoning"])
    doc = {
        "question": f"question {number}",
        "index": number,
        "answer": draw.choice("ABCD"),
        "category": ability,
        "l2_category": f"{ability} {draw.randrange(3)}",
    }
    return doc, lettered(draw, FOUR)


def seedbench(draw: random.Random, number: int) -> tuple[dict[str, Any], str]:
    doc = {
        "question": f"question {number}",
        "question_id": str(number),
        "answer": draw.choice("ABCD"),
        "data_type": draw.choice(["image", "video"]),
        **{f"choice_{letter}": text for letter, text in zip("abcd", FOUR, strict=True)},
    }
    return doc, lettered(draw, FOUR)


def realworldqa(draw: random.Random, number: int) -> tuple[dict[str, Any], str]:
    answer = draw.choice(["A", "B", "C", "D", "c", "0", "2", "Downhill", "yes"])
    doc = {"question": f"question {number}", "answer": answer}
    words = ["Downhill.", "downhill", "0", "2.", "Yes", "two", *FOUR]
    return doc, draw.choice([answer, f"{answer}.", lettered(draw, words)])


def gqa(draw: random.Random, number: int) -> tuple[dict[str, Any], str]:
    words = ("yes", "No", "t-shirt", "left", "traffic light", "coffee mug", "it's")
    doc = {"question": f"question {number}", "answer": draw.choice(words)}
    changed = draw.choice([doc["answer"].title(), f"{doc['answer']}.", f" {doc['answer']}\n"])
    return doc, draw.choice([changed, joined(draw, words, 2), "tshirt", "its"])


DRAWN: dict[str, Callable[[random.Random, int], tuple[dict[str, Any], str]]] = {
    "chartqa": chartqa,
    "textvqa": textvqa,
    "ocrbench": ocrbench,
    "pope": pope,
    "ai2d": ai2d,
    "scienceqa": scienceqa,
    "mmmu": mmmu,
    "mme": mme,
    "mmstar": mmstar,
    "seedbench": seedbench,
    "realworldqa": realworldqa,
    "gqa": gqa,
}


def drawn(benchmark: str) -> tuple[Docs, list[str]]:
    draw = random.Random(benchmark)
    pairs = [DRAWN[benchmark](draw, number) for number in range(NUM_DOCS)]
    return [doc for doc, _ in pairs], [reply for _, reply in pairs]


def rows_of(benchmark: str, docs: Docs, replies: list[str]) -> Docs:
    return [
        {"id": number, "prediction": reply, **row_of(benchmark, doc)}
        for number, (doc, reply) in enumerate(zip(docs, replies, strict=True))
    ]


def differences(theirs: list[float], ours: list[Graded], rows: Docs) -> list[Any]:
    """Rows whose scores differ. An empty reply is wrong in every protocol of ours."""
    return [
        (score, grade, row)
        for score, grade, row in zip(theirs, ours, rows, strict=True)
        if score != pytest.approx(grade.score, abs=1e-12) and row["prediction"].strip()
    ]


SCORE: dict[str, Callable[[dict[str, Any]], float]] = {
    "chartqa": lambda sample: sample["relaxed_overall"],
    "textvqa": lambda sample: sample["exact_match"],
    "ocrbench": lambda sample: sample["ocrbench_accuracy"]["score"],
    "pope": lambda sample: sample["pope_accuracy"]["score"],
    "ai2d": lambda sample: sample["exact_match"],
    "scienceqa": lambda sample: sample["exact_match"],
    "mme": lambda sample: next(
        sample[f"mme_{part}_score"]["score"]
        for part in ("perception", "cognition")
        if f"mme_{part}_score" in sample
    ),
    "mmstar": lambda sample: sample["average"]["score"],
    "seedbench": lambda sample: float(
        sample["seed_all"]["pred"].lower() == sample["seed_all"]["answer"].lower()
    ),
    "realworldqa": lambda sample: sample["exact_match"],
    "gqa": lambda sample: sample["exact_match"],
}
# lmms-eval's name of a figure -> ours.
FIGURES = {
    "chartqa": {
        "relaxed_overall": "relaxed_accuracy",
        "relaxed_human_split": "relaxed_accuracy_human",
        "relaxed_augmented_split": "relaxed_accuracy_augmented",
    },
    "textvqa": {"exact_match": "accuracy"},
    "ocrbench": {"ocrbench_accuracy": "Final Score"},
    "pope": {
        "pope_accuracy": "accuracy",
        "pope_precision": "precision",
        "pope_recall": "recall",
        "pope_f1_score": "f1",
        "pope_yes_ratio": "yes_ratio",
    },
    "ai2d": {"exact_match": "accuracy"},
    "scienceqa": {"exact_match": "acc_average"},
    "mme": {"mme_perception_score": "Perception", "mme_cognition_score": "Cognition"},
    "mmstar": {"average": "final score"},
    "seedbench": {"seed_all": "accuracy"},
    "realworldqa": {"exact_match": "accuracy"},
    "gqa": {"exact_match": "accuracy"},
}


@pytest.mark.parametrize("benchmark", SCORE)
def test_rows_and_figures_agree(benchmark: str, tmp_path: Path) -> None:
    docs, replies = drawn(benchmark)
    # An empty reply, which lmms-eval may find right, is apart; a blank would hide in the sums.
    replies = [reply if reply.strip() else "nothing" for reply in replies]
    rows = rows_of(benchmark, docs, replies)
    samples, theirs = evaluated(tmp_path, benchmark, docs, replies)
    scores = [SCORE[benchmark](sample) for sample in samples]
    ours = grade_rows(benchmark, rows, LMMS_EVAL)
    assert not differences(scores, ours, rows)
    # The draw is worth something: neither all right nor all wrong.
    assert 0.02 < sum(grade.score for grade in ours) / NUM_DOCS < 0.98
    figures = score_rows(benchmark, rows, LMMS_EVAL)
    for name, own in FIGURES[benchmark].items():
        assert figures[own] == pytest.approx(theirs[name], abs=1e-6), name


def test_mmmu_differs_where_lmms_eval_guesses_and_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lmms_eval.tasks._task_utils import mmmu_mcq_utils

    # A guess is recognised, and wrong, instead of being a random option.
    monkeypatch.setattr(
        mmmu_mcq_utils, "random", type("Draws", (), {"choice": staticmethod(lambda letters: "?")})
    )
    docs, replies = drawn("mmmu")
    replies = [reply if reply.strip() else "nothing" for reply in replies]
    rows = rows_of("mmmu", docs, replies)
    samples, theirs = evaluated(tmp_path, "mmmu", docs, replies)
    ours = grade_rows("mmmu", rows, LMMS_EVAL)
    from lmms_eval.tasks.mmmu.utils import evaluate_mmmu

    scores = [evaluate_mmmu([sample["mmmu_acc"]])[1]["acc"] for sample in samples]
    assert not differences(scores, ours, rows)
    guessed = [sample["mmmu_acc"]["parsed_pred"] == ["?"] for sample in samples]
    assert guessed == [grade.parsed == "none" for grade in ours]
    assert 0.05 < sum(guessed) / NUM_DOCS < 0.5
    figures = score_rows("mmmu", rows, LMMS_EVAL)
    assert figures["Overall"] == pytest.approx(theirs["mmmu_acc"], abs=1e-5)


@pytest.mark.parametrize("benchmark", ["chartqa", "pope", "ai2d", "scienceqa"])
def test_empty_replies_are_wrong_in_both(benchmark: str, tmp_path: Path) -> None:
    docs = drawn(benchmark)[0][:20]
    replies = ["", " \n"] * 10
    samples, _ = evaluated(tmp_path, benchmark, docs, replies)
    assert not any(SCORE[benchmark](sample) for sample in samples)
    rows = rows_of(benchmark, docs, replies)
    assert not any(grade.score for grade in grade_rows(benchmark, rows, LMMS_EVAL))
