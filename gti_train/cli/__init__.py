"""gti-train at the terminal: parse, call, print. Every stage is a command of its own, and leaves a folder that the next opens.

Heavy imports happen inside the commands, so that `--help` is instant.
"""

import os

from gti_diag.cli.shell import run

from . import (
    catalogue,
    demo,
    evaluate,
    fine_tuning,
    items,
    probe,
    repair,
    search,
    search_compression,
    search_demo,
    sids,
    study,
    tokens,
)  # they register their commands on the application
from .app import app

__all__ = [
    "app",
    "catalogue",
    "demo",
    "evaluate",
    "fine_tuning",
    "items",
    "main",
    "probe",
    "repair",
    "search",
    "search_compression",
    "search_demo",
    "sids",
    "study",
    "tokens",
]


def main() -> None:
    """The console script `gti-train`."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TQDM_DISABLE", "1")  # the libraries' bars would tear ours
    run(app, "gti-train")
