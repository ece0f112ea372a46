"""Trees: the shared-prefix layout computes what one row an answer computes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from peeralign.chat import ChatFormat
from peeralign.images.load import open_image
from peeralign.stages.train import demonstration_tree
from peeralign.training.tree import ROLES, Branch, Tree, TreeBatch, TreeCollator, answer_logps

ARCHITECTURES = ["llama", "mistral", "qwen2"]


@pytest.fixture(scope="module")
def trees(chat: ChatFormat, scenes: list[dict[str, Any]]) -> list[Tree]:
    """A pair, a demonstration with prompts in its branches, an anchor, a pair of long answers."""

    def asked(place: int, *branches: Branch) -> Tree:
        scene = scenes[place]
        return Tree(scene["image"], chat.prompt(scene["question"]), branches)

    exchanges = [
        {"prompt": "what colour is the circle?", "response": "red"},
        {"prompt": "how many squares?", "response": "2"},
        {"prompt": "describe the image.", "response": "red circle blank 4 blank blue cross"},
    ]
    return [
        asked(0, Branch("", "red", "chosen"), Branch("", "green blue", "rejected")),
        demonstration_tree(chat, {"image": scenes[1]["image"], "exchanges": exchanges}),
        asked(2, Branch("", "circle", "chosen")),
        asked(3, Branch("", "one two three four", "chosen"), Branch("", "x" * 20, "rejected")),
    ]


def collator(chat: ChatFormat, share_prefix: bool, max_tokens: int = 512) -> TreeCollator:
    return TreeCollator(chat, open_image, max_tokens, share_prefix)


def logps(model: Any, batch: TreeBatch, keep_logits: bool = True) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        return answer_logps(model, batch, keep_logits)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_answer_s_log_probability_is_that_of_a_plain_forward(
    untrained: dict[str, Any], chat: ChatFormat, scenes: list[dict[str, Any]], architecture: str
) -> None:
    model = untrained[architecture]
    prompt = chat.prompt(scenes[0]["question"])
    responses = ["red", "green blue circle"]
    branches = tuple(Branch("", text, "demonstration") for text in responses)
    tree = Tree(scenes[0]["image"], prompt, branches)
    inputs = chat.encode([prompt], [open_image(scenes[0]["image"])])
    for share in (True, False):
        logp_A, length_A = logps(model, collator(chat, share)([tree]))
        for answer, text in enumerate(responses):
            ids = [*chat.text_ids(text), chat.tokenizer.eos_token_id]
            row = torch.cat([inputs["input_ids"], torch.tensor([ids])], dim=1)
            with torch.no_grad():
                logits = model(input_ids=row, pixel_values=inputs["pixel_values"]).logits[0]
            logprobs = logits.log_softmax(dim=-1)
            start = inputs["input_ids"].shape[1]
            by_hand = sum(float(logprobs[start + n - 1, token]) for n, token in enumerate(ids))
            assert length_A[answer] == len(ids)
            assert logp_A[answer].item() == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_sharing_the_prefix_changes_no_log_probability(
    untrained: dict[str, Any], chat: ChatFormat, trees: list[Tree], architecture: str
) -> None:
    model = untrained[architecture]
    shared = logps(model, collator(chat, True)(trees))
    plain = logps(model, collator(chat, False)(trees))
    assert torch.equal(shared[1], plain[1])
    torch.testing.assert_close(shared[0], plain[0], rtol=1e-5, atol=0)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_sharing_the_prefix_changes_no_gradient(
    untrained: dict[str, Any], chat: ChatFormat, trees: list[Tree], architecture: str
) -> None:
    model = untrained[architecture]
    gradients = []
    for share in (True, False):
        model.zero_grad()
        logp_A, length_A = answer_logps(model, collator(chat, share)(trees), True)
        # Every answer has a weight of its own, so no difference can cancel.
        weight_A = torch.arange(1.0, len(logp_A) + 1)
        (weight_A * logp_A / length_A).sum().backward()
        gradients.append(
            {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        )
    model.zero_grad()
    shared, plain = gradients
    assert shared.keys() == plain.keys()
    largest = max(float(gradient.norm()) for gradient in plain.values())
    for name, gradient in plain.items():
        # Some gradients are zero in exact arithmetic (a bias of the attention's keys): rounding.
        scale = max(float(gradient.norm()), 1e-3 * largest)
        assert float((shared[name] - gradient).norm()) <= 1e-4 * scale, name


@pytest.mark.parametrize("share", [True, False])
def test_computing_only_the_needed_logits_changes_nothing(
    untrained: dict[str, Any], chat: ChatFormat, trees: list[Tree], share: bool
) -> None:
    batch = collator(chat, share)(trees)
    some, every = (logps(untrained["llama"], batch, keep)[0] for keep in (True, False))
    torch.testing.assert_close(some, every, rtol=1e-5, atol=0)


@pytest.mark.parametrize("share", [True, False])
def test_the_order_of_the_branches_does_not_matter(
    untrained: dict[str, Any], chat: ChatFormat, trees: list[Tree], share: bool
) -> None:
    collate = collator(chat, share)
    tree = trees[1]
    expected = logps(untrained["qwen2"], collate([tree]))[0]
    for order in ([2, 1, 0], [1, 0, 2]):
        turned = replace(tree, branches=tuple(tree.branches[place] for place in order))
        found = logps(untrained["qwen2"], collate([turned]))[0]
        torch.testing.assert_close(found, expected[order], rtol=1e-5, atol=0)


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_rest_of_the_batch_does_not_matter(
    untrained: dict[str, Any],
    chat: ChatFormat,
    trees: list[Tree],
    architecture: str,
    share: bool,
) -> None:
    model, collate = untrained[architecture], collator(chat, share)
    for batch in (trees, trees[::-1]):
        together = logps(model, collate(batch))[0]
        alone = torch.cat([logps(model, collate([tree]))[0] for tree in batch])
        torch.testing.assert_close(together, alone, rtol=1e-5, atol=0)


@pytest.mark.parametrize("share", [True, False])
def test_only_responses_are_learnt(chat: ChatFormat, trees: list[Tree], share: bool) -> None:
    batch = collator(chat, share)(trees)
    answers = [branch for tree in trees for branch in tree.branches]
    for number, branch in enumerate(answers):
        ids = batch.token_id_S[batch.token_answer_S == number].tolist()
        assert ids == chat.response_ids(branch.response)
    assert [ROLES[role] for role in batch.role_A.tolist()] == [b.role for b in answers]
    assert batch.tree_A.tolist() == [0, 0, 1, 1, 1, 2, 3, 3]
    rows = 4 if share else 8
    assert batch.model_inputs["input_ids"].shape[0] == rows
    assert batch.model_inputs["pixel_values"].shape[0] == rows


def test_every_token_is_predicted_from_the_column_before_it(
    chat: ChatFormat, trees: list[Tree]
) -> None:
    batch = collator(chat, True)(trees)
    ids_BT = batch.model_inputs["input_ids"]
    positions_BT = batch.model_inputs["position_ids"]
    mask_BTT = batch.model_inputs["attention_mask"][:, 0] == 0
    for row, source, token in zip(
        batch.token_row_S.tolist(),
        batch.source_column_S.tolist(),
        batch.token_id_S.tolist(),
        strict=True,
    ):
        # The next position after the source, among the columns that see it, is the token itself.
        after = mask_BTT[row, :, source] & (positions_BT[row] == positions_BT[row, source] + 1)
        assert token in ids_BT[row, after].tolist()


def test_a_prefix_is_computed_once(chat: ChatFormat, trees: list[Tree]) -> None:
    batch = collator(chat, True)([trees[3]])
    prefix = len(chat.encode([trees[3].prefix], [open_image(trees[3].image)])["input_ids"][0])
    tails = sum(len(chat.response_ids(branch.response)) for branch in trees[3].branches)
    assert batch.model_inputs["input_ids"].shape == (1, prefix + tails)
    assert batch.num_prefix_columns == prefix


@pytest.mark.parametrize("share", [True, False])
def test_long_answers_are_cut(
    untrained: dict[str, Any], chat: ChatFormat, trees: list[Tree], share: bool
) -> None:
    tree = trees[3]
    prefix = len(chat.encode([tree.prefix], [open_image(tree.image)])["input_ids"][0])
    batch = collator(chat, share, max_tokens=prefix + 3)([tree])
    whole = collator(chat, share)([tree])
    for answer in range(2):
        ids = whole.token_id_S[whole.token_answer_S == answer].tolist()
        assert len(ids) > 3
        assert batch.token_id_S[batch.token_answer_S == answer].tolist() == ids[:3]
    assert logps(untrained["llama"], batch)[1].tolist() == [3.0, 3.0]


def test_answers_are_cut_alike_in_every_batch(chat: ChatFormat, trees: list[Tree]) -> None:
    """How much is left for an answer depends on its own prompt, not on its neighbours'."""
    tree = trees[3]
    longer = replace(trees[0], prefix=chat.prompt("red " * 30))
    room = 6
    prefix = len(chat.encode([tree.prefix], [open_image(tree.image)])["input_ids"][0])
    collate = collator(chat, True, max_tokens=prefix + room)
    batch = collate([tree, longer])
    assert int((batch.token_answer_S == 1).sum()) == room
