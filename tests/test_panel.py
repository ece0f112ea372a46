"""Panels: who may be a member, and the sentences for those who may not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from peeralign.errors import PeeralignError
from peeralign.panel import (
    Member,
    Panel,
    Server,
    VllmWorker,
    check_local_folder,
    check_panel,
    is_one_of,
)

ADA = Member(name="ada", model="classroom:ada")
SERVER = Server(base_url="http://localhost:8000/v1")
WORKER = VllmWorker(python="/opt/vllm/bin/python")


def member(name: str = "senior", **settings: Any) -> Member:
    return Member(name=name, model="x/y", **settings)


@pytest.mark.parametrize(
    "others",
    [
        [],
        [member(server=SERVER, answers=False, learns=False)],
        # A server's member may answer, too; it only cannot learn.
        [member(server=SERVER, learns=False)],
        [member(vllm=WORKER)],
        [member(vllm=WORKER.model_copy(update={"adapter": "lora"}), learns=False)],
        [member(server=SERVER, learns=False), member("worker", vllm=WORKER)],
    ],
    ids=["alone", "senior", "answering server", "vllm", "adapter", "both kinds"],
)
def test_a_panel_that_can_be_used(others: list[Member]) -> None:
    check_panel((ADA, *others))


@pytest.mark.parametrize(
    ("members", "sentence"),
    [
        ([ADA, ADA], "two members are named 'ada'; give each its own name"),
        (
            [ADA, member(server=SERVER, vllm=WORKER, learns=False)],
            "member 'senior' has both server and vllm; give one",
        ),
        (
            [ADA, member(server=SERVER)],
            "member 'senior' is behind a server and cannot learn; set learns = false",
        ),
        (
            [ADA, member(vllm=WORKER.model_copy(update={"adapter": "lora"}))],
            "member 'senior' has an adapter and cannot learn; set learns = false, or merge the "
            "adapter into the model",
        ),
        (
            [member(server=SERVER, learns=False)],
            "no member learns; set learns = true for at least one entry of [[members]]",
        ),
        (
            [ADA.model_copy(update={"judges": False})],
            "no member judges; set judges = true for at least one entry of [[members]]",
        ),
        (
            [ADA.model_copy(update={"answers": False})],
            "no member answers; set answers = true for at least one entry of [[members]]",
        ),
        ([], "no member answers; set answers = true for at least one entry of [[members]]"),
    ],
)
def test_a_panel_that_cannot_be_used(members: list[Member], sentence: str) -> None:
    with pytest.raises(PeeralignError) as caught:
        check_panel(tuple(members))
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("where", "settings"),
    [
        ("server", {}),
        ("server", {"base_url": "http://x/v1", "api_key": "secret"}),
        ("server", {"base_url": "http://x/v1", "max_concurrency": 0}),
        ("server", {"base_url": "http://x/v1", "requests_per_minute": 0}),
        ("server", {"base_url": "http://x/v1", "timeout_seconds": 0}),
        ("server", {"base_url": "http://x/v1", "max_retries": -1}),
        ("vllm", {}),
        ("vllm", {"python": "python", "gpu_memory_utilization": 1.1}),
        ("vllm", {"python": "python", "tensor_parallel_size": 0}),
        ("vllm", {"python": "python", "max_model_len": 0}),
        ("vllm", {"python": "python", "between": "nap"}),
    ],
)
def test_settings_of_servers_and_workers_are_checked(where: str, settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        member(**{where: settings})
    assert {error["loc"][0] for error in caught.value.errors()} == {where}


@pytest.mark.parametrize("gib", [0, -1])
def test_memory_is_a_positive_number(gib: float) -> None:
    with pytest.raises(ValidationError):
        member(memory_gib=gib)
    assert member().memory_gib is None
    assert member(memory_gib=0.5).memory_gib == 0.5


def test_the_roles_of_a_panel() -> None:
    senior = member(server=SERVER, answers=False, learns=False)
    pupil = member("pupil", judges=False)
    panel = Panel((ADA, senior, pupil))
    assert panel.authors == [ADA, pupil]
    assert panel.judges == [ADA, senior]
    assert panel.learners == [ADA, pupil]


def test_learners_go_on_from_what_they_learnt() -> None:
    worker = member("worker", vllm=WORKER, device="cuda:1")
    panel = Panel((ADA, worker)).after({"worker": Path("round-1/members/worker")})
    assert panel.members[0] is ADA
    # Where it runs stays as it was.
    assert panel.members[1] == worker.model_copy(update={"model": "round-1/members/worker"})


def test_a_folder_that_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(PeeralignError, match=r"holds no model \(no config\.json\)"):
        check_local_folder(str(tmp_path))
    for name in (str(tmp_path / "none"), "./none", "a/b/c"):
        with pytest.raises(PeeralignError, match="the folder does not exist"):
            check_local_folder(name)
    (tmp_path / "config.json").write_text("{}")
    check_local_folder(str(tmp_path))
    check_local_folder("someone/model-of-the-hub")


def test_the_same_model_under_other_names(tmp_path: Path) -> None:
    cached = tmp_path / "hub/models--Org--vlm/snapshots/0a1b"
    cached.mkdir(parents=True)
    (tmp_path / "link").symlink_to(cached)
    here, there = (Server(base_url=f"http://{host}/v1") for host in "ab")
    same = [
        Member(name="hub", model="Org/vlm"),
        Member(name="case", model="org/VLM"),
        Member(name="cache", model=f"{cached}/"),
        Member(name="link", model=str(tmp_path / "link")),
        Member(name="server", model="Org/vlm", server=here),
        Member(name="other-server", model="Org/vlm", server=there),
    ]
    assert all(is_one_of(one, [other]) for one in same for other in same)
    short = Member(name="short", model="default", server=here)
    slash = short.model_copy(update={"server": Server(base_url=here.base_url + "/")})
    assert is_one_of(short, [slash])
    others = [
        Member(name="hub", model="Org/vlm-2"),
        Member(name="folder", model=str(tmp_path)),
        short,
        short.model_copy(update={"server": there}),
    ]
    for place, one in enumerate(others):
        assert not is_one_of(one, [*same, *others[:place], *others[place + 1 :]])
