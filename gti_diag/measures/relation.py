"""One group of rows against another: new tokens against the text vocabulary, or a checkpoint against its base."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from scipy import linalg
from torch import Tensor

from .geometry import DirectionSum, centroid, direction_sum, row_lengths
from .spectra import LARGE
from .tiles import one_thread_each, tiles, wide_tiles, workers

TILE_NUMBERS = 1 << 23  # of candidates scored at a time: 8,192 rows of 1,024,
TILE_ROWS = 1 << 13  # … and no more rows of few columns: each takes a score for every query
QUERY_ROWS = 2048
SPARE = 32  # candidates kept beyond k, so that rounding to bfloat16 rarely decides


def centroid_distance(rows: Float[Tensor, "tokens dim"], *, mean: Float[Tensor, " dim"], dispersion: float) -> float:
    """‖x̄ − mean‖ / dispersion: how far the rows' centroid lies from another group's, in that group's spread.

    Raises: ValueError if there are no rows, or the dispersion is not positive.
    Source: Cohen's d for vectors; Huberty & Olejnik, Applied MANOVA and Discriminant Analysis (2006), §3.6.
    """
    if len(rows) == 0 or not dispersion > 0:
        raise ValueError(f"{len(rows)} rows, dispersion {dispersion}: a centroid distance needs both positive")
    return float(torch.linalg.vector_norm(centroid(rows) - mean.double())) / dispersion


def norm_shift(new: float, *, mean: float, std: float) -> float:
    """(mean ‖new‖ − mean ‖reference‖) / std ‖reference‖: from the mean norm of one group, and mean and population std of another's.

    Raises: ValueError if the reference norms do not vary.
    Source: Glass's Δ; Glass, Primary, secondary, and meta-analysis of research (1976).
    """
    if std == 0:
        raise ValueError("the text norms are all equal: no unit to measure a shift in")
    return (new - mean) / std


class SubspaceEnergy(NamedTuple):
    """Share of the energy inside the subspace, and the share a direction drawn at random would have there."""

    share: float
    chance: float


def subspace_energy(
    rows: Float[Tensor, "tokens dim"], axes: Float[Tensor, "dim rank"], *, mean: Float[Tensor, " dim"]
) -> SubspaceEnergy:
    """‖(X − mean) V‖²_F / ‖X − mean‖²_F for orthonormal axes V; chance = rank/dim.

    With V the principal axes of text and `mean` its mean: how much of the new rows lies where words differ.

    Raises: ValueError if every row equals the mean, or one is not finite.
    Source: Krzanowski, Between-groups comparison of principal components (1979).
    """
    inside = total = 0.0
    wide = axes.double()
    for offset in wide_tiles(rows, centre=mean.double()):
        inside += float((offset @ wide).square_().sum())
        total += float(offset.square_().sum())
    if not 0 < total < torch.inf:
        fault = "every row equals the mean" if total == 0 else "a row holds NaN or infinity"
        raise ValueError(f"{fault}: no energy to share")
    return SubspaceEnergy(min(inside / total, 1.0), axes.shape[1] / axes.shape[0])


def principal_angles(first: Float[Tensor, "dim rank"], second: Float[Tensor, "dim others"]) -> Float[Tensor, " angles"]:
    """Angles θ₁ ≤ θ₂ ≤ … in radians between two subspaces, each given by orthonormal columns.

    cos θ are the singular values of AᵀB; angles below 45° are taken from their sines, which keep the digits.

    Raises: ValueError if the columns of either are not orthonormal.
    Source: Björck & Golub, Numerical methods for computing angles between linear subspaces (1973).
    """
    a, b = first.double(), second.double()
    for name, axes in (("first", a), ("second", b)):
        gap = axes.T @ axes - torch.eye(axes.shape[1], dtype=axes.dtype, device=axes.device)
        if float(gap.abs().max()) > 1e-6:
            raise ValueError(f"the columns of the {name} subspace are not orthonormal: take their QR factor")
    if a.shape[1] < b.shape[1]:
        a, b = b, a
    projection = a.T @ b
    cosines = torch.linalg.svdvals(projection).clamp(max=1)
    sines = torch.linalg.svdvals(b - a @ projection).clamp(max=1).flip(0)
    return torch.where(cosines**2 > 0.5, sines.asin(), cosines.acos())


def mahalanobis(
    rows: Float[Tensor, "tokens dim"],
    *,
    mean: Float[Tensor, " dim"],
    covariance: Float[Tensor, "dim dim"],
    overwrite: bool = False,
) -> Float[Tensor, " tokens"]:
    """√((x − mean)ᵀ C⁻¹ (x − mean)) of each row. Under C's own rows (divided by n) its mean square is dim.

    `overwrite` allows the covariance to be destroyed, which on a CPU saves a copy of it.

    Raises: ValueError if C is singular (fewer rows than dimensions, or a coordinate that never varies), there are no rows,
        or one is not finite.
    Source: Mahalanobis, On the generalized distance in statistics (1936).
    """
    factor, failed = _cholesky(covariance.double(), overwrite=overwrite)
    pivots = factor.diagonal()
    singular = failed or float(pivots.min() / pivots.max()) ** 2 < torch.finfo(torch.float64).eps * len(mean)
    if singular:
        raise ValueError("the covariance is singular: Mahalanobis distances need more varied rows than dimensions")
    parts = []
    for offset in wide_tiles(rows, centre=mean.double()):
        whitened = torch.linalg.solve_triangular(factor, offset.T, upper=False)
        parts.append(torch.linalg.vector_norm(whitened, dim=0))
    if not parts or not bool(torch.isfinite(torch.cat(parts)).all()):
        raise ValueError(
            f"{len(rows)} rows, all of which must be finite, are needed: Mahalanobis distances are undefined"
        )
    return torch.cat(parts)


def _cholesky(covariance: Tensor, *, overwrite: bool) -> tuple[Tensor, bool]:
    """The lower factor, and whether there is none. Of a large matrix scipy's, in place; its threads wait for each other."""
    if overwrite and covariance.device.type == "cpu" and len(covariance) > LARGE:
        columns_first = covariance.numpy().T  # symmetric: the same matrix, in the order that LAPACK works on in place
        factor, failed = linalg.lapack.dpotrf(columns_first, lower=1, overwrite_a=1, clean=1)
        return torch.from_numpy(factor), failed != 0
    factor, failed = torch.linalg.cholesky_ex(covariance)
    return factor, bool(failed)


