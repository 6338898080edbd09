"""What numbers over users may be believed: bootstrap intervals, paired comparisons, a correction for how many there are.

Source: percentile bootstrap, Efron and Tibshirani 1993, §13.3; paired randomisation by flipping signs, Smucker, Allan and
Carterette 2007; correction for several arms, Holm 1979.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gti_diag.errors import InputError

DRAWS, COVERAGE = 2000, 0.95
AT_ONCE = 1 << 22  # numbers in one batch of draws


@dataclass(frozen=True)
class Difference:
    """Mean of an arm minus mean of what it is compared with, metric by metric.

    relative: the difference divided by the compared mean, NaN where that is 0, with its interval; p: two-sided, of no
    difference.
    """

    mean: Float[Tensor, " metrics"]
    interval: Float[Tensor, "metrics two"]
    relative: Float[Tensor, " metrics"]
    relative_interval: Float[Tensor, "metrics two"]
    p: Float[Tensor, " metrics"]


def interval(values: Float[Tensor, "users metrics"], *, seed: int, draws: int = DRAWS) -> Float[Tensor, "metrics two"]:
    """The 95 % percentile bootstrap interval of the mean over users."""
    return _bounds(torch.cat([part @ values for part in _resampled(len(values), draws, seed)]))


def difference(
    arm: Float[Tensor, "users metrics"], other: Float[Tensor, "users metrics"], *, seed: int, draws: int = DRAWS
) -> Difference:
    """An arm against another on the same users.

    Raises:
        InputError: other users.
    """
    if arm.shape != other.shape or not len(arm):
        raise InputError(
            f"{tuple(arm.shape)} against {tuple(other.shape)} values: compare the same users, one at least"
        )
    apart = arm - other
    both = [torch.cat([part @ values for part in _resampled(len(arm), draws, seed)]) for values in (apart, other)]
    return Difference(
        apart.mean(0),
        _bounds(both[0]),
        apart.mean(0) / other.mean(0).where(other.mean(0) != 0, torch.nan),
        _bounds(both[0] / both[1].where(both[1] != 0, torch.nan)),
        permutation(apart, seed=seed, draws=draws),
    )


def permutation(apart: Float[Tensor, "users metrics"], *, seed: int, draws: int = DRAWS) -> Float[Tensor, " metrics"]:
    """(1 + #{draws: |mean of ±d| ≥ |mean of d|}) / (1 + draws): signs of the differences flipped at random."""
    reached, observed = torch.zeros(apart.shape[1], dtype=torch.long), apart.sum(0).abs()
    for signs in _flipped(len(apart), draws, seed):
        reached += ((signs @ apart).abs() >= observed * (1 - 1e-12)).sum(0)
    return (1 + reached).double() / (1 + draws)


def holm(p: Mapping[str, Float[Tensor, " metrics"]]) -> dict[str, Float[Tensor, " metrics"]]:
    """p-values of several arms, each metric corrected for their number: the i-th smallest of n is multiplied by n − i + 1."""
    if not p:
        return {}
    ranked, order = torch.stack(list(p.values())).sort(dim=0)
    factors = torch.arange(len(p), 0, -1, dtype=ranked.dtype)[:, None]
    corrected = (ranked * factors).cummax(0)[0].clamp(max=1)
    return dict(zip(p, torch.empty_like(corrected).scatter(0, order, corrected), strict=True))


def _resampled(users: int, draws: int, seed: int) -> Iterator[Float[Tensor, "draws users"]]:
    """Weights of the users, which sum to 1, in each resample of as many with replacement."""
    generator = torch.Generator().manual_seed(seed)
    for count in _batches(users, draws):
        chosen = torch.randint(users, (count, users), generator=generator)
        yield torch.zeros(count, users, dtype=torch.float64).scatter_add_(
            1, chosen, torch.full(chosen.shape, 1 / users, dtype=torch.float64)
        )


def _flipped(users: int, draws: int, seed: int) -> Iterator[Float[Tensor, "draws users"]]:
    generator = torch.Generator().manual_seed(seed)
    for count in _batches(users, draws):
        yield torch.randint(2, (count, users), generator=generator).double() * 2 - 1


def _batches(users: int, draws: int) -> list[int]:
    size = max(1, AT_ONCE // users)
    return [min(size, draws - start) for start in range(0, draws, size)]


def _bounds(means: Float[Tensor, "draws metrics"]) -> Float[Tensor, "metrics two"]:
    tail = (1 - COVERAGE) / 2
    return torch.nanquantile(means, torch.tensor([tail, 1 - tail], dtype=means.dtype), dim=0).T
