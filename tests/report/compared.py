"""Tables of a run whose critics compare answers, small enough to work out by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from peeralign.recipes.llava_critic import PAPER_CURATE
from peeralign.records import CANDIDATE_SCHEMA, COMPARISON_SCHEMA, make_id
from peeralign.stages.curate import CurateConfig, curate
from peeralign.stages.preference_rewards import preference_rewards
from peeralign.store.run import Run

SCRIPT = "<script>window.hacked = 1</script>"
LEARNERS, CRITICS = ("ada", "ben"), ("cleo", "dan")
SETTINGS: dict[str, Any] = {
    "rounds": 1,
    "rewards": "pairwise",
    "members": [
        *({"name": name, "judges": False} for name in LEARNERS),
        *({"name": name, "answers": False, "learns": False} for name in CRITICS),
    ],
    "judge": {"rubric": "pairwise", "judges": "all"},
}
# learner -> question, answer, text; both wrote a1 and a5.
GIVEN: dict[str, list[tuple[str, str, str | None]]] = {
    "ada": [
        ("q1", "a1", "red"),
        ("q1", "a1", "Red"),
        ("q1", "a2", SCRIPT),
        ("q2", "a3", "2"),
        ("q2", "a4", "3"),
        ("q3", "a5", "cross"),
    ],
    "ben": [
        ("q1", "a1", "red"),
        ("q1", "a6", "blue"),
        ("q2", "a0", None),
        ("q3", "a5", "cross"),
        ("q3", "a7", "bar"),
    ],
}
PAIRS = [("q1", "a1", "a2"), ("q1", "a1", "a6"), ("q2", "a3", "a4"), ("q3", "a5", "a7")]
# For each pair what is better, in either order.
VERDICTS: list[list[tuple[str | None, str | None]]] = [
    [("first", "first"), ("first", "second"), ("tie", "tie"), ("first", None)],
    [("first", "tie"), ("tie", "tie"), ("first", "first"), ("second", "second")],
]
REASON = "no <b>object</b> in it"
EXPLANATION = f"The circle is red. {SCRIPT}"


def comparisons(critic: str, verdicts: list[tuple[str | None, str | None]]) -> pl.DataFrame:
    rows: list[dict[str, Any]] = []
    for (question, first, second), both in zip(PAIRS, verdicts, strict=True):
        for order, verdict in enumerate(both):
            rows.append(
                {
                    "id": make_id(critic, first, second, order),
                    "question_id": question,
                    "pair_id": make_id(first, second),
                    "first_id": first,
                    "second_id": second,
                    "order": order,
                    "judge": critic,
                    "verdict": verdict,
                    "preference": {"first": 1.0, "second": 0.0, "tie": 0.5}.get(verdict or ""),
                    "wording": 0,
                    "explanation": EXPLANATION if verdict == "first" and order == 0 else None,
                    "reason": None if verdict else REASON,
                    "raw": verdict or "hm",
                }
            )
    return pl.DataFrame(rows, schema=COMPARISON_SCHEMA)


def write_answers(run: Run, *members: str) -> None:
    for author in members:
        rows = [
            (
                make_id(author, i),
                *(q, answer, author, i, "clean", text),
                1,
                None if text else "empty",
            )
            for i, (q, answer, text) in enumerate(GIVEN[author])
        ]
        stage = run.stage(1, "candidates", author)
        stage.write_shard(0, pl.DataFrame(rows, schema=CANDIDATE_SCHEMA, orient="row"))
        stage.finish()


def write_comparisons(run: Run, *critics: str) -> None:
    for place, critic in enumerate(critics):
        stage = run.stage(1, "comparisons", critic)
        stage.write_shard(0, comparisons(critic, VERDICTS[place]))
        stage.finish()


def write_pairs(run: Run, member: str) -> None:
    """As the recipe does."""
    answers = run.stage(1, "candidates", member).read(CANDIDATE_SCHEMA)
    rewards = preference_rewards(answers, run.table(1, "comparisons", COMPARISON_SCHEMA))
    pairs = curate(rewards, CurateConfig(**PAPER_CURATE))
    scored = rewards.drop_nulls("reward")["question_id"].n_unique()
    for name, table, counts in (
        ("rewards", rewards, {}),
        ("pairs", pairs, {"equal": scored - len(pairs), "unscored": 3 - scored}),
    ):
        stage = run.stage(1, name, member)
        stage.write_shard(0, table)
        stage.finish(rows=len(table), **counts)


def write_critic_run(folder: Path, write_questions: Callable[[Run], None]) -> Run:
    """A whole run of two learners and two critics, without an exam."""
    run = Run.open(folder, "llava_critic", SETTINGS, 7)
    write_questions(run)
    write_answers(run, *LEARNERS)
    write_comparisons(run, *CRITICS)
    for member in LEARNERS:
        write_pairs(run, member)
        run.checkpoint(1, member).mkdir(parents=True)
    return run
