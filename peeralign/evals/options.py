"""What benchmarks of options have in common: the answer is a letter."""

from __future__ import annotations

from peeralign.evals.benchmark import Graded, Row
from peeralign.evals.reading.letters import LETTERS, Choice
from peeralign.evals.rows import shown


def graded_choice(choice: Choice, answer: str) -> Graded:
    """1 for the right letter."""
    right = choice.letter is not None and choice.letter == answer.strip().upper()
    return Graded(float(right), choice.parsed, choice.letter)


def letter_complaint(row: Row, protocol: str) -> str | None:
    """What is wrong if the answer is not the letter of an option."""
    letter = row["answer"].strip().upper()
    known = LETTERS[: len(row["choices"])] if "choices" in row else LETTERS
    if len(letter) == 1 and letter in known:
        return None
    return f"has the answer {shown(row['answer'])}; give the letter of an option, A to {known[-1]}"
