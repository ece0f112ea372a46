"""Read a judge's scores without letting it write: the verdict's known text is fed.

Shapes: K branches (answers), V vocabulary, A axes, N labels of the scale.
"""

from __future__ import annotations

import torch
from torch import Tensor

from peeralign.chat import ChatFormat
from peeralign.engines.base import Readout
from peeralign.engines.branches import Branches
from peeralign.errors import PeeralignError
from peeralign.judging.verdict import Form, Verdict


class VerdictSkeleton:
    """The known text of a verdict as token ids: pieces[i] comes before the i-th axis score.

    Found by tokenising the verdict with every label on every axis and comparing, so it holds for
    any tokenizer. Raises PeeralignError where a score is not one token in a fixed place, or where a
    reason of unknown length comes before it.
    """

    def __init__(self, chat: ChatFormat, form: Form) -> None:
        if form.reason == "first":
            raise PeeralignError(
                "this rubric asks for the reason before the score, which the readouts 'greedy' and "
                "'expected' of a local judge cannot wait for; set judge.readout = \"text\", or "
                'reason = "after" in the rubric'
            )
        rows = [chat.text_ids(form.write([label] * len(form.axes))) for label in form.labels]
        places = [i for i, ids in enumerate(zip(*rows, strict=False)) if len(set(ids)) > 1]
        # Two labels of one token, as words a tokenizer does not know, could not be told apart.
        told_apart = all(len({row[place] for row in rows}) == len(rows) for place in places)
        if len({len(row) for row in rows}) > 1 or len(places) != len(form.axes) or not told_apart:
            raise PeeralignError(
                "this judge's tokenizer does not write every score as one token, so the readouts "
                "'greedy' and 'expected' cannot be used; set judge.readout = \"text\""
            )
        starts = [0, *(place + 1 for place in places)]
        self.form = form
        self.pieces = [rows[0][start:place] for start, place in zip(starts, places, strict=False)]
        self.label_ids = [[row[place] for row in rows] for place in places]

    @property
    def num_tokens(self) -> int:
        """Tokens fed for one verdict."""
        return sum(len(piece) + 1 for piece in self.pieces)


def read_scores(
    branches: Branches,
    logits_KV: Tensor,
    skeleton: VerdictSkeleton,
    readout: Readout,
    min_label_mass: float,
) -> list[Verdict]:
    """Verdicts of branches that stand before their first score, to which `logits_KV` belong.

    "greedy" takes the likeliest label, "expected" sum(s * p(s)) / sum(p(s)) over the labels, where
    s is the number that a label stands for (Form.values). Every next axis is read behind the
    likeliest labels of those before it. A verdict is unscored if on some axis less than
    `min_label_mass` of all probability lies on labels.
    """
    form = skeleton.form
    values_N = torch.tensor(form.values, dtype=torch.float32, device=logits_KV.device)
    expected_AK, mass_AK, best_AK = [], [], []
    shares_KN = logits_KV[:, :0]
    for axis, label_ids in enumerate(skeleton.label_ids):
        label_logits_KN = logits_KV[:, label_ids]
        # Not a softmax of everything: the vocabulary is wide, and only its sum is needed.
        log_total_K1 = logits_KV.logsumexp(dim=-1, keepdim=True)
        probs_KN = (label_logits_KN - log_total_K1).exp()
        mass_K = probs_KN.sum(dim=-1)
        best_K = label_logits_KN.argmax(dim=-1).tolist()
        best_AK.append(best_K)
        shares_KN = label_logits_KN.softmax(dim=-1)
        expected_AK.append((shares_KN @ values_N).tolist())
        mass_AK.append(mass_K.tolist())
        if axis + 1 < len(form.axes):
            piece = skeleton.pieces[axis + 1]
            logits_KV = branches.feed([[label_ids[best], *piece] for best in best_K])
    verdicts = []
    for place, (expected, masses, best) in enumerate(
        zip(
            zip(*expected_AK, strict=True),
            zip(*mass_AK, strict=True),
            zip(*best_AK, strict=True),
            strict=True,
        )
    ):
        raw = form.write([form.labels[number] for number in best])
        mass = min(masses)
        if not mass >= min_label_mass:
            reason = f"less than {min_label_mass:g} of the probability lies on scores"
            verdicts.append(Verdict(None, reason, raw, mass))
            continue
        axes = list(expected) if readout == "expected" else [form.values[number] for number in best]
        # A form with choices has one axis.
        shares = shares_KN[place].tolist() if form.choices else None
        verdicts.append(Verdict(axes, None, raw, mass, shares))
    return verdicts
