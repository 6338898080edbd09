"""Spectra of embedding rows: singular values in one pass, and the ranks and exponents read from them.

Notation: σ are singular values, λ = σ². "Centred" means that the column mean was removed from the rows
first. Five published quantities are called "effective rank"; each has its own function and its own name
here.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from scipy import linalg
from scipy.sparse import linalg as sparse_linalg
from torch import Tensor

from .geometry import centroid
from .tiles import add_gram, height, mirror, one_thread, one_thread_each, wide_tiles, workers

EPS = torch.finfo(torch.float64).eps
NOISE = 8 * EPS  # times the trace; 2.8 eps was the largest seen, on three processors
PARTS = 4  # Gram matrices summed side by side: a worker that a busy core slows takes fewer of them
LARGE = 4096  # columns; above, LAPACK works within the matrix and on both cores
DIRECT = 1 << 21  # numbers of float64 rows up to which singular values are taken of the rows themselves
WIDEST_APART = 2048  # columns; above, one Gram matrix is summed by all threads together: four would take gigabytes


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
        """Σ (xᵢ − c)(xᵢ − c)ᵀ with c the mean if centred, else 0: a matrix of its own, which the caller may overwrite."""
        around = self.total / self.count
        if centred:  # G − n t tᵀ, t the mean about the shift
            return torch.addr(self.gram, around, around, alpha=-self.count)
        found = torch.addr(self.gram, self.mean, self.shift, alpha=self.count)
        return found.addr_(self.shift, around, alpha=self.count)

    def scatter_trace(self, *, centred: bool) -> float:
        """Σ ‖xᵢ − c‖², the trace of `scatter`, without that matrix."""
        own, around = self.gram.diagonal().sum(), self.total / self.count
        if centred:
            return max(0.0, float(own - self.count * (around @ around)))
        return float(own + self.count * (self.shift @ (self.mean + around)))

    def noise(self, *, centred: bool) -> float:
        """The size of an eigenvalue of `scatter` that rounding alone can make."""
        own = float(self.gram.diagonal().sum())
        return NOISE * (own if centred else own + self.scatter_trace(centred=False))


def moments(rows: Float[Tensor, "tokens dim"] | Iterable[Tensor]) -> Moments:
    """Count, mean and Gram matrix of rows (one tensor, or tiles of one) in a single pass, in float64.

    The rows are shifted by the mean of the first tile: identical rows become exact zeros, and rows that
    hug their mean keep all their digits. Memory: the tiles that come, and up to 4 matrices dim × dim.

    Raises: ValueError if there are no rows, or a row is not finite.
    """
    count, shift = 0, None
    for tile in filter(len, (rows,) if isinstance(rows, Tensor) else rows):
        if shift is None:
            first = tile[0].double()
            shift = first + sum(part.sum(0) for part in wide_tiles(tile[: height(len(first))], centre=first)) / min(
                len(tile), height(len(first))
            )
            apart = PARTS if len(first) <= WIDEST_APART and workers(tile.device) > 1 else 1
            totals, grams = shift.new_zeros(apart, len(first)), [shift.new_zeros(len(first), len(first))]
        count += len(tile)
        if apart == 1 or len(tile) < apart * height(len(shift)) // 4:
            _add_moments(totals[0], grams[0], tile, shift)
            continue
        grams += [torch.zeros_like(grams[0]) for _ in range(apart - len(grams))]
        with one_thread_each(workers(tile.device)) as pool:
            list(pool.map(_add_moments, totals, grams, tile.tensor_split(apart), [shift] * apart))
    if shift is None:
        raise ValueError("no rows: moments need at least one")
    gram = grams[0]
    for other in grams[1:]:
        gram += other
    if not bool(torch.isfinite(gram.diagonal()).all()):
        raise ValueError("a row holds NaN or infinity: its moments are undefined")
    mirror(gram)
    return Moments(count, shift, totals.sum(0), gram)


def singular_values(rows: Float[Tensor, "tokens dim"] | Moments, *, centred: bool = False) -> Float[Tensor, " rank"]:
    """σ of the rows (minus their mean if centred), descending, float64, length min(tokens, dim).

    Values that rounding alone explains (λ below `Moments.noise`: σ below some 4e-8 σ₁) are returned as exact zeros.
    Identical rows, centred, give all zeros. Of a few float64 rows (`is_direct`) σ is seen down to max(tokens, dim) · eps · ‖rows‖_F.

    Raises: ValueError if there are no rows, or a row is not finite.
    Source: eigenvalues of the Gram matrix; Golub & Van Loan, Matrix Computations (4th ed.), §8.6; its square root of the precision
        is what float64 rows are too good for.
    """
    if isinstance(rows, Moments):
        count, scatter, noise = rows.count, rows.scatter(centred=centred), rows.noise(centred=centred)
    elif is_direct(rows):
        wide, square = _centred(rows, centred=centred)
        s = torch.linalg.svdvals(wide)
        return torch.where(s > max(wide.shape) * EPS * square**0.5, s, 0.0)
    elif len(rows) < rows.shape[1]:
        count, (scatter, noise) = len(rows), _row_gram(rows, centred=centred)
    else:
        return singular_values(moments(rows), centred=centred)
    eigenvalues = _eigvalsh(scatter).flip(0)[: min(count, scatter.shape[0])]
    return torch.where(eigenvalues > noise, eigenvalues, 0.0).sqrt()


def is_direct(rows: Float[Tensor, "tokens dim"] | Moments) -> bool:
    """Whether `singular_values` takes them of the rows themselves: float64 rows of at most 2²¹ numbers."""
    return isinstance(rows, Tensor) and rows.dtype == torch.float64 and rows.numel() <= DIRECT


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
    Source: eigenvectors of the Gram matrix; Golub & Van Loan, Matrix Computations (4th ed.), §8.6.
    """
    scatter, noise = rows.scatter(centred=centred), rows.noise(centred=centred)
    dim = len(scatter)
    if _is_large(scatter):  # all eigenvectors would be a second matrix of this size, and minutes
        k = min(k, dim)
        eigenvalues, vectors = map(torch.from_numpy, linalg.eigh(
            scatter.numpy().T, subset_by_index=[dim - max(k, 1), dim - 1], overwrite_a=True, check_finite=False))  # fmt: skip
    else:
        with one_thread():
            eigenvalues, vectors = torch.linalg.eigh(scatter)
    available = int((eigenvalues > noise).sum())
    if not 1 <= k <= available:
        raise ValueError(f"k = {k} principal axes: the rows span {available}")
    return vectors.flip(1)[:, :k]


