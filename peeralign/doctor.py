"""`peeralign doctor`: will a run work here, and will it work with this model?

Every check is one line: ok, warn (a run works, with the drawback named) or fail (it does not), and
what to do about it.
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
import platform
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from peeralign.errors import PeeralignError
from peeralign.judging.rubric import Rubric, load_rubric
from peeralign.panel import Member

if TYPE_CHECKING:
    from PIL import Image

    from peeralign.engines.local import LocalEngine

GIB = 2**30
LOW_DISK_BYTES = 2 * GIB
# While a member learns, up to three of its checkpoints exist (two are kept, a third is written),
# each with float32 weights and Adam's two moments; then the final weights.
TRAINING_BYTES_PER_PARAMETER = 3 * 12 + 4
IMPORT_LIMIT_SECONDS = 180
QUESTION = "what colour is the circle?"
# package -> what it adds
OPTIONAL = {
    "tensorboard": "curves of the training",
    "peft": "training with LoRA",
    "torchvision": "the processors of some families (Qwen-VL, InternVL, Pixtral, SmolVLM)",
}
STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


class Findings:
    """Prints findings as they are made, and counts them."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.counts = dict.fromkeys(STYLES, 0)

    def begin(self, title: str) -> None:
        self.console.print(Text(f"\n{title}", style="bold"))

    def _add(self, level: str, what: str, said: str) -> None:
        self.counts[level] += 1
        # One line a finding, whatever is in an error or an answer.
        line = " ".join(said.split())
        self.console.print(Text.assemble((f"  {level:<6}", STYLES[level]), f"{what:<17} {line}"))

    def ok(self, what: str, said: str) -> None:
        self._add("ok", what, said)

    def warn(self, what: str, said: str) -> None:
        self._add("warn", what, said)

    def fail(self, what: str, said: str) -> None:
        self._add("fail", what, said)


def examine(members: list[str], rubric: str, trust_remote_code: bool, console: Console) -> bool:
    """Check this machine, then each member (folder, hub name or "classroom:NAME").

    Returns whether nothing failed. Raises PeeralignError if there is no such rubric.
    """
    asked = load_rubric(rubric)
    findings = Findings(console)
    findings.begin("Packages")
    check_packages(findings)
    usable = check_imports(findings)
    findings.begin("Machine")
    check_machine(findings, members)
    if usable:
        check_devices(findings)
    for member in members:
        findings.begin(f"Member {member}")
        if usable:
            check_member(findings, member, asked, trust_remote_code)
        else:
            findings.fail("not tried", "mend what failed under Packages first")
    warned, failed = findings.counts["warn"], findings.counts["fail"]
    verdict = f"{failed} failed" if failed else "all right"
    console.print(f"\n{verdict}, {warned} to know about" if warned else f"\n{verdict}")
    return failed == 0


def check_packages(findings: Findings) -> None:
    """Python and every package peeralign needs, against the bounds its own metadata states."""
    try:
        from packaging.requirements import Requirement
        from packaging.specifiers import SpecifierSet

        own = metadata.metadata("peeralign")
        stated = [Requirement(text) for text in metadata.requires("peeralign") or []]
    except metadata.PackageNotFoundError:
        findings.warn("peeralign", "not installed, so no version is checked; pip install peeralign")
        return
    except ImportError:
        findings.fail("packaging", "not installed; pip install packaging")
        return
    python, wanted = platform.python_version(), own["Requires-Python"]
    if SpecifierSet(wanted).contains(python, prereleases=True):
        findings.ok("Python", python)
    else:
        findings.fail("Python", f"{python}, but peeralign needs {wanted}; use a newer Python")
    fitting = [f"peeralign {own['Version']}"]
    for needed in stated:
        if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
            continue
        found = _version(needed.name)
        if found is None:
            findings.fail(needed.name, f"not installed; pip install '{needed}'")
        elif not needed.specifier.contains(found, prereleases=True):
            findings.fail(needed.name, f"{found}, not {needed.specifier}; pip install '{needed}'")
        else:
            fitting.append(f"{needed.name} {found}")
    findings.ok("needed", ", ".join(fitting))
    for name, use in OPTIONAL.items():
        found = _version(name)
        findings.ok(name, found or f"not installed; it is optional and adds {use}")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def check_imports(findings: Findings) -> bool:
    """Whether torch and transformers import, and torchvision, where there is one, fits torch."""
    problem = _import_problem("import torch, transformers")
    if problem:
        findings.fail(
            "import", f"torch and transformers do not import ({problem}); install them anew"
        )
        return False
    if importlib.util.find_spec("torchvision") is None:
        return True
    problem = _import_problem("import torch, torchvision")
    if problem:
        findings.fail(
            "torchvision",
            f"{_version('torchvision') or 'the one installed'} does not fit torch "
            f"{_version('torch')} ({problem}), and then no vision-language model loads: "
            "pip uninstall torchvision, or install the build that matches this torch",
        )
        return False
    findings.ok("torchvision", "fits this torch")
    return True


