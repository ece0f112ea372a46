"""Open replies as MMMU reads them."""

from __future__ import annotations

import pytest

from peeralign.evals.reading.open_answers import names_an_answer


@pytest.mark.parametrize(
    ("reply", "answers", "named"),
    [
        ("42", ["42"], True),
        ("The answer is 42.", ["42"], True),
        # What comes before the last sign is not looked at.
        ("42 is not it", ["42"], False),
        ("x = 3 = 42", ["42"], True),
        # "=" is a sign in the last line only.
        ("42 = x\nso 7", ["42"], False),
        ("so 42\nso 7", ["42"], True),
        ("1,234.5", ["1234.5"], True),
        ("about 1,234", ["1234"], True),
        ("4.2e1", ["42"], True),
        ("-42", ["42"], False),
        ("42.004", ["42"], True),
        ("42.006", ["42"], False),
        # A number is found as a number, not as a part of a text.
        ("n42x", ["42"], False),
        ("the cats", ["cat"], True),
        ("the Cat", ["cat"], True),
        ("final :", ["final"], True),
        ("grade b", ["b"], True),
        ("grabs", ["b"], False),
        ("neither", ["cat", "nei"], True),
    ],
)
def test_names_an_answer(reply: str, answers: list[str], named: bool) -> None:
    assert names_an_answer(reply, answers) is named
