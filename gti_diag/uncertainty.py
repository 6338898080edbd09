"""How far a number can be trusted: permutation p-values, bootstrap intervals, null bands.

Everything here works on numbers that somebody else measured, or calls a measure that somebody else wrote; randomness comes in as a
`torch.Generator`, so a result is a function of its arguments.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

Alternative = Literal["greater", "less", "two-sided"]


class Interval(NamedTuple):
    low: float
    high: float


class Band(NamedTuple):
    """Where a measure lies on samples that are known to be ordinary."""

    low: float
    median: float
    high: float
    samples: int


def permutation_p_value(
    observed: float, null: Float[Tensor, " samples"], *, alternative: Alternative = "greater"
) -> float:
    """(b + 1) / (m + 1), with b of the m null values at least as extreme as `observed`; never 0.

    `greater` counts null >= observed, `less` null <= observed. `two-sided` doubles the smaller of the two (at most 1): a permutation
    null need not be symmetric about 0, so comparing absolute values (scikit-bio's convention) answers another question.
    A null value that differs from the observed one by rounding only (1e-12 of the larger magnitude) counts as reaching it.

    Raises: ValueError if the null is empty or a value is not finite.
    Source: Phipson & Smyth 2010, doi 10.2202/1544-6115.1585; the doubling is that of ape::mantel.test.
    """
    null = null.double()
    if null.numel() == 0:
        raise ValueError("the null distribution is empty: draw at least one permutation")
    if not (torch.isfinite(null).all() and torch.isfinite(torch.tensor(observed)).item()):
        raise ValueError("the observed value and the null values must be finite")
    slack = 1e-12 * max(abs(observed), null.abs().max().item())
    above = (1 + int((null >= observed - slack).sum())) / (1 + null.numel())
    below = (1 + int((null <= observed + slack).sum())) / (1 + null.numel())
    if alternative == "two-sided":
        return min(1.0, 2 * min(above, below))
    return above if alternative == "greater" else below


def percentile_interval(samples: Float[Tensor, " samples"], *, confidence: float) -> Interval:
    """The central `confidence` share of the samples: quantiles (1 - c) / 2 and (1 + c) / 2, linearly interpolated.

    Raises: ValueError unless 0 < confidence < 1 and there are at least two finite samples.
    Source: Efron & Tibshirani 1993, An Introduction to the Bootstrap, section 13.3.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; it must lie between 0 and 1")
    if samples.numel() < 2 or not torch.isfinite(samples).all():
        raise ValueError("an interval needs at least two samples, all finite")
    tail = (1 - confidence) / 2
    low, high = torch.quantile(samples.double(), samples.new_tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return Interval(low, high)


def bootstrap_interval(
    measure: Callable[[Int[Tensor, " tokens"]], float],
    count: int,
    *,
    samples: int = 1000,
    confidence: float = 0.95,
    generator: torch.Generator,
) -> Interval:
    """Percentile interval of `measure(ids)` over resamples of `count` tokens, drawn with replacement.

    For measures of single tokens (a mean norm, a median distance). A measure of *pairs* must not meet a token's own copy as if it
    were a second token: use `rsa.rsa_interval` there.

    Raises: ValueError for fewer than two tokens, or what `percentile_interval` refuses.
    Source: Efron & Tibshirani 1993, section 13.3.
    """
    if count < 2:
        raise ValueError(f"{count} token cannot be resampled: an interval needs at least two")
    draws = [
        measure(torch.randint(count, (count,), generator=generator, device=generator.device)) for _ in range(samples)
    ]
    return percentile_interval(torch.tensor(draws, dtype=torch.float64), confidence=confidence)


def null_band(
    measure: Callable[[Int[Tensor, " size"]], float],
    population: int,
    *,
    size: int,
    samples: int = 100,
    share: float = 0.95,
    generator: torch.Generator,
) -> Band:
    """Where `measure(ids)` lies for `samples` random groups of `size` tokens out of `population`, drawn without replacement.

    The yardstick for measures that depend on how many rows there are (effective rank, for one): a group is judged against ordinary
    groups of its own size. Low and high enclose the central `share` of the samples.

    Raises: ValueError if `size` exceeds `population`, or what `percentile_interval` refuses.
    Source: ours (a Monte Carlo reference distribution).
    """
    if not 0 < size <= population:
        raise ValueError(f"cannot draw {size} of {population} tokens without replacement")
    values = torch.tensor(
        [
            measure(torch.randperm(population, generator=generator, device=generator.device)[:size])
            for _ in range(samples)
        ],
        dtype=torch.float64,
    )
    low, high = percentile_interval(values, confidence=share)
    return Band(low, values.quantile(0.5).item(), high, samples)