def leading_axes(parts: Sequence[Float[Tensor, "_ dim"]], k: int) -> Float[Tensor, "dim k"]:
    """A few leading principal axes of groups of rows, each about the mean of the group means and each weighing the same.

    Orthonormal columns, largest first; of one group, its ordinary principal axes. No matrix dim × dim is formed: the
    Lanczos iteration walks over the rows, so k should be small.

    Raises: ValueError if fewer than k directions stand above the noise, or as `centroid`.
    Source: Lehoucq, Sorensen & Yang, ARPACK Users' Guide (1998).
    """
    centre = torch.stack([centroid(part) for part in parts]).mean(0)
    stacked = torch.cat(
        [(tile / len(part) ** 0.5).float() for part in parts for tile in wide_tiles(part, centre=centre)]
    )
    scale = float(torch.linalg.vector_norm(stacked, dtype=torch.float64))
    if scale == 0:
        raise ValueError(f"k = {k} principal axes: the rows span 0")
    stacked /= scale
    if min(stacked.shape) <= 4 * k:  # too few for an iteration: take them all
        s, vectors = torch.linalg.svd(stacked.double(), full_matrices=False)[1:]
        eigenvalues, vectors = s**2, vectors.T
    else:
        product = lambda v: (stacked.T @ (stacked @ torch.from_numpy(v).to(stacked))).cpu().numpy()  # noqa: E731
        dim = stacked.shape[1]
        start = np.random.default_rng(0).standard_normal(dim).astype("float32")
        operator = sparse_linalg.LinearOperator((dim, dim), matvec=product, dtype="float32")
        try:
            eigenvalues, vectors = map(torch.from_numpy, sparse_linalg.eigsh(operator, k=k, v0=start, tol=1e-4))
        except sparse_linalg.ArpackError as error:
            raise ValueError(f"the {k} leading axes cannot be told from those that follow ({error})") from error
        order = eigenvalues.argsort(descending=True)
        eigenvalues, vectors = eigenvalues[order], vectors[:, order]
    available = int((eigenvalues > torch.finfo(torch.float32).eps).sum())
    if not 1 <= k <= available:
        raise ValueError(f"k = {k} principal axes: the rows span {available}")
    return torch.linalg.qr(vectors[:, :k].double()).Q.to(stacked.device)


def _add_moments(total: Tensor, gram: Tensor, rows: Tensor, shift: Tensor) -> None:
    """total += Σ (xᵢ − shift), gram += Σ (xᵢ − shift)(xᵢ − shift)ᵀ."""
    for tile in wide_tiles(rows, centre=shift):
        total += tile.sum(0)
        add_gram(gram, tile)


def _row_gram(rows: Tensor, *, centred: bool) -> tuple[Tensor, float]:
    # Fewer rows than columns: the n × n Gram matrix has the same non-zero spectrum, and is small.
    wide, _ = _centred(rows, centred=centred)
    gram = wide @ wide.T
    return gram, NOISE * float(gram.trace())


def _centred(rows: Tensor, *, centred: bool) -> tuple[Tensor, float]:
    """The rows in float64, minus their mean if centred, and the square sum from which they were rounded."""
    if len(rows) == 0:
        raise ValueError("no rows: a spectrum needs at least one")
    wide = rows.double()
    if not bool(torch.isfinite(wide).all()):
        raise ValueError("a row holds NaN or infinity: its spectrum is undefined")
    if centred:
        wide = wide - wide[0]  # identical rows become exact zeros, which the mean then leaves alone
    square = float(wide.square().sum())
    return (wide - wide.mean(0) if centred else wide), square


def _is_large(symmetric: Tensor) -> bool:
    return len(symmetric) > LARGE and symmetric.device.type == "cpu"


def _eigvalsh(symmetric: Tensor) -> Tensor:
    """Eigenvalues, ascending. The matrix is overwritten if it is large."""
    if _is_large(symmetric):
        return torch.from_numpy(linalg.eigvalsh(symmetric.numpy().T, overwrite_a=True, check_finite=False))
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
