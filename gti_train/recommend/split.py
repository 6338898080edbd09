"""Which events of a history may be learned from, and which are kept to be predicted: leave one out, twice.

Of the events e_1 … e_n of a user, e_n is for the test, e_{n-1} for validation, and only e_1 … e_{n-2} are ever trained
on, also where n is 1 or 2 and nothing is left.
"""

from collections.abc import Sequence
from typing import TypeVar

Met = TypeVar("Met")


def training_part(history: Sequence[Met]) -> Sequence[Met]:
    """What training may see: all but the last two."""
    return history[:-2]


def validation_case(history: Sequence[Met]) -> tuple[Sequence[Met], Met] | None:
    """The last but one and what came before it; None where nothing did."""
    return (history[:-2], history[-2]) if len(history) > 2 else None


def test_case(history: Sequence[Met]) -> tuple[Sequence[Met], Met] | None:
    """The last one and what came before it; None where nothing did."""
    return (history[:-1], history[-1]) if len(history) > 1 else None


test_case.__test__ = False  # type: ignore[attr-defined]  # pytest takes the name for one of its own
