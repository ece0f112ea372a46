"""The local engine against plain `transformers`: answers and judgments per second, same outputs.

    .venv/bin/python benchmarks/engine.py [--size small|llava-7b] [--device cpu] [--repeats 5]

One model with LLaVA-1.5's geometry (576 image tokens, a rubric of about 300, questions of about 30,
answers of about 60), random weights. The peer does what its documentation shows: `generate` with
`num_return_sequences` for answers, one prompt an answer for judging, batched, its reply held to the
verdict's form by `prefix_allowed_tokens_fn`. Both sides are timed in turn, processors included. The
last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from engine_model import answers_for, build, questions
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from peeralign.engines.base import AnswerRequest, JudgeRequest, Sampling
from peeralign.engines.branches import _Model
from peeralign.engines.local import LocalEngine
from peeralign.engines.readout import VerdictSkeleton
from peeralign.judging.rubric import load_rubric

ANSWER_TOKENS = 60


class Peer:
    """`transformers` as its documentation shows it."""

    def __init__(self, engine: LocalEngine, batch_size: int) -> None:
        self.model, self.processor, self.engine = engine.model, engine.processor, engine
        self.batch_size = batch_size

    def inputs(self, texts: list[str], images: list[Image.Image]) -> dict[str, Any]:
        chats = [
            [
                {
                    "role": "user",
                    "content": [{"type": "image", "image": image}, {"type": "text", "text": text}],
                }
            ]
            for image, text in zip(images, texts, strict=True)
        ]
        batch = self.processor.apply_chat_template(
            chats,
            tokenize=True,
            return_dict=True,
            add_generation_prompt=True,
            processor_kwargs={"padding": True, "return_tensors": "pt"},
        )
        return dict(batch.to(self.model.device, self.model.dtype))

    @torch.inference_mode()
    def answer(self, request: AnswerRequest, num: int, sample: bool) -> list[str]:
        inputs = self.inputs([request.text], [request.image])
        options = {"temperature": 1.0, "top_k": 0, "num_return_sequences": num} if sample else {}
        ids = self.model.generate(
            **inputs, do_sample=sample, max_new_tokens=ANSWER_TOKENS, **options
        )
        new = ids[:, inputs["input_ids"].shape[1] :]
        return [text.strip() for text in self.processor.batch_decode(new, skip_special_tokens=True)]

    @torch.inference_mode()
    def judge(self, request: JudgeRequest, skeleton: VerdictSkeleton) -> list[list[float]]:
        form: list[list[int]] = []
        for piece, labels in zip(skeleton.pieces, skeleton.label_ids, strict=True):
            form += [*([token] for token in piece), labels]
        score_steps = [step for step, allowed in enumerate(form) if len(allowed) > 1]
        axes: list[list[float]] = []
        for start in range(0, len(request.texts), self.batch_size):
            texts = list(request.texts[start : start + self.batch_size])
            inputs = self.inputs(texts, [request.image] * len(texts))
            width = inputs["input_ids"].shape[1]
            found = self.model.generate(
                **inputs,
                do_sample=False,
                max_new_tokens=len(form),
                prefix_allowed_tokens_fn=lambda _, ids, width=width: form[len(ids) - width],
                output_logits=True,
                return_dict_in_generate=True,
            )
            values = torch.tensor(request.form.labels, dtype=torch.float32)
            means = [
                found.logits[step].float().cpu()[:, labels].softmax(dim=-1) @ values
                for step, labels in zip(score_steps, skeleton.label_ids, strict=True)
            ]
            axes += torch.stack(means, dim=1).tolist()
        return axes


def timed(call: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    start = time.perf_counter()
    result = call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start, result


def flops_of(call: Callable[[], Any]) -> float:
    counter = FlopCounterMode(display=False)
    with counter:
        call()
    return float(counter.get_total_flops())


def peak_flops(engine: LocalEngine) -> float:
    """FLOP/s of one large matrix product in the model's precision: the machine's ceiling."""
    left, right = (
        torch.randn(2048, 2048, device=engine.device, dtype=engine.model.dtype) for _ in range(2)
    )
    seconds = [timed(lambda: left @ right, engine.device)[0] for _ in range(12)]
    return 2 * 2048**3 / min(seconds)


def parts_of(engine: LocalEngine, call: Callable[[], Any]) -> dict[str, float]:
    """Seconds of one call in the processor, in prompts, in continuations, and elsewhere."""
    spent = {"processor": 0.0, "prompts": 0.0, "continuations": 0.0}

    def watch(owner: Any, name: str, part: str) -> Callable[[], None]:
        real = getattr(owner, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            seconds, result = timed(lambda: real(*args, **kwargs), engine.device)
            spent[part] += seconds
            return result

        setattr(owner, name, watched)
        return lambda: setattr(owner, name, real)

    undo = [
        watch(engine, "_encode", "processor"),
        watch(_Model, "prefill", "prompts"),
        watch(_Model, "step", "continuations"),
    ]
    total, _ = timed(call, engine.device)
    for restore in undo:
        restore()
    return {**spent, "elsewhere": total - sum(spent.values())}


def compare(
    name: str,
    ours: Callable[[], Any],
    theirs: Callable[[], Any],
    engine: LocalEngine,
    repeats: int,
    items: int,
) -> tuple[float, Any, Any]:
    """(median ratio of seconds, our result, theirs); prints where the time goes."""
    seconds: list[tuple[float, float]] = []
    found = expected = None
    for _ in range(repeats):
        own, found = timed(ours, engine.device)
        other, expected = timed(theirs, engine.device)
        seconds.append((own, other))
        print(f"{name}: {own:.2f} s against {other:.2f} s, {other / own:.2f}x", flush=True)
    own, other = (statistics.median(column) for column in zip(*seconds, strict=True))
    ratios = [theirs_s / ours_s for ours_s, theirs_s in seconds]
    floor, floor_other = flops_of(ours), flops_of(theirs)
    ceiling = peak_flops(engine)
    hourly = f"{items / own * 3600:,.0f} questions an hour against {items / other * 3600:,.0f}"
    print(
        f"{name}: median {statistics.median(ratios):.2f}x (from {min(ratios):.2f} to "
        f"{max(ratios):.2f}); {hourly}\n"
        f"{name}: {floor / 1e9:,.0f} GFLOP against {floor_other / 1e9:,.0f} "
        f"({floor_other / floor:.2f}x); at {ceiling / 1e9:,.0f} GFLOP/s of one large product ours "
        f"would take {floor / ceiling:.2f} s, so it runs at {floor / ceiling / own:.0%} of that; "
        f"theirs at {floor_other / ceiling / other:.0%}"
    )
    parts = ", ".join(f"{part} {s:.2f} s" for part, s in parts_of(engine, ours).items())
    print(f"{name}: {parts}", flush=True)
    return statistics.median(ratios), found, expected


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", choices=["small", "llava-7b"], default="small")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--questions", type=int, default=2)
    parser.add_argument("--draws", type=int, default=15)
    parser.add_argument("--members", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peer-batch", type=int, default=15, help="the peer's prompts a batch")
    parser.add_argument("--memory-gib", type=float, default=None)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder), args.size)
        engine = LocalEngine(folder, args.device, args.dtype, args.memory_gib, min_label_mass=0.0)
    assert engine.shares_prefix
    peer = Peer(engine, args.peer_batch)
    rubric = load_rubric("five_axis")
    asked, graded = [], []
    for number, (image, text) in enumerate(questions(args.questions)):
        seeds = tuple(range(100 * number, 100 * number + args.draws))
        asked.append(AnswerRequest(image, text, seeds))
        texts = rubric.fill(text, answers_for(number, args.draws * args.members))
        graded.append(JudgeRequest(image, tuple(texts), rubric.form()))
    report_sizes(engine, asked[0], graded[0])

    sampling = Sampling(args.draws, 1.0, 1.0, ANSWER_TOKENS)
    skeleton = VerdictSkeleton(engine.chat, rubric.form())
    generation, _, _ = compare(
        "generation",
        lambda: engine.answer(asked, sampling),
        lambda: [peer.answer(request, args.draws, True) for request in asked],
        engine,
        args.repeats,
        len(asked),
    )
    judging, verdicts, expected = compare(
        "judging",
        lambda: engine.judge(graded, "expected"),
        lambda: [peer.judge(request, skeleton) for request in graded],
        engine,
        args.repeats,
        len(graded),
    )
    differences = [
        abs(own - other)
        for question, theirs in zip(verdicts, expected, strict=True)
        for verdict, axes in zip(question, theirs, strict=True)
        for own, other in zip(verdict.axes, axes, strict=True)
    ]
    greedy = engine.answer(asked, Sampling(1, 0.0, 1.0, ANSWER_TOKENS))
    texts_equal = [draws[0].text or "" for draws in greedy] == [
        peer.answer(request, 1, False)[0] for request in asked
    ]
    result = {
        "judging_speedup": round(judging, 2),
        "generation_speedup": round(generation, 2),
        "max_score_difference": float(f"{max(differences):.2g}"),
        "texts_equal": texts_equal,
    }
    if engine.device.type == "cuda":
        print(f"peak memory {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")
    print(json.dumps(result))


def report_sizes(engine: LocalEngine, asked: AnswerRequest, graded: JudgeRequest) -> None:
    chat, parameters = engine.chat, sum(p.numel() for p in engine.model.parameters())
    prompt = chat.encode([chat.prompt(asked.text)], [asked.image])["input_ids"]
    print(
        f"{parameters / 1e6:,.0f}M parameters, {engine.model.dtype} on {engine.device}, "
        f"{torch.get_num_threads()} threads; question prompt {prompt.shape[1]} tokens, "
        f"judge prompts {', '.join(str(len(chat.text_ids(t))) for t in graded.texts[:4])}, ... "
        f"tokens and the image's; {len(graded.texts)} answers a question"
    )


if __name__ == "__main__":
    main()
