"""Stages that each leave a file or a folder, run when what they depend on has changed.

Every stage leaves a marker that holds a hash of all it depends on, and what it cost. A stage whose marker matches is
skipped; a changed setting redoes the stages that depend on it; an interrupted stage has no such marker.
"""

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gti_diag.document import dumps
from gti_diag.files import write_text

FORMAT = 4  # of the stages' outputs: raising it redoes all stages of older runs
MARKERS = ".stages"
SAMPLE = 1 << 20  # bytes of a large file's beginning and end that stand for it

Tell = Callable[[float, str], None]


@dataclass(frozen=True)
class Stage:
    """One step of a study. `output` lies in the run's folder; `settings` are all that it depends on besides `needs`.

    weight: about how many processor seconds it takes with SmolLM2-135M on one thread. spent: its output is only for the stages that need it, and
    is removed once they are finished.
    """

    output: str
    title: str
    weight: float
    run: Callable[[Path, Tell], None]
    settings: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    spent: bool = False

    @property
    def kind(self) -> str:
        """What it does, whatever arm it does it for."""
        return self.title.rpartition(": ")[2]


def run_stages(
    stages: Sequence[Stage],
    folder: Path,
    *,
    progress: Callable[[Stage, float, str], None] = lambda stage, share, detail: None,
) -> None:
    """Run what is not finished in `folder`, in this order; each stage comes after those that it needs.

    `progress(stage, share of this stage, detail)` is called as the work goes; a skipped stage reports 1 at once.

    Raises:
        InputError: as the stages; `folder` cannot be written.
    """
    keys, left = keys_of(stages), waiting(stages, folder)
    for stage in stages:
        if stage.output not in left:
            progress(stage, 1.0, "finished before")
            continue
        _clear(stage, folder, keys[stage.output])
        progress(stage, 0.0, "")
        _run(stage, folder, keys[stage.output], lambda share, detail, s=stage: progress(s, min(share, 0.999), detail))  # type: ignore[misc]
        left.discard(stage.output)
        progress(stage, 1.0, "")
        for other in stages:
            if (
                other.spent
                and other.output not in left
                and not any(_needs(s, other) for s in stages if s.output in left)
            ):
                _remove(folder / other.output)


def waiting(stages: Sequence[Stage], folder: Path) -> set[str]:
    """The outputs of the stages that `run_stages` would run."""
    keys, left = keys_of(stages), set()
    for place in reversed(range(len(stages))):
        stage = stages[place]
        there = (folder / stage.output).exists()
        asked = not stage.spent or any(_needs(later, stage) and later.output in left for later in stages[place:])
        if _marker(folder, stage).get("key") != keys[stage.output] or (asked and not there):
            left.add(stage.output)
    return left


def keys_of(stages: Sequence[Stage]) -> dict[str, str]:
    """For each output the hash of all that it depends on."""
    keys: dict[str, str] = {}
    for stage in stages:
        content = [FORMAT, stage.output, stage.settings, [keys[name] for name in stage.needs]]
        keys[stage.output] = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return keys


def costs(stages: Sequence[Stage], folder: Path) -> dict[str, dict[str, Any]]:
    """What each finished stage cost, by its output: hash, wall and processor seconds, peak memory of the process so far."""
    found = {stage.output: _marker(folder, stage) for stage in stages}
    return {name: marker for name, marker in found.items() if marker.get("key")}


def forget(folder: str | os.PathLike[str]) -> None:
    """Make the next run in `folder` redo every stage."""
    for marker in (Path(folder) / MARKERS).rglob("*.json"):
        write_text(marker, "{}\n")  # still there: it says that the stage's output is ours to replace


def fingerprint(path: str | os.PathLike[str]) -> str:
    """A hash of a file, or of all files below a folder, by size and their first and last MiB; any other text as it is."""
    place = Path(path)
    if not place.exists():
        return str(path)
    digest = hashlib.sha256()
    for file in sorted(place.rglob("*")) if place.is_dir() else [place]:
        if file.is_file():
            size = file.stat().st_size
            digest.update(f"{file.relative_to(place)} {size}\n".encode())
            with file.open("rb") as data:
                digest.update(data.read(SAMPLE))
                data.seek(max(SAMPLE, size - SAMPLE))
                digest.update(data.read(SAMPLE))
    return digest.hexdigest()


def peak_bytes() -> int | None:
    """The most memory that this process had so far; None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _run(stage: Stage, folder: Path, key: str, tell: Tell) -> None:
    marker = _place(folder, stage)
    write_text(marker, json.dumps({"begun": key}) + "\n")
    began, worked = time.perf_counter(), time.process_time()
    stage.run(folder, tell)
    cost = {
        "seconds": round(time.perf_counter() - began, 1),
        "processor_seconds": round(time.process_time() - worked, 1),
        "peak_bytes": peak_bytes(),
    }
    write_text(marker, dumps({"key": key, **cost}))


def _clear(stage: Stage, folder: Path, key: str) -> None:
    """Remove our own older output, never something that a user keeps there, and states of a run with other settings."""
    if not _place(folder, stage).exists():
        return
    _remove(folder / stage.output)
    if _marker(folder, stage).get("begun") != key:
        _remove(folder / (stage.output + ".state"))


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _needs(stage: Stage, other: Stage) -> bool:
    return other.output in stage.needs


def _place(folder: Path, stage: Stage) -> Path:
    return folder / MARKERS / f"{stage.output}.json"


def _marker(folder: Path, stage: Stage) -> dict[str, Any]:
    try:
        found = json.loads(_place(folder, stage).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
