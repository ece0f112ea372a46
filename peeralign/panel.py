"""Who takes part: members and their roles."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from peeralign.errors import PeeralignError


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
    trust_remote_code: bool = False
    """Allow the checkpoint to run its own Python code. Off unless you know the author."""

    def checkpoint(self) -> str:
        """The folder or hub name to load."""
        if self.model.startswith("classroom:"):
            from peeralign.classroom.peers import shipped_peer

            return str(shipped_peer(self.model.removeprefix("classroom:")))
        return self.model


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


def check_panel(members: tuple[Member, ...]) -> None:
    """Raise PeeralignError unless the names are unique and somebody answers, judges and learns."""
    names = [member.name for member in members]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise PeeralignError(f"two members are named '{doubled[0]}'; give each its own name")
    for role in ("answers", "judges", "learns"):
        if not any(getattr(member, role) for member in members):
            raise PeeralignError(
                f"no member {role}; set {role} = true for at least one entry of [[members]]"
            )


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
