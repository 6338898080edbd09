"""Rows far shorter or longer than the others, told by a gap in the distribution of norms and not by a constant."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

LEAST, SURE = 4.0, 100.0  # ratio of the norms on both sides from which a gap can count, and from which it always does
QUARTILES = 4.0  # … and as many times the distance (in logarithms) from the median to the quartile on that side
FEWEST = 16  # norms that have a distribution


@dataclass(frozen=True)
class Gap:
    """No norm lies between `low` and `high`; `beyond` rows lie on the far side of it."""

    low: float
    high: float
    beyond: int


def low_gap(norms: Float[Tensor, " tokens"]) -> Gap | None:
    """The gap below which rows are near zero: the uppermost under the median that is wide enough, None without one.

    A gap between neighbouring norms a < b is wide enough if ln(b/a) ≥ min(ln 100, max(ln 4, 4 ln(median/lower quartile))).
    Zeros are left out: they need no gap.

    Raises: ValueError if a norm is negative or not finite.
    Source: gti-diag; that no constant serves all models: NVIDIA NeMo Automodel, embedding row repair (2026), who look at the gap.
    """
    logs = _logarithms(norms)
    return None if logs is None else _gap(logs)


def high_gap(norms: Float[Tensor, " tokens"]) -> Gap | None:
    """The gap above which rows are giants: `low_gap` of 1/norms.

    Raises: ValueError if a norm is negative or not finite.
    Source: as `low_gap`, mirrored.
    """
    logs = _logarithms(norms)
    found = None if logs is None else _gap(-logs.flip(0))
    return None if found is None else Gap(1 / found.high, 1 / found.low, found.beyond)


def _logarithms(norms: Tensor) -> Tensor | None:
    if not bool(torch.isfinite(norms).all()) or bool((norms < 0).any()):
        raise ValueError("a norm is negative, NaN or infinite: a gap between norms is undefined")
    positive = norms[norms > 0].double()
    return positive.log().sort().values if len(positive) >= FEWEST else None


def _gap(logs: Tensor) -> Gap | None:
    """Of sorted logarithms."""
    middle = len(logs) // 2
    spread = float(logs[middle] - logs[len(logs) // 4])
    least = min(torch.tensor(SURE).log().item(), max(torch.tensor(LEAST).log().item(), QUARTILES * spread))
    wide = (logs[: middle + 1].diff() >= least).nonzero()[:, 0]
    if not len(wide):
        return None
    at = int(wide[-1])
    return Gap(float(logs[at].exp()), float(logs[at + 1].exp()), at + 1)
