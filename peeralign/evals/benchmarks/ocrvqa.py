"""OCR-VQA (Mishra et al., 2019): the share of replies that are the answer, but for case and blanks.

The paper gives accuracy without a script; this is what VLMEvalKit and Qwen-VL compute. lmms-eval
does not have it.
"""

from __future__ import annotations

from peeralign.evals.benchmark import OFFICIAL, VLMEVALKIT, Benchmark, Graded, Row, mean_score


def grade(row: Row, protocol: str) -> Graded:
    """1 if the reply is one of the answers."""
    reply = row["prediction"].strip().lower()
    right = any(reply == answer.strip().lower() for answer in row["answers"])
    return Graded(float(right), "parsed", reply)


BENCHMARK = Benchmark(
    title="OCR-VQA",
    headline="accuracy",
    needs=dict.fromkeys((OFFICIAL, VLMEVALKIT), ("answers",)),
    grade=grade,
    measures=mean_score("accuracy"),
)
