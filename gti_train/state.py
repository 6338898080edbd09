"""Resumable state: a numbered file per save, each whole or absent, the newest few kept."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from gti_diag.errors import InputError
from gti_diag.files import atomic


@dataclass
class State:
    """All that a run is besides its inputs: resuming from it is bitwise invisible."""

    step: int
    parameters: list[torch.Tensor]
    optimizer: dict[str, Any]
    best: dict[str, Any] = field(default_factory=dict)


def save_state(state: State, folder: str | os.PathLike[str], *, run: str, keep: int) -> None:
    """Write `state` into `folder` atomically and delete all but the newest `keep` states.

    `run` names the inputs (see `ground`): a state is resumed only by the run that it belongs to.
    """
    with atomic(Path(folder) / f"step-{state.step:08d}.pt") as temporary:
        torch.save({"run": run, **vars(state)}, temporary)
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())  # a power cut must not leave a whole name on half a file
    for old in _states(folder)[:-keep]:
        old.unlink(missing_ok=True)


def load_state(folder: str | os.PathLike[str], *, run: str) -> State | None:
    """The newest state in `folder`, or None where there is none.

    Raises:
        InputError: it belongs to a run with other inputs.
    """
    found = _states(folder)
    if not found:
        return None
    content = torch.load(found[-1], map_location="cpu", weights_only=True)
    if content.pop("run") != run:
        raise InputError(
            f"{found[-1]} is of a run with other settings or data: remove {folder} to begin anew, or name the same"
        )
    return State(**content)


def _states(folder: str | os.PathLike[str]) -> list[Path]:
    return sorted(Path(folder).glob("step-*.pt"))
