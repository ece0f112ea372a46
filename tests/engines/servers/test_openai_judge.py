"""Verdicts through a server: what is asked of it, what it may leave out, and what is made of it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from peeralign.engines.base import JudgeRequest
from peeralign.engines.openai import ServerEngine
from peeralign.errors import PeeralignError
from peeralign.judging.verdict import Form, Verdict

FORM = Form(("Good", "True"), (1, 5))
Open = Callable[..., ServerEngine]
REPLY = '{"Good": 4, "True": 2}'


def judged(*texts: str, image: Image.Image | None = None) -> JudgeRequest:
    shown = image or Image.fromarray(np.zeros((8, 8, 3), np.uint8))
    return JudgeRequest(shown, texts or ("grade it",), FORM)


def spelled(*tokens: tuple[str, dict[str, float]]) -> dict[str, Any]:
    """The log-probabilities of a reply: (token, its alternatives' probabilities)."""
    content = []
    for text, probs in tokens:
        listed = [{"token": t, "logprob": math.log(p)} for t, p in probs.items()]
        own = math.log(probs.get(text, 1.0))
        content.append({"token": text, "logprob": own, "top_logprobs": listed})
    return {"content": content}


def verdict_tokens(good: dict[str, float], true: dict[str, float]) -> dict[str, Any]:
    """REPLY as tokens, with alternatives where the scores stand."""
    return spelled(
        ('{"', {'{"': 1.0}),
        ('Good": ', {}),
        ("4", good),
        (', "True": ', {}),
        ("2", true),
        ("}", {}),
    )


LOGPROBS = verdict_tokens({"4": 0.6, "5": 0.3, "x": 0.1}, {"2": 0.5, "1": 0.5})


def test_a_text_verdict_is_asked_for_plainly(serve: Any, connect: Open, completion: Any) -> None:
    server = serve(lambda asked: completion(f"I say: {REPLY}"))
    requests = [judged("an <image>?", "two"), judged("three")]
    found = connect(server).judge(requests, "text")
    assert [len(row) for row in found] == [2, 1]
    assert found[1][0] == Verdict([4.0, 2.0], None, f"I say: {REPLY}")
    bodies = {asked.text: asked.body for asked in server.asked}
    assert set(bodies) == {"an <\u200bimage>?", "two", "three"}
    assert {k: v for k, v in bodies["two"].items() if k != "messages"} == {
        "model": "judge-7b",
        "temperature": 0.0,
        "max_tokens": 512,
    }


def test_verdicts_keep_their_places(serve: Any, connect: Open, completion: Any) -> None:
    def script(asked: Any) -> Any:
        reply = completion(FORM.write([int(asked.text), 3]))
        reply.after_seconds = 0.12 - 0.02 * int(asked.text)
        return reply

    server = serve(script)
    engine = connect(server, max_concurrency=2)
    found = engine.judge([judged("1", "2", "3"), judged("4"), judged("5")], "text")
    assert server.most_in_flight == 2
    assert [[v.axes for v in row] for row in found] == [
        [[1.0, 3.0], [2.0, 3.0], [3.0, 3.0]],
        [[4.0, 3.0]],
        [[5.0, 3.0]],
    ]


def test_an_image_is_encoded_once_for_all_its_texts(
    serve: Any, connect: Open, completion: Any, monkeypatch: Any
) -> None:
    image, encoded = Image.fromarray(np.zeros((8, 8, 3), np.uint8)), []
    save = image.save
    monkeypatch.setattr(image, "save", lambda *a, **k: (encoded.append(a), save(*a, **k)))
    server = serve(lambda asked: completion(REPLY))
    connect(server).judge([judged("a", "b", "c", image=image)], "text")
    assert (len(server.asked), len(encoded)) == (3, 1)


def test_greedy_and_expected_ask_for_the_schema_and_weigh_the_tokens(
    serve: Any, connect: Open, completion: Any
) -> None:
    server = serve(lambda asked: completion(REPLY, logprobs=LOGPROBS))
    engine = connect(server)
    (expected,) = engine.judge([judged()], "expected")[0]
    assert expected.axes == pytest.approx([(4 * 0.6 + 5 * 0.3) / 0.9, 1.5])
    assert expected.label_mass == pytest.approx(0.9)
    assert engine.judge([judged()], "greedy")[0][0].axes == [4.0, 2.0]
    body = server.asked[0].body
    assert body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "verdict", "strict": True, "schema": FORM.schema()},
    }
    assert (body["logprobs"], body["top_logprobs"]) == (True, 20)


