"""One row of preference data, in any of the public layouts, as a question and its answers.

A turn is a text, ``{"role", "content"}`` with text or parts, or ``{"from", "value"}``; the question
stands in the prompt or is the first turn of both answers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from peeralign.escape import without_surrogates
from peeralign.records import normalise_answer

# A row of more is broken data rather than a choice: all its answers go through the model at once.
MAX_REJECTED = 64
# Where LLaVA's instruction data marks the place of the image in a question.
IMAGE_MARK = "<image>"
QUESTION_COLUMNS = ("question", "prompt", "conversations")
_ROLES = {"human": "user", "gpt": "assistant"}


class Unusable(Exception):
    """A row that cannot be learnt from. It is set aside with this reason, ``kind: detail``."""

    def __init__(self, kind: str, detail: str = "") -> None:
        detail = " ".join(without_surrogates(detail[:200]).split())
        super().__init__(f"{kind}: {detail}" if detail else kind)


@dataclass(frozen=True, slots=True)
class _Turn:
    role: str
    text: str
    # Of a turn that is written twice, often only one copy names the image.
    num_images: int = field(default=0, compare=False)


def read_exchange(row: dict[str, Any]) -> tuple[str, str, list[str]]:
    """The row's question, its chosen answer and its rejected answers, none equal to the chosen.

    Raises Unusable where it has none or is no single exchange.
    """
    if row.get("chosen") is None and row.get("rejected") is None and row.get("text") is not None:
        row = _from_text(row["text"])
    prompts = (row.get(name) for name in QUESTION_COLUMNS)
    prompt = next((prompt for prompt in prompts if prompt is not None), None)
    shared = None if prompt is None else _turns(prompt, "user", "question")
    chosen_answers = _alternatives(row.get("chosen"), "chosen")
    if len(chosen_answers) > 1:
        raise Unusable("several chosen answers")
    question, chosen = _exchange(shared, chosen_answers[0], "chosen")
    seen = {normalise_answer(chosen)}
    rejected = []
    for alternative in _alternatives(row.get("rejected"), "rejected"):
        asked, answer = _exchange(shared, alternative, "rejected")
        if asked != question:
            raise Unusable("chosen and rejected answer different questions")
        normal = normalise_answer(answer)
        if normal not in seen:
            seen.add(normal)
            rejected.append(answer)
    if not rejected:
        raise Unusable("no rejected answer differs from the chosen one")
    return question, chosen, rejected


def read_text(value: Any, what: str, role: str = "assistant") -> str:
    """One text of a row: a question (role "user") or an answer, bare or as the only turn.

    Raises Unusable where there is none.
    """
    turns = _turns(value, role, what)
    if [turn.role for turn in turns] != [role]:
        raise Unusable(f"the {what} is no single turn")
    if role == "user":
        return _question(turns[0])
    if turns[0].num_images:
        raise Unusable(f"the {what} holds an image")
    if not turns[0].text.strip():
        raise Unusable(f"no {what}")
    return turns[0].text


def _from_text(text: Any) -> dict[str, Any]:
    """RLHF-V's one column: an object {question, chosen, rejected}, or its JSON."""
    if isinstance(text, str):
        try:
            text = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise Unusable("text is no JSON object") from error
    if not isinstance(text, dict):
        raise Unusable("text is no JSON object")
    return text


def _alternatives(value: Any, what: str) -> list[Any]:
    """The answers of a column: one text, one conversation, or a list of either."""
    if value is None or value == []:
        raise Unusable(f"no {what} answer")
    if not isinstance(value, list) or all(isinstance(turn, dict) for turn in value):
        return [value]
    if len(value) > MAX_REJECTED:
        raise Unusable(f"too many {what} answers", f"{len(value)}, at most {MAX_REJECTED}")
    return value


def _exchange(shared: list[_Turn] | None, answer: Any, what: str) -> tuple[str, str]:
    turns = _turns(answer, "assistant", f"{what} answer")
    if turns[0].role == "assistant":
        turns = [*(shared or []), *turns]
    elif shared is not None and turns[: len(shared)] != shared:
        raise Unusable(f"the prompt is not how the {what} conversation begins")
    roles = [turn.role for turn in turns]
    if roles[0] == "assistant" and len(roles) == 1:
        raise Unusable("no question")
    if "system" in roles:
        raise Unusable("a system message")
    if roles.count("user") > 1:
        raise Unusable("several user turns")
    if roles != ["user", "assistant"]:
        raise Unusable("turns out of order", ", ".join(roles[:10]))
    if turns[1].num_images:
        raise Unusable("an answer that holds an image")
    if not turns[1].text.strip():
        raise Unusable(f"no {what} answer")
    return _question(turns[0]), turns[1].text


def _question(turn: _Turn) -> str:
    marks = turn.text.count(IMAGE_MARK)
    if marks > 1 or turn.num_images > 1:
        raise Unusable("several images")
    text = turn.text
    if marks:
        text = text.strip().removeprefix(IMAGE_MARK).removesuffix(IMAGE_MARK).strip()
        if IMAGE_MARK in text:
            raise Unusable("an image inside the question's text")
    if not text.strip():
        raise Unusable("no question")
    return text


def _turns(value: Any, role: str, what: str) -> list[_Turn]:
    if isinstance(value, str):
        return [_Turn(role, without_surrogates(value))]
    messages = [value] if isinstance(value, dict) else value
    if messages is None or messages == []:
        raise Unusable(f"no {what}")
    if not isinstance(messages, list) or not all(isinstance(turn, dict) for turn in messages):
        raise Unusable(f"the {what} is neither text nor a conversation")
    return [_turn(message, what) for message in messages]


def _turn(message: dict[str, Any], what: str) -> _Turn:
    role = message.get("role") or message.get("from")
    content = message.get("content") if message.get("role") else message.get("value")
    if not isinstance(role, str):
        raise Unusable(f"a turn of the {what} has no role")
    texts, num_images = [], 0
    for part in content if isinstance(content, list) else [content]:
        kind = part.get("type") if isinstance(part, dict) else "text"
        text = part.get("text") if isinstance(part, dict) else part
        if kind == "image":
            num_images += 1
        elif kind == "text" and isinstance(text, str | None):
            texts.append(text or "")
        else:
            raise Unusable(f"a part of the {what} is neither text nor an image")
    return _Turn(_ROLES.get(role, role), without_surrogates("".join(texts)), num_images)
