"""gti-diag at the terminal: parse, call, print. Nothing is computed here, and no other room imports this one.

Heavy imports happen inside the commands, so that `--help` is instant.
"""

from . import analyze, gate, look, scan  # they register their commands on the application
from .app import app
from .shell import run

__all__ = ["analyze", "app", "gate", "look", "main", "scan"]


def main() -> None:
    """The console script `gti-diag`."""
    run(app, "gti-diag")
