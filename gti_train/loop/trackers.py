"""TensorBoard, Weights & Biases and others, through accelerate."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gti_diag.errors import InputError

from .training import StepRecord


class Trackers:
    """TensorBoard, Weights & Biases, … through accelerate's own integrations; nothing where none is named.

    Raises:
        InputError: one of `names` is not installed.
    """

    def __init__(self, names: Sequence[Any], *, folder: str | os.PathLike[str], config: dict[str, Any]):
        self.accelerator = None
        if names:
            from accelerate import Accelerator
            from accelerate.tracking import get_available_trackers

            present = [str(getattr(name, "value", name)) for name in get_available_trackers()]
            for name in (name for name in names if isinstance(name, str) and name not in present):
                raise InputError(
                    f"tracker {name!r} is not installed: use one of {', '.join(present) or 'none'}, or install it"
                )
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.accelerator = Accelerator(log_with=list(names), project_dir=os.fspath(folder))
            plain = {k: v for k, v in config.items() if isinstance(v, (int, float, str, bool))}
            self.accelerator.init_trackers("gti-train", config=plain)

    def log(self, record: StepRecord) -> None:
        """Hand one record to every tracker."""
        if self.accelerator is not None:
            values = {name: value for name, value in record.flat().items() if name != "step"}
            self.accelerator.log(values, step=record.step)

    def close(self) -> None:
        """Finish the trackers' files."""
        for tracker in self.accelerator.trackers if self.accelerator is not None else ():
            tracker.finish()  # not end_training: that takes down the process group under the other processes
