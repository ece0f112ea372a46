"""The report's numbers, against numbers worked out by hand from conftest's tables."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from types import SimpleNamespace

import polars as pl
import pytest
from PIL import Image

from peeralign.images.load import BrokenImage, open_image
from peeralign.records import CANDIDATE_SCHEMA, EXAM_SCHEMA, PAIR_SCHEMA, REWARD_SCHEMA
from peeralign.report.collect import MAX_REASONS, Tally, collect
from peeralign.report.gallery import PAIRS_PER_ROUND, Verdict, collect_gallery, thumbnail
from peeralign.report.scores import read_exam
from peeralign.stages.curate import CurateConfig, curate
from peeralign.store.run import Run, write_json

NewRun = Callable[..., Run]


def write_scores(
    run: Run, number: int, member: str, rows: list[tuple[str, str, float | None]]
) -> None:
    full = [(item, skill, "General", "?", "!", score, None) for item, skill, score in rows]
    table = pl.DataFrame(full, schema=EXAM_SCHEMA, orient="row")
    run.stage(number, "exam", member).write_shard(0, table)


def test_member_and_panel_means(whole_run: Run) -> None:
    exam = collect(whole_run).exam
    assert exam is not None
    means = {key: score.mean for key, score in exam.scores.items()}
    assert means == {(0, "ada"): 0.5, (0, "ben"): 0.5, (1, "ada"): 0.75, (1, "ben"): 0.75}
    assert exam.panel == {0: 0.5, 1: 0.75}
    assert exam.change is not None
    assert exam.change.gain == 0.25


def test_wilson_interval(whole_run: Run) -> None:
    # 4 of 8: the centre is 0.5, half the width 1.96 sqrt(0.25/8 + 1.96^2/256) / (1 + 1.96^2/8).
    exam = collect(whole_run).exam
    assert exam is not None
    assert exam.interval_name == "Wilson"
    score = exam.scores[0, "ada"]
    assert (score.low, score.high) == pytest.approx((0.2152, 0.7848), abs=1e-4)


def test_change_interval_is_paired(new_run: NewRun) -> None:
    # Each item changes by the same amount, so the paired interval has no width. The last one has
    # an image that nobody could open.
    run = new_run()
    for member in ("ada", "ben"):
        for number, score in ((0, 0.25), (1, 0.5)):
            rows = [(str(i), "read", score) for i in range(6)]
            write_scores(run, number, member, [*rows, ("6", "read", None)])
    exam = collect(run).exam
    assert exam is not None
    assert exam.change is not None
    assert exam.change.interval == pytest.approx((0.25, 0.25))


def test_skills_keep_the_order_of_the_exam(whole_run: Run) -> None:
    exam = collect(whole_run).exam
    assert exam is not None
    assert [(s.category, s.name) for s in exam.skills] == [
        ("Vision-centric", "count"),
        ("General", "colour"),
    ]
    assert exam.skills[1].means[0, "ada"] == 0.75
    assert exam.skills[1].items == 4


def test_mean_is_over_skills_and_partial_credit_gets_a_bootstrap(new_run: NewRun) -> None:
    run = new_run(members=[{"name": "ada"}])
    rows = [("1", "read", 1.0), ("2", "read", 0.5), ("3", "read", 0.0), ("4", "count", 1.0)]
    write_scores(run, 0, "ada", rows)
    first = read_exam(run, ["ada"], {0})
    second = read_exam(run, ["ada"], {0})
    assert first is not None
    assert first.interval_name == "bootstrap over items"
    score = first.scores[0, "ada"]
    assert score.mean == 0.75
    # The only item of "count" is drawn every time, so no draw falls below 0.5.
    assert 0.5 <= score.low < 0.75 < score.high <= 1.0
    assert second is not None
    assert second.scores == first.scores


def test_half_written_exam_is_not_scored(whole_run: Run) -> None:
    write_scores(whole_run, 1, "ben", [("count-0", "count", 1.0)])
    data = collect(whole_run)
    assert data.exam is not None
    assert (1, "ben") not in data.exam.scores
    assert list(data.exam.panel) == [0]
    assert data.rounds_done == []
    assert data.pending == ["Round 1: not finished yet: exam (1 of 2 members done)."]


def test_counts_and_reasons(whole_run: Run) -> None:
    entry = collect(whole_run).rounds[0]
    assert entry.questions == Tally(3, {"not an image Pillow can read": 2})
    assert entry.candidates == Tally(8, {"empty reply": 1})
    assert entry.distinct_answers == 5
    assert entry.judgments == Tally(9, {"no score in the reply": 1})
    assert entry.pairs == 2


def test_rare_reasons_are_summed(whole_run: Run) -> None:
    stage = whole_run.stage(1, "candidates", "ben")
    rows = stage.read(CANDIDATE_SCHEMA).head(1)
    many = [
        rows.with_columns(text=pl.lit(None, pl.String), reason=pl.lit(f"bad file {i}"))
        for i in range(12)
    ]
    stage.write_shard(1, pl.concat(many))
    tally = collect(whole_run).rounds[0].candidates
    assert tally is not None
    assert tally.bad == 13
    assert len(tally.reasons) == MAX_REASONS + 1
    assert tally.reasons["5 other reasons"] == 5


def test_histogram(whole_run: Run) -> None:
    histogram = collect(whole_run).rounds[0].histogram
    assert histogram is not None
    assert histogram.answers == {4: 1, 10: 1, 14: 1, 16: 1, 18: 1}
    assert histogram.chosen == {14: 1, 18: 1}
    assert histogram.rejected == {4: 1, 10: 1}


def test_judge_matrix_weighs_every_candidate(whole_run: Run) -> None:
    matrix = collect(whole_run).rounds[0].matrix
    assert matrix is not None
    assert (matrix.judges, matrix.authors) == (["ada", "ben"], ["ada", "ben"])
    # ada wrote a1 twice, a3 and a5; ben wrote a1, a2, a4 and a5, and did not score a2.
    assert matrix.means[0] == pytest.approx(
        [(0.8 + 0.8 + 0.6 + 1.0) / 4, (0.8 + 0.2 + 0.4 + 1.0) / 4]
    )
    assert matrix.means[1] == pytest.approx([(1.0 + 1.0 + 0.8 + 0.6) / 4, (1.0 + 0.6 + 0.6) / 3])


def test_yield(whole_run: Run) -> None:
    yields = collect(whole_run).rounds[0].yields
    assert yields is not None
    at = {
        (chosen, margin): yields.counts[m][c]
        for m, margin in enumerate(yields.margins)
        for c, chosen in enumerate(yields.chosen)
    }
    assert yields.questions == 3
    assert yields.own == (0.7, 0.15)
    assert yields.own_count == 2
    # q1: best 0.9, margin 0.7; q2: 0.7 and 0.2; q3 has a single answer, so no margin of 0 helps.
    assert (at[0.2, 0.0], at[0.7, 0.2], at[0.8, 0.2], at[0.9, 0.7], at[0.9, 0.8]) == (2, 2, 1, 1, 0)


def test_yield_agrees_with_curate(whole_run: Run) -> None:
    yields = collect(whole_run).rounds[0].yields
    rewards = whole_run.table(1, "rewards", REWARD_SCHEMA)
    assert yields is not None
    for m, margin in enumerate(yields.margins):
        for c, chosen in enumerate(yields.chosen):
            config = CurateConfig(min_chosen_reward=chosen, min_margin=margin)
            assert yields.counts[m][c] == len(curate(rewards, config)), (chosen, margin)


# Best 1.0 and 0.95, worst 0.3 and 0.25; among the ties the middle ones were drawn most often.
TIED = [
    ("t", "b1", "a", 1, 1.0, 0.0, 2),
    ("t", "b2", "b", 5, 0.95, 0.0, 2),
    ("t", "b3", "c", 4, 0.3, 0.0, 2),
    ("t", "b4", "d", 1, 0.25, 0.0, 2),
]


@pytest.mark.parametrize(("tolerance", "own_count"), [(None, 2), (0.0, 2), (0.05, 1), (1.0, 0)])
def test_yield_follows_the_run_s_tie_tolerance(
    new_run: NewRun, tolerance: float | None, own_count: int
) -> None:
    settings = {"min_chosen_reward": 0.9, "min_margin": 0.7}
    if tolerance is not None:
        settings["tie_tolerance"] = tolerance
    run = new_run(exam=None, curate=settings)
    # At no tolerance both questions reach a margin of 0.7; at 0.05 the first has 0.95 - 0.3.
    plain = [("u", "b5", "e", 1, 0.9, 0.0, 2), ("u", "b6", "f", 9, 0.2, 0.0, 2)]
    rewards = pl.DataFrame(TIED + plain, schema=REWARD_SCHEMA, orient="row")
    run.stage(1, "rewards").write_shard(0, rewards)
    yields = collect(run).rounds[0].yields
    assert yields is not None
    assert yields.own_count == own_count
    for m, margin in enumerate(yields.margins):
        for c, chosen in enumerate(yields.chosen):
            config = CurateConfig(
                min_chosen_reward=chosen, min_margin=margin, tie_tolerance=tolerance or 0.0
            )
            assert yields.counts[m][c] == len(curate(rewards, config)), (chosen, margin)


def test_gallery_joins_authors_and_verdicts(whole_run: Run, write: SimpleNamespace) -> None:
    first, second = collect_gallery(whole_run, 1)
    assert first.chosen.authors == {"ada": 2, "ben": 1}
    assert first.rejected.authors == {"ben": 1}
    assert first.chosen.verdicts == [Verdict("ada", 0.8, None), Verdict("ben", 1.0, None)]
    assert first.rejected.verdicts[1] == Verdict("ben", None, "no score in the reply")
    assert (first.question, first.category) == ("what colour is the circle?", "General")
    assert first.image_is_tiny
    assert second.image_url is None
    with pytest.raises(BrokenImage) as broken:
        open_image(write.broken)
    assert second.image_problem == str(broken.value)


def test_gallery_sample_is_even_and_bounded(whole_run: Run) -> None:
    rows = [(f"{i:03d}", "q1", "red", "x", "a1", "a2", 0.9, 0.2) for i in range(60)]
    table = pl.DataFrame(rows, schema=PAIR_SCHEMA, orient="row")
    whole_run.stage(1, "pairs").write_shard(0, table.reverse())
    numbers = [int(card.pair_id) for card in collect_gallery(whole_run, 1)]
    assert numbers == [i * 60 // PAIRS_PER_ROUND for i in range(PAIRS_PER_ROUND)]


def test_thumbnails_are_small() -> None:
    data = io.BytesIO()
    Image.effect_noise((900, 600), 90).save(data, "PNG")
    url, tiny, problem = thumbnail({"bytes": data.getvalue(), "path": None})
    assert url is not None
    assert problem is None
    assert not tiny
    assert url.startswith("data:image/jpeg;base64,")
    with Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))) as small:
        assert small.size == (256, 171)


def test_seconds_prefer_the_summary(whole_run: Run) -> None:
    write_json(whole_run.round_folder(0) / "seconds.json", {"exam": 1.0})
    write_json(whole_run.round_folder(1) / "seconds.json", {"judge": 2.0})
    assert collect(whole_run).seconds == {0: {"exam": 1.0}, 1: {"judge": 2.0}}
    entry = {"round": 1, "members": {}, "panel_mean": None, "counts": {}, "seconds": {"judge": 5.0}}
    write_json(whole_run.folder / "summary.json", {"rounds": [entry]})
    assert collect(whole_run).seconds[1] == {"judge": 5.0}


def test_roles_decide_what_is_missing(new_run: NewRun, write: SimpleNamespace) -> None:
    senior = {"name": "senior", "answers": False, "judges": True, "learns": False}
    run = new_run(exam=None, members=[{"name": "ada"}, {"name": "ben"}, senior])
    write.questions(run)
    write.candidates(run)
    for member in ("ada", "ben"):
        run.stage(1, "candidates", member).finish()
    assert collect(run).pending == [
        "Round 1: not finished yet: judgments, rewards, pairs, training."
    ]
