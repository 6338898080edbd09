"""Resumable state: a numbered file per save, each whole or absent, the newest few kept."""

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from gti_diag.errors import InputError
from gti_diag.files import all_or_none

log = logging.getLogger(__name__)

METRICS = "metrics.jsonl"
SECOND = "unfrozen"  # where the states of the second phase lie, in the folder of the first
STATE = re.compile(r"step-\d{8}-[0-9a-f]{16}\.pt")


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
    """Write `state` into `folder` and delete all but the newest `keep` states.

    `run` names the inputs (see `run_name`): a state is resumed only by the run that it belongs to. A state's name ends with
    the checksum of its bytes, which it gets last: a file that is half there, or changed since, is no state.
    """
    with all_or_none(folder) as stage:
        torch.save({"run": run, **vars(state)}, stage / "state.pt")
        with open(stage / "state.pt", "rb") as written:
            os.fsync(written.fileno())  # a power cut must not leave a whole name on half a file
        name = f"step-{state.step:08d}-{_checksum(stage / 'state.pt')}.pt"
        os.replace(stage / "state.pt", stage / name)
    others = [path for path in _states(folder) if path.name != name]
    for old in [*others[: len(others) + 1 - keep], *(path for path in others if _step(path) == state.step)]:
        old.unlink(missing_ok=True)


def load_state(folder: str | os.PathLike[str], *, run: str) -> State | None:
    """The newest state in `folder` that is whole, or None where there is none; one that is damaged is passed over, with a line.

    Raises:
        InputError: it belongs to a run with other inputs.
    """
    for file in reversed(_states(folder)):
        content = _content(file)
        if content is None:
            log.warning("%s is damaged: passed over", file)
            continue
        if content.pop("run") != run:
            raise InputError(
                f"{file} is of a run with other settings or data: remove {folder} to begin anew, or name the same"
            )
        return State(**content)
    return None


def newest_step(folder: str | os.PathLike[str]) -> int:
    """The step of the newest state in `folder` that is whole, 0 where there is none."""
    return next((_step(file) for file in reversed(_states(folder)) if _checksum(file) == _stated(file)), 0)


def _content(file: Path) -> dict[str, Any] | None:
    """What a state holds; None unless its bytes are those that were written, and are a state of the step in its name."""
    if _checksum(file) != _stated(file):
        return None
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception:  # not ours, whatever its name says
        return None
    kinds = {"run": str, "step": int, "parameters": list, "optimizer": dict, "best": dict}
    if not isinstance(content, dict) or {key: type(value) for key, value in content.items()} != kinds:
        return None
    return content if content["step"] == _step(file) else None


def _checksum(file: Path) -> str:
    digest = hashlib.blake2b(digest_size=8)
    with open(file, "rb") as data:
        while part := data.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def _step(file: Path) -> int:
    return int(file.stem.split("-")[1])


def _stated(file: Path) -> str:
    return file.stem.split("-")[2]


def check_folder(folder: Path) -> None:
    """Refuse a folder for states that holds something else: it will be cleared in the end.

    Raises:
        InputError: there is something that no run of ours has written.
    """
    inside = {path for part in _parts(folder) for path in part.rglob("*")}  # of a save that was killed
    others = {folder} if folder.is_file() else {*folder.rglob("*")} - {*_written(folder), *inside, folder / SECOND}
    if others:
        raise InputError(f"{min(others)} is no state of gti-train: move it, or name another place for the result")


def clear_folder(folder: Path) -> None:
    """Remove the states and metrics in `folder`, and the folder itself if nothing else is there."""
    for path in _written(folder):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for emptied in (folder / SECOND, folder):
        with contextlib.suppress(OSError):
            emptied.rmdir()


def _written(folder: Path) -> list[Path]:
    places = (folder, folder / SECOND)
    return [*_parts(folder), *(path for place in places for path in (*_states(place), *place.glob(METRICS)))]


def _parts(folder: Path) -> list[Path]:
    return [path for place in (folder, folder / SECOND) for path in place.glob(".part-*-*-*")]


def _states(folder: str | os.PathLike[str]) -> list[Path]:
    return sorted(path for path in Path(folder).glob("step-*.pt") if STATE.fullmatch(path.name) and path.is_file())