def _import_problem(statement: str) -> str | None:
    """Why `statement` fails in a new interpreter with this one's path; None if it does not.

    In a process of its own, because a failed import leaves half a package behind.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", statement],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            timeout=IMPORT_LIMIT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return f"no end after {IMPORT_LIMIT_SECONDS} s"
    if done.returncode == 0:
        return None
    lines = done.stderr.strip().split("\n")
    return lines[-1] or f"exit code {done.returncode}"


def check_machine(findings: Findings, members: list[str]) -> None:
    """Cores and threads, disk, and the hub."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cores = cores or 1
    threads = os.environ.get("OMP_NUM_THREADS")
    if threads is None:
        findings.ok("CPU", f"{cores} cores; OMP_NUM_THREADS is not set, so torch decides")
    elif not threads.isdecimal() or not int(threads):
        findings.warn("CPU", f"OMP_NUM_THREADS={threads} is no number; set one up to {cores}")
    elif int(threads) > cores:
        findings.warn(
            "CPU",
            f"OMP_NUM_THREADS={threads} for {cores} cores makes them wait for each other; "
            f"set it to {cores}",
        )
    else:
        findings.ok("CPU", f"{cores} cores, OMP_NUM_THREADS={threads}")
    free = shutil.disk_usage(Path.cwd()).free
    if free < LOW_DISK_BYTES:
        findings.warn("disk", f"{_size(free)} free here; give --out a folder on a larger disk")
    else:
        findings.ok("disk", f"{_size(free)} free here")
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    hub_names = [name for name in members if _from_hub(name)]
    if offline and hub_names:
        findings.warn(
            "hub",
            f"HF_HUB_OFFLINE is set: {', '.join(hub_names)} loads only if it is in the cache; "
            "unset it to download",
        )
    elif offline:
        findings.ok("hub", "HF_HUB_OFFLINE is set: hub names load from the cache only")


def _from_hub(member: str) -> bool:
    return not member.startswith("classroom:") and not Path(member).is_dir()


def _size(num_bytes: float) -> str:
    if num_bytes < GIB / 10:
        return f"{num_bytes / 2**20:.1f} MiB"
    return f"{num_bytes / GIB:.1f} GiB"


def check_devices(findings: Findings) -> None:
    """What torch can compute on."""
    import torch

    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        findings.ok(f"cuda:{index}", f"{device.name}, {_size(device.total_memory)}")
    if torch.backends.mps.is_available():
        findings.ok("mps", "Apple's GPU")
    if not torch.cuda.is_available() and not torch.backends.mps.is_available():
        threads = torch.get_num_threads()
        findings.ok("device", f"no GPU; torch computes on the CPU, threads: {threads}")


def check_member(findings: Findings, name: str, rubric: Rubric, trust_remote_code: bool) -> None:
    """Load one member, and let it answer, judge, and compute a training loss."""
    from peeralign.engines.local import LocalEngine

    try:
        checkpoint = Member(name="x", model=name).checkpoint()
        engine = LocalEngine(checkpoint, trust_remote_code=trust_remote_code)
    except Exception as error:  # a stranger's checkpoint can raise anything; this says what
        _explain_load(findings, name, error)
        return
    try:
        _describe(findings, engine)
        for what, check in (
            ("answers", lambda: _check_answer(findings, engine)),
            ("judges", lambda: _check_judge(findings, engine, rubric)),
            ("learns", lambda: _check_prefix(findings, engine)),
        ):
            try:
                check()
            except Exception as error:  # as above: one thing that fails does not hide the next
                findings.fail(what, _named(error))
    finally:
        engine.close()


def _named(error: Exception) -> str:
    if isinstance(error, PeeralignError):
        return str(error)
    return f"{type(error).__name__}: {str(error)[:300]}"


def _explain_load(findings: Findings, name: str, error: Exception) -> None:
    if "torchvision" not in str(error.__cause__).casefold():
        findings.fail("loads", _named(error))
        return
    config = Path(name) / "config.json"
    family = "this model"
    if config.is_file():
        family = json.loads(config.read_text(encoding="utf-8")).get("model_type", family)
    findings.fail(
        "loads",
        f"the processor of {family} needs torchvision, which is not installed; "
        "install the build that matches this torch",
    )


