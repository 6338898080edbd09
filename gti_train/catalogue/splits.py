"""Which events a model learns from, which choose among models, and which judge the chosen one.

Two splits. Leave one out: each user's last event is the test, the one before it validates, the rest trains; easy to
compare with published numbers, but a model may learn from events that lie after another user's test. Global time: two
moments cut all histories at once, as a system in service meets them; items that appear late are then cold.
"""

from dataclasses import dataclass

import numpy as np

from gti_diag.errors import InputError

from .records import Catalogue, Histories


@dataclass(frozen=True)
class Split:
    """Three parts of the same histories; a user who has no event in a part is not in it."""

    train: Histories
    valid: Histories
    test: Histories


def leave_one_out(catalogue: Catalogue, *, least: int = 3) -> Split:
    """The last event of each user tests, the one before validates, the rest trains.

    Users of fewer than `least` events (3 or more: something must be left to learn from) train only.

    Raises:
        InputError: `least` is under 3.
    """
    if least < 3:
        raise InputError(f"users with {least} events cannot be split in three: ask for 3 or more")
    columns = catalogue.columns
    lengths = np.diff(columns.starts)
    after = np.repeat(columns.starts[1:], lengths) - np.arange(len(columns.rows)) - 1  # events of the user that follow
    split = np.repeat(lengths >= least, lengths)
    return _parts(columns, test=split & (after == 0), valid=split & (after == 1))


def global_time(catalogue: Catalogue, *, valid: float = 0.1, test: float = 0.1) -> Split:
    """The latest `test` of all events tests, the `valid` before it validates, what is earlier trains.

    Events of one moment stay together, so that the shares are met from below.

    Raises:
        InputError: shares that leave nothing to train on, or events without a time (all at one moment).
    """
    if not (0 <= valid < 1 and 0 < test < 1 and valid + test < 1):
        raise InputError(f"shares valid {valid} and test {test} leave nothing to train on: give less than 1 together")
    columns = catalogue.columns
    times = np.sort(columns.times)
    if not len(times) or times[0] == times[-1]:
        raise InputError("all events have the same time: a split by time needs times; use leave-one-out")
    from_valid, from_test = (times[int(len(times) * (1 - share))] for share in (valid + test, test))
    late = columns.times > from_test
    return _parts(columns, test=late, valid=(columns.times > from_valid) & ~late)


def _parts(columns: Histories, *, test: np.ndarray, valid: np.ndarray) -> Split:
    return Split(columns.where(~test & ~valid), columns.where(valid), columns.where(test))
