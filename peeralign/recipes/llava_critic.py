"""Critic-guided DPO, as in LLaVA-Critic's section 4.3.

for each round:
    questions   = draw(pool)
    candidates  = the learner answers every question K times
    comparisons = every critic compares every two distinct answers, in both orders
    rewards     = r_i = sum_k a_ki - sum_l a_il
    pairs       = each question's best and worst answer
    learner     = trained on its pairs with DPO, against its own weights before

A critic is a member with judges = true: a senior one, or the learner itself (the paper's control).
Several learners are several independent runs on the same questions, with the same critics.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import polars as pl
from pydantic import Field, field_validator, model_validator

from peeralign.distributed import on_main
from peeralign.engines.base import Engine
from peeralign.errors import PeeralignError
from peeralign.panel import Member, Panel, check_panel
from peeralign.progress import Reporter
from peeralign.recipes.loop import Loop, LoopConfig, carry_out
from peeralign.recipes.seva import over_paper
from peeralign.records import CANDIDATE_SCHEMA, COMPARISON_SCHEMA, JUDGMENT_SCHEMA
from peeralign.stages.aggregate import AggregateConfig, aggregate
from peeralign.stages.compare import compare
from peeralign.stages.curate import CurateConfig, curate
from peeralign.stages.generate import GenerateConfig, check_sampler, distinct_answers
from peeralign.stages.judge import ONE_BY_ONE, JudgeConfig, judge, read_rubric
from peeralign.stages.preference_rewards import all_pairs, preference_rewards
from peeralign.store.run import Run
from peeralign.training.config import TrainConfig

# Section 5.2 and the released recipe.
PAPER_GENERATE: dict[str, Any] = {"num_draws": 5, "temperature": 0.7, "top_p": 0.9}
PAPER_TRAIN: dict[str, Any] = {
    "objective": "dpo",
    "beta": 0.1,
    "learning_rate": 5e-7,
    "epochs": 1,
}
# Below any reward: all pairs are kept.
PAPER_CURATE: dict[str, Any] = {"min_chosen_reward": -1000.0, "min_margin": 0.0}
RUBRICS = {"pairwise": "pairwise", "pointwise": "visual_chat"}


class LlavaCriticConfig(LoopConfig):
    """Settings of critic-guided DPO. Defaults are the paper's, also where a table is given in
    part."""

    rounds: int = Field(default=3, ge=1)
    """Rounds M, each from the weights of the last (paper: 3)."""
    questions_per_round: int = Field(default=9_400, ge=1)
    """Questions drawn from the pool each round (paper: 9,400 of LLaVA-RLHF)."""
    rewards: Literal["pairwise", "pointwise"] = "pairwise"
    """Where rewards come from: "pairwise" comparisons (paper), or "pointwise" scores."""
    generate: GenerateConfig = GenerateConfig(**PAPER_GENERATE)
    """How answers are drawn (paper: K = 5, temperature 0.7, top-p 0.9)."""
    judge: JudgeConfig = JudgeConfig(rubric=RUBRICS["pairwise"])
    """How critics judge; left out, the rubric is "pairwise", or "visual_chat" for pointwise."""
    aggregate: AggregateConfig = AggregateConfig()
    """How several critics' scores are merged, if rewards are pointwise."""
    curate: CurateConfig = CurateConfig(**PAPER_CURATE)
    """Which questions' best and worst answers are pairs (paper: all whose answers are not equal).
    Pairwise, winning against one answer in both orders is worth 1; pointwise, the scale is 1."""
    train: TrainConfig = TrainConfig(**PAPER_TRAIN)
    """How learners learn (paper: DPO, one epoch)."""

    @model_validator(mode="before")
    @classmethod
    def _usual_rubric(cls, value: Any) -> Any:
        if not isinstance(value, dict) or not isinstance(value.get("judge", {}), dict):
            return value
        rubric = RUBRICS.get(str(value.get("rewards", "pairwise")))
        return {
            **value,
            "judge": {**({"rubric": rubric} if rubric else {}), **value.get("judge", {})},
        }

    @field_validator("train", "generate", "curate", mode="before")
    @classmethod
    def _over_the_paper(cls, value: Any, info: Any) -> Any:
        papers = {"train": PAPER_TRAIN, "generate": PAPER_GENERATE, "curate": PAPER_CURATE}
        return over_paper(papers[info.field_name], value)


Config = LlavaCriticConfig


def run(
    config: LlavaCriticConfig, out: Path | str, reporter: Reporter | None = None
) -> dict[str, Any]:
    """Run, or resume, critic-guided DPO in the folder `out`. Returns the summary (summary.json).

    Processes of one launcher (torchrun) share the work. Raises PeeralignError for settings, pools,
    members or folders that cannot be used.
    """
    return carry_out(
        lambda state, shown: _Loop(config, state, shown),
        lambda: _check(config),
        config.rounds,
        out,
        reporter,
    )


