"""Who takes part: members and their roles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from peeralign.errors import PeeralignError


class Server(BaseModel):
    """An OpenAI-compatible server that runs a member (vLLM, SGLang, TGI, a hosted judge)."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    base_url: str
    """The address, up to and with "/v1"."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the key; keys are never written to a run."""
    max_concurrency: int = Field(default=16, ge=1)
    """Requests in flight at once."""
    requests_per_minute: float | None = Field(default=None, gt=0)
    """Most requests started a minute; left out, no limit of our own."""
    timeout_seconds: float = Field(default=120, gt=0)
    """Longest wait for one reply."""
    max_retries: int = Field(default=5, ge=0)
    """Further attempts after a 408, 409, 429 or 5xx status, a time-out, a cut connection or an
    unreadable reply, with growing pauses (a server's Retry-After is kept up to 10 minutes)."""
    extra_body: dict[str, Any] = {}
    """Further fields of every request, for what only this server knows."""


class VllmWorker(BaseModel):
    """A vLLM worker process that runs a member on this machine, in an environment of its own."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    python: str
    """The interpreter of the environment in which vLLM is installed."""
    adapter: str | None = None
    """A LoRA folder to put on the model."""
    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1)
    """Share of the GPU's memory that vLLM takes."""
    tensor_parallel_size: int = Field(default=1, ge=1)
    """GPUs the model is split over."""
    max_model_len: int | None = Field(default=None, ge=1)
    """Longest prompt and answer, in tokens; left out, the model's own."""
    between: Literal["sleep", "restart"] = "restart"
    """While other members work: end the process, or keep it with the weights in CPU memory."""
    start_seconds: float = Field(default=900, gt=0)
    """Longest wait for the model to load."""


class Describe(BaseModel):
    """Describe and respond: a member describes the image, then answers with that before it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    prompts: str = "stic"
    """Prompts to describe with, and how a description is put before a question: "stic",
    "classroom", or a TOML file."""
    max_new_tokens: int = Field(default=1024, ge=1)
    """Longest description, in tokens (STIC: 1024)."""
    temperature: float = Field(default=0.2, ge=0)
    """Sampling temperature of descriptions (STIC: 0.2); 0 is greedy."""


class Member(BaseModel):
    """One model of the panel: a checkpoint and what it does."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Unique name, used in tables and folders."""
    model: str
    """Local checkpoint folder, hub name, or "classroom:NAME" for a shipped tiny peer."""
    answers: bool = True
    """Whether it answers the questions."""
    judges: bool = True
    """Whether it judges answers."""
    learns: bool = True
    """Whether it is trained (a senior judge neither answers nor learns)."""
    replay: str | None = None
    """Its own instruction data for train.replay_share (Parquet, JSONL: image, prompt, response)."""
    device: str = "auto"
    """"auto", "cpu", "cuda", "cuda:1", "mps"."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of inference; "auto" is bfloat16 on an accelerator, float32 on the CPU."""
    memory_gib: float | None = Field(default=None, gt=0)
    """Memory for caches and activations, beside the weights; left out, 80 % of what the device has
    free, and 2 GiB on the CPU. Results do not depend on it."""
    server: Server | None = None
    """Answer and judge through a server; such a member cannot learn."""
    vllm: VllmWorker | None = None
    """Answer and judge with vLLM on this machine."""
    describe: Describe | None = None
    """Describe an image before answering about it (STIC's describe-and-respond)."""
    trust_remote_code: bool = False
    """Allow the checkpoint to run its own Python code. Off unless you know the author."""

    def checkpoint(self) -> str:
        """The folder or hub name to load."""
        return checkpoint_of(self.model)


def checkpoint_of(model: str) -> str:
    """The folder or hub name that `model` means; "classroom:NAME" is a shipped tiny peer."""
    if model.startswith("classroom:"):
        from peeralign.classroom.peers import shipped_peer

        return str(shipped_peer(model.removeprefix("classroom:")))
    return model


@dataclass(frozen=True, slots=True)
class Panel:
    """The members, in a fixed order."""

    members: tuple[Member, ...]

    @property
    def authors(self) -> list[Member]:
        return [member for member in self.members if member.answers]

    @property
    def judges(self) -> list[Member]:
        return [member for member in self.members if member.judges]

    @property
    def learners(self) -> list[Member]:
        return [member for member in self.members if member.learns]

    def after(self, checkpoints: dict[str, Path]) -> Panel:
        """The same panel with the learners' weights of the round just finished."""
        return Panel(
            tuple(
                member.model_copy(update={"model": str(checkpoints[member.name])})
                if member.name in checkpoints
                else member
                for member in self.members
            )
        )


ROLES = ("answers", "judges", "learns")


def check_panel(members: tuple[Member, ...], roles: tuple[str, ...] = ROLES) -> None:
    """Raise PeeralignError unless the names are unique and somebody has each of `roles`."""
    names = [member.name for member in members]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise PeeralignError(f"two members are named '{doubled[0]}'; give each its own name")
    for member in members:
        if member.server and member.vllm:
            raise PeeralignError(f"member '{member.name}' has both server and vllm; give one")
        if member.server and member.learns:
            raise PeeralignError(
                f"member '{member.name}' is behind a server and cannot learn; set learns = false"
            )
        if member.vllm and member.vllm.adapter and member.learns:
            # It would learn without the adapter, and answer with it on what it has learnt.
            raise PeeralignError(
                f"member '{member.name}' has an adapter and cannot learn; set learns = false, or "
                "merge the adapter into the model"
            )
    for role in roles:
        if not any(getattr(member, role) for member in members):
            raise PeeralignError(
                f"no member {role}; set {role} = true for at least one entry of [[members]]"
            )


def is_one_of(judge: Member, members: Sequence[Member]) -> bool:
    """Whether a member is the same model, wherever it runs, as far as names and folders tell.

    A copy of a checkpoint, or a server's short name for it, looks like another model.
    """
    return any(_identity(judge) == _identity(member) for member in members)


def _identity(member: Member) -> tuple[str, ...]:
    named = member.model if member.server else member.checkpoint()
    folder = Path(named)
    if folder.is_dir():
        folder = folder.resolve()
        cached = folder.parents[1].name if folder.parent.name == "snapshots" else ""
        if not cached.startswith("models--"):
            return (str(folder),)
        # The hub's cache; the hub forbids two hyphens in names.
        named = cached.removeprefix("models--").replace("--", "/")
    if "/" in named:
        return (named.casefold(),)
    # Two servers may call two models "default".
    return (member.server.base_url.rstrip("/"), named) if member.server else (named,)


def check_local_folder(model: str) -> None:
    """Raise PeeralignError if `model` means a local folder that holds no checkpoint.

    A path that does not exist would be looked up on the hub, and fail there with a long story.
    """
    folder = Path(model)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise PeeralignError(
                f"the member folder {model} holds no model (no config.json); give the folder of "
                "a transformers checkpoint"
            )
        return
    looks_local = folder.is_absolute() or model.startswith(".") or model.count("/") != 1
    if looks_local or folder.parent.is_dir():
        raise PeeralignError(f"no member at {model}: the folder does not exist")