def cross_cosine(
    first: Float[Tensor, "tokens dim"], second: Float[Tensor, "others dim"]
) -> Float[Tensor, "tokens others"]:
    """cos(xᵢ, yⱼ) for all pairs, float64. For panels of some hundred rows.

    Raises: ValueError if a row is zero.
    Source: the cosine of the angle between two vectors.
    """
    return (_units(first) @ _units(second).T).clamp(-1, 1)


def mean_cross_cosine(
    first: Float[Tensor, "tokens dim"] | DirectionSum, second: Float[Tensor, "others dim"] | DirectionSum
) -> float:
    """Mean of cos(xᵢ, yⱼ) over all pairs: S_x·S_y / (n m), S = Σ of unit rows. Exact in one pass over each.

    Raises: ValueError if a row is zero, or a group is empty.
    Source: the mean over a block of the cosine matrix, in closed form.
    """
    a, b = (direction_sum(rows) if isinstance(rows, Tensor) else rows for rows in (first, second))
    return float(a.total @ b.total) / (a.count * b.count)


@dataclass(frozen=True)
class Nearest:
    """Cosines and candidate numbers (in the order of the tiles) of each query's nearest, best first."""

    cosine: Float[Tensor, "queries k"]
    index: Int[Tensor, "queries k"]