def _check(config: LlavaCriticConfig) -> None:
    from peeralign.engines.opening import check_member

    check_panel(config.members, roles=("judges", "learns"))
    is_pairwise = config.rewards == "pairwise"
    read_rubric(config.judge, ("pairwise",) if is_pairwise else ONE_BY_ONE)
    if is_pairwise and config.aggregate != AggregateConfig():
        raise PeeralignError(
            "aggregate has no effect on pairwise rewards; leave it out, or set "
            'rewards = "pointwise"'
        )
    sampling = config.generate.sampling()
    if sampling.num_draws < 2 and sampling.beam is None:
        raise PeeralignError(
            "one answer to a question makes no pair; set generate.num_draws to 2 or more, and "
            'generate.sampler = "sampling"'
        )
    check_sampler(
        config.generate, [m.model_copy(update={"answers": m.learns}) for m in config.members]
    )
    panel = Panel(config.members)
    for learner in panel.learners:
        if not any(_may_judge(config, critic.name, learner.name) for critic in panel.judges):
            raise PeeralignError(
                f"nobody judges '{learner.name}' with judge.judges = \"{config.judge.judges}\"; "
                "set judges = true for another member, or change judge.judges"
            )
    for member in config.members:
        check_member(member)


def _may_judge(config: LlavaCriticConfig, critic: str, learner: str) -> bool:
    who = config.judge.judges
    return who == "all" or (critic == learner) == (who == "self")


class _Loop(Loop):
    """One run of critic-guided DPO."""

    def __init__(self, config: LlavaCriticConfig, state: Run, reporter: Reporter) -> None:
        super().__init__("llava_critic", config, state, reporter)
        self.config = config

    def round(self, number: int, panel: Panel) -> Panel:
        """One round: tables from questions to pairs, then new checkpoints."""
        config = self.config
        self.reporter.say(f"[bold]Round {number} of {config.rounds}[/bold]")
        self.draw(number, config.questions_per_round)
        self.answer(number, panel, config.generate)
        with self.clock(number, "judge"):
            for critic in panel.judges:
                self._criticise(number, panel, critic)
        return self.learn(
            number,
            panel,
            config.train,
            lambda member: self._lessons(number, panel, member),
        )

    def engine(self, member: Member) -> Engine:
        from peeralign.engines.opening import open_engine

        return open_engine(member, self.config.judge.min_label_mass)

    def _candidates(self, number: int, learner: Member) -> pl.DataFrame:
        return self.state.stage(number, "candidates", learner.name).read(CANDIDATE_SCHEMA)

    def _criticise(self, number: int, panel: Panel, critic: Member) -> None:
        """One critic's verdicts on every learner's answers; what two learners share is asked once.

        It is opened once for all learners.
        """
        config = self.config
        name = "comparisons" if config.rewards == "pairwise" else "judgments"
        if on_main(f"look for {name}", lambda: self.state.stage(number, name, critic.name).is_done):
            return
        own = [
            self._candidates(number, learner)
            for learner in panel.learners
            if _may_judge(config, critic.name, learner.name)
        ]
        shared = (
            Panel((critic,)),
            config.judge,
            self.engine,
            config.seed + number,
            self.reporter,
        )
        empty = pl.DataFrame(schema=CANDIDATE_SCHEMA)
        questions = self.questions(number)
        if config.rewards == "pairwise":
            pairs = pl.concat([all_pairs(distinct_answers(table)) for table in [*own, empty]])
            # Two learners may have written one answer with other spaces or capitals.
            pairs = pairs.unique(["first_id", "second_id"], keep="first", maintain_order=True)
            compare(lambda judge: self.state.stage(number, name, judge), questions, pairs, *shared)
        else:
            answers = distinct_answers(pl.concat([*own, empty]))
            judge(lambda judge: self.state.stage(number, name, judge), questions, answers, *shared)

    def _rewards(self, number: int, panel: Panel, learner: Member) -> pl.DataFrame:
        config = self.config
        candidates = self._candidates(number, learner)
        if config.rewards == "pointwise":
            judgments = self.state.table(number, "judgments", JUDGMENT_SCHEMA)
            questions = self.questions(number)
            return aggregate(
                candidates, judgments, config.aggregate, config.judge.judges, questions
            )
        critics = [c.name for c in panel.judges if _may_judge(config, c.name, learner.name)]
        comparisons = self.state.table(number, "comparisons", COMPARISON_SCHEMA)
        return preference_rewards(candidates, comparisons.filter(pl.col("judge").is_in(critics)))

    def _lessons(self, number: int, panel: Panel, member: Member) -> pl.DataFrame:
        """What the learner is trained on in a round."""

        def keep() -> None:
            if not self.state.stage(number, "pairs", member.name).is_done:
                self._make_pairs(number, panel, member)

        on_main("pairs", keep)
        return self.lessons(number, self.config.curate, self.config.train.keep_pairs, member.name)

    def _make_pairs(self, number: int, panel: Panel, member: Member) -> None:
        rewards = self._rewards(number, panel, member)
        pairs = curate(rewards, self.config.curate)
        scored = rewards.filter(pl.col("reward").is_not_null())["question_id"].n_unique()
        asked = len(self.questions(number))
        counts = {"equal": scored - len(pairs), "unscored": asked - scored}
        for name, table in (("rewards", rewards), ("pairs", pairs)):
            made = self.state.stage(number, name, member.name)
            made.write_shard(0, table)
            made.finish(rows=len(table), **(counts if name == "pairs" else {}))
        self.reporter.say(
            f"{member.name}: {len(pairs)} pairs; left out: {counts['equal']} questions whose "
            f"answers are worth the same or not enough, {counts['unscored']} without a verdict on "
            "any"
        )

    def counts(self, number: int) -> dict[str, int]:
        """Rows of the round's tables; unscored verdicts are of comparisons and judgments."""
        counts = super().counts(number)
        comparisons = self.state.table(number, "comparisons", COMPARISON_SCHEMA)
        unscored = int(comparisons["preference"].null_count())
        return {
            **counts,
            "comparisons": len(comparisons),
            "unscored": counts["unscored"] + unscored,
        }
