"""The demonstration: a study that ships with the package, three starts of one model measured side by side."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .config import Study, read_study

STUDY = Path(__file__).with_name("demo.toml")
RECOMMEND = STUDY.with_name("recommend.toml")  # what its starts lead to


def demo_study(changes: Mapping[str, Any], *, recommend: bool = False) -> Study:
    """The demonstration's study, or the one of what its starts lead to; `changes` take the place of what its file says.

    Raises:
        InputError: as `read_study`.
    """
    return read_study(RECOMMEND if recommend else STUDY, changes=changes)
