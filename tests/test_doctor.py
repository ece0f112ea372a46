"""The doctor, on a real peer and on broken folders: one line a finding, and no traceback."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.console import Console

from peeralign import doctor
from peeralign.classroom.peers import build_model, build_processor, save_peer
from peeralign.engines.base import JudgeRequest
from peeralign.engines.local import LocalEngine
from peeralign.errors import PeeralignError
from peeralign.judging.rubric import load_rubric
from peeralign.judging.verdict import Verdict

ADA = Path(doctor.__file__).parent / "classroom" / "weights" / "ada"


def examined(
    *members: str, rubric: str = "classroom", trust_remote_code: bool = False
) -> tuple[bool, str]:
    file = io.StringIO()
    console = Console(file=file, width=80, soft_wrap=True)
    good = doctor.examine(list(members), rubric, trust_remote_code, console)
    return good, file.getvalue()


def finding(text: str, what: str, member: str = "") -> tuple[str, str]:
    """(level, what was said) of the one finding named `what`, in a member's part if given."""
    part = text.split(f"Member {member}\n")[1].split("\n\n")[0] if member else text
    found = []
    for line in part.splitlines():
        level, name, said = line[2:8].strip(), line[8:25].strip(), line[26:]
        if level in doctor.STYLES and name == what:
            found.append((level, said))
    (one,) = found
    return one


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound checkpoint that knows nothing."""
    folder = tmp_path_factory.mktemp("members") / "untrained"
    processor = build_processor()
    save_peer(build_model("llama", processor, 0), processor, folder)
    return folder


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> doctor.Findings:
    """Findings for one check, with an environment that has nothing to say."""
    for name in ("OMP_NUM_THREADS", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    return doctor.Findings(Console(file=io.StringIO(), width=80, soft_wrap=True))


def said(findings: doctor.Findings) -> str:
    file = findings.console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


@pytest.mark.skipif(not ADA.is_dir(), reason="the shipped peers' weights are not in this checkout")
def test_a_shipped_peer_is_all_right() -> None:
    good, text = examined("classroom:ada")
    assert good
    assert text.splitlines()[-1].startswith("all right")
    level, loads = finding(text, "loads", "classroom:ada")
    assert level == "ok"
    assert loads.startswith("LlavaForConditionalGeneration, ")
    assert "float32 on " in loads
    assert finding(text, "shares prompts", "classroom:ada")[0] == "ok"
    assert finding(text, "image", "classroom:ada")[1].startswith("9 tokens of ")
    assert finding(text, "answers", "classroom:ada")[0] == "ok"
    assert finding(text, "judges, expected", "classroom:ada")[0] == "ok"
    assert finding(text, "learns", "classroom:ada")[0] == "ok"


def test_an_untrained_member_judges_unreadably(untrained: Path) -> None:
    good, text = examined(str(untrained), rubric="five_axis")
    assert good
    level, why = finding(text, "judges, text", str(untrained))
    assert level == "warn"
    assert why.endswith("the run would count it unscored")
    level, why = finding(text, "judges, expected", str(untrained))
    assert level == "warn"
    assert "of the probability lies on scores" in why
    assert text.splitlines()[-1].startswith("all right, ")


@pytest.mark.parametrize(
    ("rubric", "readouts"),
    [("relative_scores", ["text", "expected"]), ("relative_ranking", ["text"])],
)
def test_a_rubric_that_compares_is_tried_on_two_answers(
    untrained: Path, monkeypatch: pytest.MonkeyPatch, rubric: str, readouts: list[str]
) -> None:
    seen: list[tuple[JudgeRequest, str]] = []

    def judge(
        self: LocalEngine, requests: Sequence[JudgeRequest], readout: str
    ) -> list[list[Verdict]]:
        seen.extend((request, readout) for request in requests)
        return [[Verdict([2.0, 1.0], None, "")] for _ in requests]

    monkeypatch.setattr(LocalEngine, "judge", judge)
    good, text = examined(str(untrained), rubric=rubric)
    assert good
    assert [readout for _, readout in seen] == readouts
    for request, readout in seen:
        assert request.form == load_rubric(rubric).form(2)
        (shown,) = request.texts
        assert "Answer A\n" in shown
        assert shown.endswith('{"A": n, "B": n}')
        found = finding(text, f"judges, {readout}", str(untrained))
        assert found == ("ok", "of two answers 2 1")
    assert ("judges, expected" in text) is ("expected" in readouts)


def test_members_that_do_not_load(untrained: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut"
    shutil.copytree(untrained, cut)
    weights = cut / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    empty = tmp_path / "empty"
    empty.mkdir()
    members = [str(cut), str(empty), str(tmp_path / "none"), "classroom:adda"]
    good, text = examined(*members)
    assert not good
    assert text.splitlines()[-1].startswith("4 failed")
    assert all(finding(text, "loads", member)[0] == "fail" for member in members)
    assert "no config.json" in finding(text, "loads", str(empty))[1]
    assert "the folder does not exist" in finding(text, "loads", str(tmp_path / "none"))[1]
    assert "did you mean 'ada'?" in finding(text, "loads", "classroom:adda")[1]
    assert "Traceback" not in text


def test_member_without_a_chat_template(untrained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mute"
    shutil.copytree(untrained, folder)
    (folder / "chat_template.jinja").unlink()
    good, text = examined(str(folder))
    assert not good
    assert "has no chat template" in finding(text, "loads", str(folder))[1]


@pytest.mark.skipif(
    doctor.importlib.util.find_spec("torchvision") is not None, reason="torchvision is installed"
)
def test_family_that_needs_torchvision(untrained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "qwen"
    folder.mkdir()
    for name in ("tokenizer.json", "chat_template.jinja"):
        shutil.copy(untrained / name, folder / name)
    tokenizer = json.loads((untrained / "tokenizer_config.json").read_text())
    tokenizer["processor_class"] = "Qwen2VLProcessor"
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen2_vl"}))
    images = {
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2VLProcessor",
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(images))
    good, text = examined(str(folder))
    assert not good
    level, why = finding(text, "loads", str(folder))
    assert level == "fail"
    assert why.startswith("the processor of qwen2_vl needs torchvision, which is not installed")


def test_torchvision_of_another_build(
    alone: doctor.Findings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It registers an operator's gradient that its missing library should have defined: the very
    # statement that fails in the real package.
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text(
        "import torch\n@torch.library.register_fake('torchvision::nms')\ndef nms(*a): ...\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert not doctor.check_imports(alone)
    level, why = finding(said(alone), "torchvision")
    assert level == "fail"
    assert "operator torchvision::nms does not exist" in why
    assert "pip uninstall torchvision" in why


def test_torchvision_that_fits(
    alone: doctor.Findings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torchvision.py").write_text("import torch\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert doctor.check_imports(alone)
    assert finding(said(alone), "torchvision")[0] == "ok"


def test_members_are_not_tried_on_broken_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "transformers"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('half an installation')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    good, text = examined("classroom:ada")
    assert not good
    assert "half an installation" in finding(text, "import")[1]
    assert finding(text, "not tried", "classroom:ada")[0] == "fail"


def write_metadata(folder: Path, name: str, version: str, *lines: str) -> None:
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    text = "\n".join(["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *lines])
    (info / "METADATA").write_text(text + "\n")


def test_versions_are_held_against_the_stated_bounds(
    alone: doctor.Findings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs = ("transformers>=5.16", "torch>=2.7", "no-such-package>=1", "pytest; extra == 'dev'")
    lines = ["Requires-Python: >=3.99", *(f"Requires-Dist: {need}" for need in needs)]
    write_metadata(tmp_path, "peeralign", "9.9", *lines)
    write_metadata(tmp_path, "transformers", "5.15.2")
    write_metadata(tmp_path, "torch", "2.13.0+cpu")
    monkeypatch.syspath_prepend(str(tmp_path))
    doctor.check_packages(alone)
    text = said(alone)
    assert finding(text, "Python")[0] == "fail"
    assert finding(text, "transformers") == (
        "fail",
        "5.15.2, not >=5.16; pip install 'transformers>=5.16'",
    )
    assert finding(text, "no-such-package") == (
        "fail",
        "not installed; pip install 'no-such-package>=1'",
    )
    assert finding(text, "needed") == ("ok", "peeralign 9.9, torch 2.13.0+cpu")


@pytest.mark.parametrize(
    ("threads", "level", "why"),
    [("1", "ok", "OMP_NUM_THREADS=1"), ("5000", "warn", "set it to"), ("two", "warn", "no number")],
)
def test_threads_and_cores(
    alone: doctor.Findings, monkeypatch: pytest.MonkeyPatch, threads: str, level: str, why: str
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    doctor.check_machine(alone, [])
    found, text = finding(said(alone), "CPU")
    assert found == level
    assert why in text


def test_offline_hub(
    alone: doctor.Findings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    members = [str(tmp_path), "classroom:ada"]
    doctor.check_machine(alone, members)
    assert "HF_HUB_OFFLINE" not in said(alone)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    doctor.check_machine(alone, members)
    assert finding(said(alone), "hub")[0] == "ok"
    doctor.check_machine(alone, [*members, "someone/model"])
    assert "someone/model loads only if it is in the cache" in said(alone)
    assert alone.counts["fail"] == 0


def test_unknown_rubric_is_a_mistake() -> None:
    with pytest.raises(PeeralignError, match="no rubric named 'five_axes'"):
        examined(rubric="five_axes")


def test_a_finding_is_one_line_and_its_markup_is_text(alone: doctor.Findings) -> None:
    alone.warn("answers", "two\nlines [bold]and[/bold] [/] markup")
    assert said(alone) == "  warn  answers           two lines [bold]and[/bold] [/] markup\n"