def test_a_judge_that_hardly_thinks_of_scores_is_unscored(
    serve: Any, connect: Open, completion: Any
) -> None:
    unsure = verdict_tokens({"4": 0.2, "x": 0.8}, {"2": 1.0})
    engine = connect(serve(lambda asked: completion(REPLY, logprobs=unsure)))
    for readout in ("greedy", "expected"):
        (verdict,) = engine.judge([judged()], readout)[0]
        assert verdict.axes is None
        assert verdict.reason == "less than 0.5 of the probability lies on scores"
        assert (verdict.raw, verdict.label_mass) == (REPLY, pytest.approx(0.2))


NO_ALTERNATIVES = {"content": [{"token": REPLY, "logprob": -0.1, "top_logprobs": []}]}


@pytest.mark.parametrize("logprobs", [None, {}, {"content": None}, NO_ALTERNATIVES])
def test_without_logprobs_greedy_reads_the_reply_and_expected_stops(
    serve: Any, connect: Open, completion: Any, logprobs: Any
) -> None:
    server = serve(lambda asked: completion(f"Sure: {REPLY}", logprobs=logprobs))
    (verdict,) = connect(server).judge([judged()], "greedy")[0]
    assert (verdict.axes, verdict.label_mass) == ([4.0, 2.0], None)
    with pytest.raises(PeeralignError, match=r'no log-probabilities.*readout = "text" or "greedy"'):
        connect(server).judge([judged()], "expected")


def test_one_reply_without_logprobs_is_set_aside(
    serve: Any, connect: Open, completion: Any
) -> None:
    def script(asked: Any) -> Any:
        return completion(REPLY, logprobs=None if asked.text == "2" else LOGPROBS)

    engine = connect(serve(script), max_concurrency=1)
    first, second = engine.judge([judged("1", "2")], "expected")[0]
    assert first.axes is not None
    assert second == Verdict(None, "the reply came without its log-probabilities", REPLY)


@pytest.mark.parametrize("message", ["unknown field response_format", "bad request"])
def test_a_refused_response_format_is_given_up_for_good(
    serve: Any, connect: Open, completion: Any, told: Any, caplog: Any, message: str
) -> None:
    def script(asked: Any) -> Any:
        if "response_format" in asked.body:
            return told({"error": {"message": message}}, 400)
        return completion(REPLY, logprobs=LOGPROBS)

    server = serve(script)
    engine = connect(server, max_concurrency=1)
    found = engine.judge([judged("1"), judged("2"), judged("3")], "expected")
    assert all(row[0].axes for row in found)
    assert len(server.asked) == 4
    assert caplog.text.count("does not take response_format") == 1


def test_a_too_long_item_does_not_cost_the_others_their_schema(
    serve: Any, connect: Open, completion: Any, told: Any, caplog: Any
) -> None:
    def script(asked: Any) -> Any:
        if asked.text == "long":
            return told({"error": {"message": "maximum context length is 512 tokens"}}, 400)
        return completion(REPLY, logprobs=LOGPROBS)

    server = serve(script)
    engine = connect(server, max_concurrency=1)
    found = engine.judge([judged("long"), judged("short"), judged("long")], "greedy")
    assert [row[0].axes for row in found] == [None, [4.0, 2.0], None]
    assert found[0][0].reason == "status 400: maximum context length is 512 tokens"
    assert "response_format" in server.asked[2].body
    # Once the schema was taken, it is no more under suspicion.
    assert len(server.asked) == 4
    assert not caplog.text


def test_what_a_server_has_taken_is_not_given_up(
    serve: Any, connect: Open, completion: Any, told: Any, caplog: Any
) -> None:
    def script(asked: Any) -> Any:
        if asked.text == "odd":
            return told({"error": {"message": "no response_format, logprobs, seed here"}}, 400)
        return completion(REPLY, logprobs=LOGPROBS)

    server = serve(script)
    engine = connect(server, max_concurrency=1)
    engine.judge([judged("1"), judged("odd"), judged("3")], "expected")
    first, _, last = (set(asked.body) for asked in server.asked)
    assert first == last
    assert server.asked[2].body["top_logprobs"] == 20
    assert not caplog.text


def test_fewer_alternatives_are_asked_for_where_twenty_are_refused(
    serve: Any, connect: Open, completion: Any, told: Any
) -> None:
    def script(asked: Any) -> Any:
        if asked.body["top_logprobs"] > 5:
            return told({"error": "`top_n_tokens` must be >= 0 and <= 5"}, 422)
        return completion(REPLY, logprobs=LOGPROBS)

    server = serve(script)
    assert connect(server).judge([judged()], "expected")[0][0].axes
    assert [asked.body["top_logprobs"] for asked in server.asked] == [20, 5]


