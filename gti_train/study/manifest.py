"""What a run was made with and what it cost: `manifest.json`, beside its results."""

import os
import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from gti_diag.document import dumps
from gti_diag.files import write_text

from .config import Study
from .stages import Stage, costs

MANIFEST = "manifest.json"
LIBRARIES = ("gti-diag", "torch", "transformers", "numpy", "scikit-learn", "sentence-transformers", "peft")


def write_manifest(study: Study, stages: Sequence[Stage], folder: Path, results: Path) -> Path:
    """The study, versions and machine, and for each finished stage its hash, seconds and memory."""
    document = {
        "schema": 1,
        "study": study.model_dump(),
        "versions": {"python": platform.python_version(), **_versions()},
        "machine": _machine(),
        "stages": costs(stages, folder),
    }
    return write_text(results / MANIFEST, dumps(document))


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def _machine() -> dict[str, Any]:
    import torch

    devices = [torch.cuda.get_device_name(place) for place in range(torch.cuda.device_count())]
    return {
        "system": platform.system(), "architecture": platform.machine(), "processors": os.cpu_count(),
        "threads": torch.get_num_threads(), "instructions": torch.backends.cpu.get_cpu_capability(), "devices": devices,
    }  # fmt: skip
