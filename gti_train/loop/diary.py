"""What is kept of a run's steps: the last one's number, and a line of metrics for each."""

import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path

from gti_diag.files import told

from .processes import world
from .state import METRICS
from .trackers import Trackers
from .training import StepRecord


class Diary:
    """What is kept of the steps: the last one's number and, in the first process, a line of metrics for each."""

    def __init__(self, work: Path, trackers: Trackers, progress: Callable[[StepRecord], None] | None, *, step: int):
        self.metrics, self.trackers, self.progress, self.step = work / METRICS, trackers, progress, step
        self.begun = False

    def follow(self, records: Iterable[StepRecord]) -> None:
        """Write them down as they come.

        Raises:
            InputError: the disk is full, or the folder cannot be written.
        """
        for record in records:
            self.step = record.step
            if world()[0] != 0:
                continue
            with told(self.metrics):
                _append(self.metrics, record, first=not self.begun)
                self.begun = True
                self.trackers.log(record)
            if self.progress is not None:
                self.progress(record)


def _append(metrics: Path, record: StepRecord, *, first: bool) -> None:
    metrics.parent.mkdir(parents=True, exist_ok=True)
    if first and metrics.is_file():
        # A resumed run does the steps after its state again: drop their lines, and a half-written last one.
        lines = metrics.read_text(encoding="utf-8", errors="replace").splitlines()
        kept = [line for line in lines if _step(line) < record.step]
        metrics.write_text("".join(line + "\n" for line in kept))
    with metrics.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record.flat()) + "\n")


def _step(line: str) -> float:
    """The step of a line; after all steps for a line that is damaged."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return math.inf
