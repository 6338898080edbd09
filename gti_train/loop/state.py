"""Resumable state: a numbered file per save, each whole or absent, the newest few kept."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from gti_diag.errors import InputError
from gti_diag.files import atomic

METRICS = "metrics.jsonl"
SECOND = "unfrozen"  # where the states of the second phase lie, in the folder of the first
OURS = [f"{place}{name}" for place in ("", f"{SECOND}/") for name in ("step-*.pt", ".part-*.pt", METRICS)]


@dataclass
class State:
    """All that a run is besides its inputs: resuming from it is bitwise invisible."""

    step: int
    parameters: list[torch.Tensor]
    optimizer: dict[str, Any]
    best: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Saving:
    """Where states go, after how many steps each, and how many are kept."""

    folder: Path
    every: int = 50
    keep: int = 2

    def save(self, state: State, run: str) -> None:
        """Write one state."""
        save_state(state, self.folder, run=run, keep=self.keep)

    def newest(self, run: str) -> State | None:
        """The state to resume from, if there is one."""
        return load_state(self.folder, run=run)


def run_name(settings: dict[str, Any], sequences: Iterable[object], *start: torch.Tensor) -> str:
    """What a state must agree with to be resumed: settings, data, and the values that training began from."""
    digest = hashlib.sha256(json.dumps(settings).encode())
    for sequence in sequences:
        digest.update(repr(sequence).encode())
    for values in start:
        digest.update(values.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()[:16]


def save_state(state: State, folder: str | os.PathLike[str], *, run: str, keep: int) -> None:
    """Write `state` into `folder` atomically and delete all but the newest `keep` states.

    `run` names the inputs (see `run_name`): a state is resumed only by the run that it belongs to.
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


def newest_step(folder: str | os.PathLike[str]) -> int:
    """The step of the newest state in `folder`, 0 where there is none."""
    found = _states(folder)
    return int(found[-1].stem.removeprefix("step-")) if found else 0


def check_folder(folder: Path) -> None:
    """Refuse a folder for states that holds something else: it will be cleared in the end.

    Raises:
        InputError: there is something that no run of ours has written.
    """
    others = {folder} if folder.is_file() else {*folder.rglob("*")} - {*_written(folder), folder / SECOND}
    if others:
        raise InputError(f"{min(others)} is no state of gti-train: move it, or name another place for the result")


def clear_folder(folder: Path) -> None:
    """Remove the states and metrics in `folder`, and the folder itself if nothing else is there."""
    for path in _written(folder):
        path.unlink()
    for emptied in (folder / SECOND, folder):
        with contextlib.suppress(OSError):
            emptied.rmdir()


def _written(folder: Path) -> list[Path]:
    return [path for pattern in OURS for path in folder.glob(pattern)]


def _states(folder: str | os.PathLike[str]) -> list[Path]:
    return sorted(Path(folder).glob("step-*.pt"))