def nearest(
    queries: Float[Tensor, "queries dim"], candidates: Float[Tensor, "candidates dim"] | Iterable[Tensor], *, k: int
) -> Nearest:
    """The k candidates of highest cosine for each query, in memory queries · (dim + k) and one tile.

    `candidates` is one tensor, or tiles that can be walked more than once. Scores come from bfloat16 products where
    the processor has instructions for them; the k + 32 best are then scored in float32, and a query for which a
    candidate beyond those could still belong (within six standard deviations of the rounding) is searched in float32.
    Zero candidates (dead rows) are never nearest.

    Raises: ValueError if there are no queries, one is zero, the tiles can be walked only once, or fewer than k candidates
        have a direction.
    Source: cosine similarity, exhaustive search.
    """
    if not len(queries):
        raise ValueError("no queries: nothing to find neighbours of")
    walked = [candidates] if isinstance(candidates, Tensor) else candidates
    if iter(walked) is walked:
        raise ValueError("candidate walked from a one-shot iterator: pass a list, or an object that starts afresh")
    units = torch.cat([_units(tile).float() for tile in tiles(queries)])
    if _multiplies_bfloat16(units.device):
        found, sure = _search(units, walked, k=k, work=torch.bfloat16)
        if not bool(sure.all()):
            redone, _ = _search(units[~sure], walked, k=k, work=torch.float32)
            found.cosine[~sure], found.index[~sure] = redone.cosine, redone.index
        return found
    return _search(units, walked, k=k, work=torch.float32)[0]


