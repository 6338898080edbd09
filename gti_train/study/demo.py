"""The demonstration: a study that ships with the package, three starts of one model measured side by side."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .config import Study, read_study

STUDY = Path(__file__).with_name("demo.toml")


def demo_study(changes: Mapping[str, Any]) -> Study:
    """The demonstration's study; what `changes` name takes the place of what its file says.

    Raises:
        InputError: as `read_study`.
    """
    return read_study(STUDY, changes=changes)