def test_a_server_that_refuses_logprobs_gives_none(
    serve: Any, connect: Open, completion: Any, told: Any
) -> None:
    def script(asked: Any) -> Any:
        if "logprobs" in asked.body:
            return told({"error": {"message": "logprobs are not available"}}, 400)
        return completion(REPLY)

    engine = connect(serve(script))
    assert engine.judge([judged()], "greedy")[0][0].axes == [4.0, 2.0]
    with pytest.raises(PeeralignError, match="gives no log-probabilities"):
        engine.judge([judged()], "expected")


def test_a_name_spread_over_tokens_is_put_together(
    serve: Any, connect: Open, completion: Any
) -> None:
    form = Form(("質",), (1, 5))
    raw = '{"質": 3}'
    pieces = [b'{"', "質".encode()[:2], "質".encode()[2:], b'": ', b"3", b"}"]
    content = [
        {
            "token": piece.decode(errors="replace"),
            "bytes": list(piece),
            "logprob": -0.1,
            "top_logprobs": [{"token": "3", "logprob": math.log(0.9)}] if piece == b"3" else [],
        }
        for piece in pieces
    ]
    server = serve(lambda asked: completion(raw, logprobs={"content": content}))
    (verdict,) = connect(server).judge([JudgeRequest(judged().image, ("x",), form)], "expected")[0]
    assert (verdict.axes, verdict.raw) == ([3.0], raw)


def test_a_failing_verdict_is_set_aside_and_a_cut_one_says_so(
    serve: Any, connect: Open, completion: Any, told: Any
) -> None:
    def script(asked: Any) -> Any:
        if asked.text == "down":
            return told("", 503, {"Retry-After": "0"})
        if asked.text == "cut":
            return completion(REPLY[:-4], finish_reason="length")
        return completion(json.dumps({"Good": 9, "True": 1}))

    down, cut, off = connect(serve(script)).judge([judged("down", "cut", "off")], "text")[0]
    assert down.reason is not None
    assert down.reason.startswith("status 503")
    assert cut.reason == "no JSON object in the reply; it was cut at 512 tokens"
    assert off.reason == "good is 9, not a whole number from 1 to 5"


def test_a_comparison_is_held_to_its_schema_and_weighed(
    serve: Any, connect: Open, completion: Any
) -> None:
    form = Form(("better",), (0, 1), choices=("A", "B", "tie"), reason="first")
    reply = '{"reason": "A is right, so B is not", "better": "A"}'
    logprobs = spelled(
        ('{"reason": "A is right, so B is not", "', {}),
        ("better", {}),
        ('": "', {}),
        ("A", {"A": 0.6, "B": 0.1, "tie": 0.2, "both": 0.1}),
        ('"}', {}),
    )
    server = serve(lambda asked: completion(reply, logprobs=logprobs))
    request = JudgeRequest(judged().image, ("compare",), form)
    (verdict,) = connect(server).judge([request], "expected")[0]
    assert verdict.axes == pytest.approx([(0.6 + 0.1) / 0.9])
    assert verdict.shares == pytest.approx([0.6 / 0.9, 0.1 / 0.9, 0.2 / 0.9])
    assert verdict.raw == reply
    schema = server.asked[0].body["response_format"]["json_schema"]["schema"]
    assert list(schema["properties"]) == ["reason", "better"]
    assert schema["properties"]["better"] == {"type": "string", "enum": ["A", "B", "tie"]}


def test_a_score_of_two_tokens_comes_through_in_text_alone(
    serve: Any, connect: Open, completion: Any
) -> None:
    form = Form(("score",), (0, 100), mark="Final score:", reason="first")
    reply, pieces = "Well seen. Final score: 85", ("Well seen. Final score: ", "8", "5")
    spelt = spelled(*((piece, {piece: 1.0}) for piece in pieces))
    server = serve(
        lambda asked: completion(reply, logprobs=spelt if "logprobs" in asked.body else None)
    )
    request = JudgeRequest(judged().image, ("rate",), form)
    engine = connect(server)
    assert engine.judge([request], "text")[0][0].axes == [85.0]
    assert "response_format" not in server.asked[0].body
    assert engine.judge([request], "greedy")[0][0].axes == [85.0]
    (verdict,) = engine.judge([request], "expected")[0]
    assert (verdict.axes, verdict.reason) == (None, "a score is not one token of the reply")


def test_a_reply_cut_within_its_reason_has_no_verdict(
    serve: Any, connect: Open, completion: Any
) -> None:
    form = Form(("score",), (0, 100), mark="Final score:", reason="first")
    server = serve(lambda asked: completion("It says 'Final score: 100'", finish_reason="length"))
    (verdict,) = connect(server).judge([JudgeRequest(judged().image, ("rate",), form)], "text")[0]
    assert verdict.axes is None
    assert "cut at 512 tokens" in str(verdict.reason)
