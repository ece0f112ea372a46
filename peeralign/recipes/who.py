"""Who takes part in an evaluation, and who may not grade it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from peeralign.errors import PeeralignError
from peeralign.panel import Member, check_panel, is_one_of
from peeralign.recipes.afterwards import panels_behind
from peeralign.recipes.together import Together


@dataclass(frozen=True)
class Who:
    """Who takes part in an evaluation."""

    members: tuple[Member, ...]
    """Who answers, each greedily."""
    judges: tuple[Member, ...] = ()
    """Who grades the benchmarks that need it."""
    rounds: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    """Of members that are rounds of a run: name -> (member, round)."""
    together: Together | None = None
    """A panel that answers as one too; its authors are the members."""

    def labels(self) -> list[str]:
        """Everybody with figures."""
        return [*(m.name for m in self.members), *(self.together.labels() if self.together else ())]

    def check(self, allow_self_judging: bool) -> list[str]:
        """Names of judges that grade themselves. Raises PeeralignError unless they may."""
        check_panel(_at_rest(self.members), ("answers",))
        names = self.labels()
        if doubled := sorted({name for name in names if names.count(name) > 1}):
            raise PeeralignError(f"a member cannot be named '{doubled[0]}' here; rename it")
        if self.judges:
            check_panel(_at_rest(self.judges), ("judges",))
        rewarding = panels_behind(self.members) if self.judges else ()
        panel = self.together.panel.members if self.together else ()
        barred = (*self.members, *panel, *rewarding)
        own = [judge.name for judge in self.judges if is_one_of(judge, barred)]
        if own and not allow_self_judging:
            raise PeeralignError(
                f"'{own[0]}' is evaluated here or rewarded a member's training, so it may not "
                "grade; name another with --judge, or allow it with --allow-self-judging, which "
                "marks the figures"
            )
        return own


def _at_rest(members: Sequence[Member]) -> tuple[Member, ...]:
    """The same, without the role that some cannot have and nobody has here."""
    return tuple(member.model_copy(update={"learns": False}) for member in members)
