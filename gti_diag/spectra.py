"""Spectra of embedding rows: singular values in one pass, and the ranks and exponents read from them.

Notation: σ are singular values, λ = σ². "Centred" means that the column mean was removed from the rows
first. Five published quantities are called "effective rank"; each has its own function and its own name
here.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

NOISE = torch.finfo(torch.float64).eps  # times the trace; a fifth of that was the largest seen
TILE_ROWS = 2048  # of float64: fits the cache with the Gram matrix, and keeps memory flat


@dataclass(frozen=True)
class Moments:
    """First and second moments of rows, float64, about a shift that keeps the digits of small spreads.

    total = Σ (xᵢ − shift), gram = Σ (xᵢ − shift)(xᵢ − shift)ᵀ.
    """

    count: int
    shift: Float[Tensor, " dim"]
    total: Float[Tensor, " dim"]
    gram: Float[Tensor, "dim dim"]

    @property
    def mean(self) -> Float[Tensor, " dim"]:
        return self.shift + self.total / self.count

    def scatter(self, *, centred: bool) -> Float[Tensor, "dim dim"]:
        """Σ (xᵢ − c)(xᵢ − c)ᵀ with c the mean if centred, else 0."""
        offset = self.total / self.count
        if centred:
            return self.gram - self.count * torch.outer(offset, offset)
        cross = torch.outer(self.total, self.shift)
        return self.gram + cross + cross.T + self.count * torch.outer(self.shift, self.shift)

    def noise(self, *, centred: bool) -> float:
        """The size of an eigenvalue of `scatter` that rounding alone can make."""
        scale = self.gram.trace() if centred else self.gram.trace() + self.scatter(centred=False).trace()
        return NOISE * float(scale)


def moments(rows: Float[Tensor, "tokens dim"] | Iterable[Tensor]) -> Moments:
    """Count, mean and Gram matrix of rows (one tensor, or tiles of one) in a single pass, in float64.

    The rows are shifted by the mean of the first tile: identical rows become exact zeros, and rows that
    hug their mean keep all their digits.

    Raises: ValueError if there are no rows, or a row is not finite.
    """
    count = 0
    for tile in filter(len, _tiles(rows)):
        if count == 0:
            first = tile[0].double()
            shift = first + (tile.double() - first).mean(0)
            total, gram = torch.zeros_like(shift), shift.new_zeros(len(shift), len(shift))
            buffer = shift.new_empty(TILE_ROWS, len(shift))
        shifted = buffer[: len(tile)].copy_(tile).sub_(shift)
        count += len(tile)
        total += shifted.sum(0)
        _add_gram(gram, shifted)
    if count == 0:
        raise ValueError("no rows: moments need at least one")
    if not bool(torch.isfinite(gram.diagonal()).all()):
        raise ValueError("a row holds NaN or infinity: its moments are undefined")
    return Moments(count, shift, total, gram.triu() + gram.triu(1).T)


def singular_values(rows: Float[Tensor, "tokens dim"] | Moments, *, centred: bool = False) -> Float[Tensor, " rank"]:
    """σ of the rows (minus their mean if centred), descending, float64, length min(tokens, dim).

    Values that rounding alone explains (λ below `Moments.noise`) are returned as exact zeros. Identical
    rows, centred, give all zeros.

    Raises: ValueError if there are no rows, or a row is not finite.
    Source: eigenvalues of the Gram matrix; Golub & Van Loan, Matrix Computations (4th ed.), §8.6.
    """
    if isinstance(rows, Moments):
        count, scatter, noise = rows.count, rows.scatter(centred=centred), rows.noise(centred=centred)
    elif len(rows) < rows.shape[1]:
        count, (scatter, noise) = len(rows), _row_gram(rows, centred=centred)
    else:
        return singular_values(moments(rows), centred=centred)
    eigenvalues = _eigvalsh(scatter).flip(0)[: min(count, scatter.shape[0])]
    return torch.where(eigenvalues > noise, eigenvalues, 0.0).sqrt()


def effective_rank(s: Float[Tensor, " rank"]) -> float:
    """exp(−Σ p ln p), p = σ/Σσ. Between 1 and the rank; unchanged by scaling.

    Raises: ValueError if all singular values are zero.
    Source: Roy & Vetterli, The effective rank (EUSIPCO 2007).
    """
    return _entropy_rank(_spectrum(s))


def energy_effective_rank(s: Float[Tensor, " rank"]) -> float:
    """exp(−Σ p ln p), p = σ²/Σσ². Never more than `effective_rank`.

    Raises: ValueError if all singular values are zero.
    Source: exponential of the von Neumann entropy; Del Giudice, Effective dimensionality (2021), order 1.
    """
    return _entropy_rank(_spectrum(s) ** 2)


def rankme(s: Float[Tensor, " rank"], *, epsilon: float = 1e-7) -> float:
    """exp(−Σ p ln p), p = σ/Σσ + ε. The ε is not renormalised, so the value can exceed the rank.

    Raises: ValueError if all singular values are zero.
    Source: Garrido et al., RankMe (arXiv 2210.02885), equation 1.
    """
    s = _spectrum(s)
    p = s / s.sum() + epsilon
    return float(torch.exp(-(p * p.log()).sum()))


def participation_ratio(s: Float[Tensor, " rank"]) -> float:
    """(Σλ)² / Σλ², λ = σ². Between 1 and the rank.

    Raises: ValueError if all singular values are zero.
    Source: Gao et al., A theory of multineuronal dimensionality (bioRxiv 214262).
    """
    energy = _spectrum(s) ** 2
    return float(energy.sum() ** 2 / (energy**2).sum())


def stable_rank(s: Float[Tensor, " rank"]) -> float:
    """‖A‖²_F / ‖A‖²₂ = Σσ² / σ₁². Between 1 and the participation ratio.

    Raises: ValueError if all singular values are zero.
    Source: Rudelson & Vershynin, Sampling from large matrices (2007).
    """
    return float((_spectrum(s) ** 2).sum())


def numerical_rank(s: Float[Tensor, " rank"], *, shape: tuple[int, int], dtype: torch.dtype) -> int:
    """#{σ > σ₁ · max(shape) · eps}, eps that of the dtype the rows were stored in. 0 if all are zero.

    For 16-bit and smaller storage that tolerance exceeds σ₁ itself (from 128 rows of bfloat16 on), and
    every matrix would have rank 0. There it is ½ eps · √Σσ², the most that rounding each entry to the
    dtype can move any σ.

    Source: Golub & Van Loan, Matrix Computations (4th ed.), §5.4.1; the first form is numpy's and MATLAB's.
    """
    s, eps = _spectrum(s, zeros=True), torch.finfo(dtype).eps
    coarse = eps > 1e-6
    tolerance = 0.5 * eps * float((s**2).sum().sqrt()) if coarse else float(s.max()) * max(shape) * eps
    return int((s > tolerance).sum())


def condition_number(s: Float[Tensor, " rank"]) -> float:
    """σ₁ / σ_min.

    Raises: ValueError if the smallest singular value is zero (the rows are rank deficient).
    Source: Golub & Van Loan, Matrix Computations (4th ed.), §2.6.2.
    """
    s = _spectrum(s, scale=False)
    if float(s.min()) == 0:
        raise ValueError(f"{int((s == 0).sum())} of {len(s)} singular values are zero: no condition number")
    return float(s.max() / s.min())


def explained_variance(s: Float[Tensor, " rank"], k: int) -> float:
    """Σ_{i≤k} σᵢ² / Σσ², the share of the energy in the k largest components; variance if s is centred.

    Raises: ValueError if k is not between 1 and the number of singular values, or all are zero.
    Source: Jolliffe, Principal Component Analysis (2nd ed.), §6.1.1.
    """
    if not 1 <= k <= len(s):
        raise ValueError(f"k = {k} components: must lie between 1 and {len(s)}")
    energy = _spectrum(s) ** 2
    return float(energy.sort(descending=True).values[:k].sum() / energy.sum())


def components_for(s: Float[Tensor, " rank"], share: float) -> int:
    """min k with Σ_{i≤k} σᵢ² ≥ share · Σσ².

    Raises: ValueError if the share is not in (0, 1], or all singular values are zero.
    Source: Jolliffe, Principal Component Analysis (2nd ed.), §6.1.1.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share = {share}: must lie in (0, 1]")
    running = (_spectrum(s) ** 2).sort(descending=True).values.cumsum(0)
    return int((running < share * running[-1]).sum()) + 1