def _search(units: Tensor, parts: Iterable[Tensor], *, k: int, work: torch.dtype) -> tuple[Nearest, Tensor]:
    """The nearest, and for which queries no candidate left out could be among them."""
    rough, keep = units.to(work), k + SPARE
    scores = units.new_full((len(units), keep), -torch.inf, dtype=work)
    index = torch.full((len(units), keep), -1, device=units.device)
    most = max(1, min(TILE_ROWS, TILE_NUMBERS // units.shape[1]))
    keys, squares = (units.new_empty(most, units.shape[1]) for _ in range(2))
    coarse = torch.empty_like(keys, dtype=work)
    alive, peaked, shared = 0, 0.0, workers(units.device)
    rows = min(QUERY_ROWS, -(-len(units) // shared))
    slices = rough.split(rows), scores.split(rows), index.split(rows)
    for start, part in _parts(parts, most, units.device):
        size = len(part)
        dead = _unit_or_zero(part, out=keys[:size])
        alive += size - int(dead.sum())
        torch.square(keys[:size], out=squares[:size])
        peaked = max(peaked, float(torch.linalg.vector_norm(squares[:size], dim=1).max()) ** 0.5)
        coarse[:size] = keys[:size]
        with one_thread_each(shared) as pool:
            list(pool.map(partial(_merge, keys=coarse[:size], dead=dead, start=start), *slices))
    if not 1 <= k <= alive:
        raise ValueError(f"k = {k} nearest among {alive} candidates with a direction: must lie between 1 and these")
    worst = scores[:, -1].float()
    exact = units.new_full(scores.shape, -torch.inf, dtype=torch.float64)
    for start, part in _parts(parts, most, units.device):
        query, place = ((index >= start) & (index < start + len(part)) & scores.isfinite()).nonzero(as_tuple=True)
        for q, p in zip(query.split(most), place.split(most), strict=True):
            found = keys[: len(q)]
            _unit_or_zero(part[index[q, p] - start], out=found)
            exact[q, p] = found.mul_(units[q]).sum(1, dtype=torch.float64)
    best = exact.topk(k, dim=1)
    # Rounding both factors errs by √(Σu²v²) · unit · √(2/3) in standard deviation, √(Σu²v²) ≤ ‖u‖₄ ‖v‖₄; six of them,
    # and the rounding of the product itself.
    unit = torch.finfo(work).eps / 2
    slack = unit * (6 * (2 / 3) ** 0.5 * peaked * torch.linalg.vector_norm(units, 4, dim=1) + worst.abs())
    return Nearest(best.values.clamp(-1, 1), index.gather(1, best.indices)), best.values[:, -1] >= worst + slack


def _merge(queries: Tensor, scores: Tensor, index: Tensor, *, keys: Tensor, dead: Tensor, start: int) -> None:
    """Put the best of `keys` (numbered from `start`) among the best so far of these queries, in place."""
    products = queries @ keys.T
    if bool(dead.any()):
        products.masked_fill_(dead, -torch.inf)
    top = products.topk(min(scores.shape[1], len(keys)), dim=1)
    joint, numbers = torch.cat([scores, top.values], 1), torch.cat([index, top.indices + start], 1)
    best = joint.topk(scores.shape[1], dim=1)
    scores.copy_(best.values)
    index.copy_(numbers.gather(1, best.indices))


def _parts(parts: Iterable[Tensor], most: int, device: torch.device) -> Iterator[tuple[int, Tensor]]:
    """Number of the first row, and the rows, of parts of at most `most` rows."""
    start = 0
    for tile in parts:
        for part in tile.split(most):
            yield start, part.to(device)
            start += len(part)


def _unit_or_zero(rows: Tensor, *, out: Tensor) -> Tensor:
    """Write the unit rows in float32 to `out`, zeros for zero rows; which rows are zero."""
    dead = []
    for wide, place in zip(wide_tiles(rows), tiles(out), strict=True):
        lengths = torch.linalg.vector_norm(wide, dim=1, keepdim=True)
        dead.append(lengths[:, 0] == 0)
        lengths[dead[-1]] = 1.0
        place.copy_(wide.div_(lengths))
    return torch.cat(dead) if dead else torch.zeros(0, dtype=torch.bool, device=out.device)


def _multiplies_bfloat16(device: torch.device) -> bool:
    return device.type == "cuda" or torch.cpu._is_avx512_bf16_supported()


class Drift(NamedTuple):
    """Per row: how far it moved, that in units of its old norm, and the cosine of old and new (NaN: a zero row)."""

    distance: Float[Tensor, " tokens"]
    relative: Float[Tensor, " tokens"]
    cosine: Float[Tensor, " tokens"]
    moved: Int[Tensor, " moved"]


def drift(old: Float[Tensor, "tokens dim"], new: Float[Tensor, "others dims"]) -> Drift:
    """‖new − old‖, the same over ‖old‖ and cos(old, new) of each row; `moved` numbers the rows that differ at all.

    A row that was zero has relative drift 0 if it still is, infinity if not.

    Raises: ValueError if the groups differ in shape, are empty, or a row is not finite.
    Source: the Euclidean distance.
    """
    if old.shape != new.shape or not len(old):
        raise ValueError(f"drift of {tuple(old.shape)} against {tuple(new.shape)}: compare the same rows of both")
    columns = []
    for before, after in zip(tiles(old), tiles(new), strict=True):
        a, b = before.double(), after.double()
        lengths, distance = torch.linalg.vector_norm(a, dim=1), torch.linalg.vector_norm(b - a, dim=1)
        relative = torch.where(distance == 0, 0.0, distance / lengths)
        cosine = ((a * b).sum(1) / (lengths * torch.linalg.vector_norm(b, dim=1))).clamp(-1, 1)
        columns.append(torch.stack([distance, relative, cosine]))
    distance, relative, cosine = torch.cat(columns, dim=1)
    if not bool(torch.isfinite(distance).all()):
        row = int((~torch.isfinite(distance)).nonzero()[0])
        raise ValueError(f"row {row} of one of the groups holds NaN or infinity: its drift is undefined")
    return Drift(distance, relative, cosine, distance.nonzero()[:, 0])


def _units(rows: Tensor) -> Tensor:
    return rows.double() / row_lengths(rows)