def _describe(findings: Findings, engine: LocalEngine) -> None:
    model, chat = engine.model, engine.chat
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    dtype = str(model.dtype).removeprefix("torch.")
    findings.ok(
        "loads",
        f"{type(model).__name__}, {num_parameters / 1e6:,.2f}M parameters, "
        f"{dtype} on {engine.device}",
    )
    slot = "before" if chat.image_first else "after"
    findings.ok("chat template", f"the image stands {slot} the text")
    if engine.shares_prefix:
        findings.ok("shares prompts", "answers continue from one image, rubric and question")
    else:
        findings.warn(
            "shares prompts",
            "this model grades every answer with a whole prompt of its own: correct, but slower",
        )
    inputs = chat.encode([chat.prompt(QUESTION)], [_test_image()])
    token = getattr(model.config, "image_token_id", None)
    image_tokens = int((inputs["input_ids"] == token).sum()) if token is not None else 0
    total = inputs["input_ids"].shape[1]
    if image_tokens:
        findings.ok("image", f"{image_tokens} tokens of {total} for one of 336x336 px")
    else:
        # Some families hand the image over beside the tokens.
        findings.ok("image", f"a prompt of {total} tokens, none of them marked as image")
    needed = num_parameters * TRAINING_BYTES_PER_PARAMETER
    free = shutil.disk_usage(Path.cwd()).free
    said = f"learning takes up to {_size(needed)} for a while; {_size(free)} are free here"
    if needed > free:
        findings.warn("disk", f"{said}: give --out a larger disk")
    else:
        findings.ok("disk", said)


def _check_answer(findings: Findings, engine: LocalEngine) -> None:
    from peeralign.engines.base import AnswerRequest, Sampling

    # Two greedy draws share one prompt's cache, as a run's draws do; they must be one answer.
    request = AnswerRequest(_test_image(), QUESTION, (0, 1))
    first, second = engine.answer([request], Sampling(num_draws=2, max_new_tokens=32))[0]
    if first.text != second.text:
        findings.fail(
            "answers",
            f"two greedy draws differ ('{first.text}', '{second.text}'): this model cannot "
            "continue one prompt several times",
        )
    elif first.text is None:
        findings.warn("answers", f"{first.reason}: a run drops such answers")
    else:
        findings.ok("answers", f"'{QUESTION}' with '{first.text}'")


def _check_judge(findings: Findings, engine: LocalEngine, rubric: Rubric) -> None:
    from peeralign.engines.base import JudgeRequest, Readout

    compares = rubric.kind != "absolute"
    texts, form = rubric.example(QUESTION, "red", "blue")
    request = JudgeRequest(_test_image(), tuple(texts), form)
    # A ranking's places cannot be read one by one, nor what comes behind a reason.
    alone = form.distinct or form.reason == "first"
    readouts: tuple[Readout, ...] = ("text",) if alone else ("text", "expected")
    for readout in readouts:
        what = f"judges, {readout}"
        try:
            ((verdict,),) = engine.judge([request], readout)
        except PeeralignError as error:
            findings.warn(what, str(error))
            continue
        if verdict.axes is None:
            findings.warn(
                what,
                f"{verdict.reason}, in {verdict.raw[:80]!r}: the run would count it unscored",
            )
        else:
            axes = " ".join(f"{axis:.3g}" for axis in verdict.axes)
            reward = f"reward {rubric.reward(verdict.axes):.2f} (axes {axes})"
            findings.ok(what, f"of two answers {axes}" if compares else reward)


def _check_prefix(findings: Findings, engine: LocalEngine) -> None:
    from peeralign.training.probe import can_share_prefix
    from peeralign.training.tree import Branch, Tree

    data = io.BytesIO()
    _test_image().save(data, "PNG")
    branches = (Branch("", "red", "chosen"), Branch("", "a blue square", "rejected"))
    tree = Tree({"bytes": data.getvalue(), "path": None}, engine.chat.prompt(QUESTION), branches)
    if can_share_prefix(engine.model, engine.chat, tree):
        findings.ok("learns", "the chosen and the rejected answer share one image and question")
    else:
        findings.warn(
            "learns",
            "this model cannot share an image between answers, so each is a row of its own: "
            "the same result, but slower",
        )


def _test_image() -> Image.Image:
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (336, 336), "white")
    ImageDraw.Draw(image).ellipse((84, 84, 252, 252), fill="red")
    return image