class PowerLaw(NamedTuple):
    """λᵢ ∝ i^(−exponent) over ranks first … last, with the fit's r² on log axes."""

    exponent: float
    first: int
    last: int
    r_squared: float


def alpha_req(s: Float[Tensor, " rank"], *, fit: tuple[int, int] | None = None) -> PowerLaw:
    """α of λᵢ ∝ i^(−α): minus the least-squares slope of ln λᵢ on ln i over ranks fit = (first, last).

    The range defaults to rank 11 up to half of the non-zero values, so that neither the leading
    directions nor the edge of the spectrum bends the line. For centred s. This is α-ReQ's α, not
    WeightWatcher's (the exponent of the density of λ).

    Raises: ValueError if the range holds fewer than 3 ranks, or reaches past the non-zero singular values.
    Source: Agrawal et al., α-ReQ (NeurIPS 2022); Stringer et al., High-dimensional geometry (Nature 2019).
    """
    energy = (_spectrum(s) ** 2).sort(descending=True).values
    positive = int((energy > 0).sum())
    first, last = (11, positive // 2) if fit is None else fit
    if first < 1 or last > positive or last - first < 2:
        raise ValueError(f"power law over ranks {first} to {last} of {positive} non-zero: needs 3 of them")
    x = torch.arange(first, last + 1, dtype=torch.float64, device=s.device).log()
    y = energy[first - 1 : last].log()
    x, y = x - x.mean(), y - y.mean()
    slope = (x @ y) / (x @ x)
    explained = 1.0 if float(y @ y) == 0 else float(slope**2 * (x @ x) / (y @ y))
    return PowerLaw(-float(slope), first, last, explained)


def principal_axes(rows: Moments, k: int, *, centred: bool = True) -> Float[Tensor, "dim k"]:
    """The k leading right singular vectors of the rows, as orthonormal columns, largest first.

    Raises: ValueError if fewer than k directions stand above the noise.
    """
    with one_thread():
        eigenvalues, vectors = torch.linalg.eigh(rows.scatter(centred=centred))
    available = int((eigenvalues > rows.noise(centred=centred)).sum())
    if not 1 <= k <= available:
        raise ValueError(f"k = {k} principal axes: the rows span {available}")
    return vectors.flip(1)[:, :k]


@contextmanager
def one_thread() -> Iterator[None]:
    """Small LAPACK calls on one thread: two on a busy machine wait for each other, 0.1 s becomes 7 s."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _tiles(rows: Tensor | Iterable[Tensor]) -> Iterator[Tensor]:
    for tile in (rows,) if isinstance(rows, Tensor) else rows:
        yield from tile.split(TILE_ROWS)


def _add_gram(gram: Tensor, tile: Tensor, blocks: int = 8) -> None:
    """gram += tileᵀ tile, in the upper block triangle only: 36 of 64 blocks."""
    edges = [tile.shape[1] * block // blocks for block in range(blocks + 1)]
    for low, high in pairwise(edges):
        gram[low:high, low:].addmm_(tile[:, low:high].T, tile[:, low:])


def _row_gram(rows: Tensor, *, centred: bool) -> tuple[Tensor, float]:
    # Fewer rows than columns: the n × n Gram matrix has the same non-zero spectrum, and is small.
    if len(rows) == 0:
        raise ValueError("no rows: a spectrum needs at least one")
    wide = rows.double()
    if not bool(torch.isfinite(wide).all()):
        raise ValueError("a row holds NaN or infinity: its spectrum is undefined")
    if centred:
        wide = wide - wide[0]  # identical rows become exact zeros, which the mean then leaves alone
        wide = wide - wide.mean(0)
    gram = wide @ wide.T
    return gram, NOISE * float(gram.trace())


def _eigvalsh(symmetric: Tensor) -> Tensor:
    with one_thread():
        return torch.linalg.eigvalsh(symmetric)


def _spectrum(s: Tensor, *, zeros: bool = False, scale: bool = True) -> Tensor:
    """s as float64, divided by its largest value so that no square overflows; refuses what is none."""
    if len(s) == 0 or not bool(torch.isfinite(s).all()) or float(s.min()) < 0:
        raise ValueError("not a spectrum: singular values must exist, be finite and not negative")
    if float(s.max()) == 0 and not zeros:
        raise ValueError("all singular values are zero: no rank or shape is defined")
    s = s.double()
    return s / s.max() if scale and not zeros else s


def _entropy_rank(weights: Tensor) -> float:
    p = weights / weights.sum()
    return float(torch.exp(-torch.special.xlogy(p, p).sum()))
