"""Where rows lie and how widely: distinct rows, norms, spread, and the cosines among them."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from .tiles import tiles, wide_tiles

EXPONENT = 0x7FF0_0000_0000_0000  # the bits of a float64 that hold it


def unique_rows(rows: Float[Tensor, "tokens dim"] | Iterable[Tensor]) -> int:
    """The number of distinct rows, compared value by value (−0 equals 0). 0 for no rows.

    Rows are counted by a 128-bit digest: for a million rows, two differing ones would be taken for one with
    probability below 1e-26.

    Source: a count; the digest is BLAKE2b, RFC 7693.
    """
    digests: set[bytes] = set()
    for tile in tiles(rows):
        plain = (tile + 0.0).contiguous().cpu().view(torch.uint8).numpy()
        digests.update(hashlib.blake2b(row, digest_size=16).digest() for row in plain)
    return len(digests)


def norms(rows: Float[Tensor, "tokens dim"] | Iterable[Tensor]) -> Float[Tensor, " tokens"]:
    """‖xᵢ‖₂ of each row, float64. 0 for a zero row.

    Source: the Euclidean norm.
    """
    parts = [torch.linalg.vector_norm(tile, dim=1) for tile in wide_tiles(rows)]
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.float64)


def centroid(rows: Float[Tensor, "tokens dim"]) -> Float[Tensor, " dim"]:
    """x̄ = Σ xᵢ / n, in float64 and from the first row, so that identical rows have exactly themselves as mean.

    Raises: ValueError if there are no rows, or one is not finite.
    Source: the arithmetic mean.
    """
    _need_rows(rows, 1, "a centroid")
    origin = rows[0].detach().double()
    mean = origin + sum(tile.sum(0) for tile in wide_tiles(rows, centre=origin)) / len(rows)
    _need_finite(mean, "a centroid")
    return mean


def dispersion(rows: Float[Tensor, "tokens dim"]) -> float:
    """√(Σ ‖xᵢ − x̄‖² / n), the root mean square distance to the centroid. Exactly 0 for identical rows.

    Raises: ValueError if there are no rows, or one is not finite.
    Source: the square root of the total variance, trace(covariance).
    """
    _need_rows(rows, 1, "dispersion")
    squares = sum(float(tile.square_().sum()) for tile in wide_tiles(rows, centre=centroid(rows)))
    return (squares / len(rows)) ** 0.5


def median_dispersion(rows: Float[Tensor, "tokens dim"]) -> float:
    """median ‖xᵢ − m‖, m the coordinate-wise median. 0 if more than half of the rows are identical.

    Unlike `dispersion`, fewer than half of the rows cannot move it arbitrarily far. The median of an even number of values
    is the mean of the middle two.

    Raises: ValueError if there are no rows, or one is not finite.
    Source: Rousseeuw & Leroy, Robust Regression and Outlier Detection (1987), §7.1.
    """
    _need_rows(rows, 1, "median dispersion")
    middle = torch.cat([_median(part.T) for part in rows.split(64, dim=1)])
    _need_finite(middle, "median dispersion")
    lengths = norms(wide_tiles(rows, centre=middle))
    if lengths.isnan().any():  # a partition sorts them to the end
        raise ValueError(f"row {int(lengths.isnan().nonzero()[0])} is not finite: median dispersion is undefined")
    return float(_median(lengths[None]))


def precision_floor(rows: Float[Tensor, "tokens dim"], dtype: torch.dtype) -> float:
    """½ ‖ulp(x̄)‖₂, ulp(v) the spacing of dtype at |v|: the dispersion that rounding to storage can make.

    Rows that agree to within their last place, stored on either side of a rounding boundary, are this far
    from their mean (root mean square) at most. A smaller dispersion says nothing of the shape of what was
    stored.

    Raises: ValueError if there are no rows.
    Source: Goldberg, What every computer scientist should know about floating-point arithmetic (1991), §1.2.
    """
    return 0.5 * float(spacing_norms(centroid(rows)[None], dtype))


def spacing_norms(wide: Float[Tensor, "tokens dim"], dtype: torch.dtype) -> Float[Tensor, " tokens"]:
    """‖ulp(x)‖₂ of each float64 row, ulp(v) = eps · 2^⌊log₂ |v|⌋ the spacing of dtype at |v|. The rows are overwritten."""
    info = torch.finfo(dtype)
    wide.abs_().clamp_(min=info.smallest_normal).view(torch.int64).bitwise_and_(EXPONENT)  # leaves the power of two
    return info.eps * torch.linalg.vector_norm(wide, dim=1)


def packed_step_norms(wide: Float[Tensor, "tokens dim"], bits: int, *, block: int = 32) -> Float[Tensor, " tokens"]:
    """½ ‖step‖₂ of each row, step = 2 max |x| / 2^bits of each block of columns: what rounding to a block format can move.

    Raises: ValueError if bits is not positive.
    Source: ggml's block formats, whose scales are about max |x| / 2^(bits − 1) of a block.
    """
    if bits < 1:
        raise ValueError(f"{bits} bits: a block format has at least 1")
    squares = sum(part.abs().amax(1).square() * part.shape[1] for part in wide.split(block, dim=1))
    return torch.sqrt(squares) / 2**bits


def directions(
    rows: Float[Tensor, "tokens dim"], *, centre: Float[Tensor, " dim"] | None = None
) -> Float[Tensor, "tokens dim"]:
    """uᵢ = (xᵢ − c) / ‖xᵢ − c‖, c = 0 by default; float64 for float64 rows, else float32.

    Difference and norm are taken in float64, so rows that hug c keep their direction.

    Raises: ValueError if a row equals c, or there are no rows.
    """
    _need_rows(rows, 1, "a direction")
    work = torch.float64 if rows.dtype == torch.float64 else torch.float32
    found = torch.empty(rows.shape, dtype=work, device=rows.device)
    for part, units in zip(tiles(found), _unit_tiles(rows, centre), strict=True):
        part.copy_(units)
    return found


@dataclass(frozen=True)
class DirectionSum:
    """Σ uᵢ of the unit rows, and how many rows there are: all that means of cosines are made of."""

    total: Float[Tensor, " dim"]
    count: int


def direction_sum(
    rows: Float[Tensor, "tokens dim"] | Iterable[Tensor], *, centre: Float[Tensor, " dim"] | None = None
) -> DirectionSum:
    """Σ (xᵢ − c) / ‖xᵢ − c‖, c = 0 by default, in one pass, float64.

    Raises: ValueError if there are no rows, or one is zero (with a centre: equals it).
    """
    total, count = None, 0
    for units in _unit_tiles(rows, centre):
        total = units.sum(0) if total is None else total.add_(units.sum(0))
        count += len(units)
    if total is None:
        raise ValueError("0 rows: a sum of directions needs at least 1")
    return DirectionSum(total, count)


def mean_cosine(rows: Float[Tensor, "tokens dim"] | DirectionSum, *, centred: bool = False) -> float:
    """Mean of cos(xᵢ, xⱼ) over all pairs i ≠ j: (‖Σ uᵢ‖² − n) / (n(n − 1)), exact. Identical rows: 1.

    Centred: the same of xᵢ − x̄. The sum of directions can be given in place of the rows.

    Raises: ValueError for fewer than two rows, or if a row is zero (centred: equals the centroid).
    Source: Ethayarajh, How contextual are contextualized word representations? (EMNLP 2019), unsampled.
    """
    if isinstance(rows, Tensor):
        _need_rows(rows, 2, "mean cosine")
        rows = direction_sum(rows, centre=centroid(rows) if centred else None)
    total, n = rows.total, rows.count
    if n < 2:
        raise ValueError(f"{n} rows: mean cosine needs at least 2")
    return min(1.0, float((total @ total - n) / (n * (n - 1))))


def cosine_matrix(rows: Float[Tensor, "tokens dim"]) -> Float[Tensor, "tokens tokens"]:
    """cos(xᵢ, xⱼ) of all pairs, float64, symmetric, ones on the diagonal. For panels of some hundred rows.

    Raises: ValueError if a row is zero.
    Source: the cosine of the angle between two vectors.
    """
    units = directions(rows.double())
    cosines = (units @ units.T).clamp(-1, 1)
    return ((cosines + cosines.T) / 2).fill_diagonal_(1.0)


def block_mean_cosine(
    rows: Float[Tensor, "tokens dim"], blocks: Int[Tensor, " numbers"], *, centre: Float[Tensor, " dim"] | None = None
) -> Float[Tensor, "blocks blocks"]:
    """Mean cosine between blocks A and B of rows: S_A·S_B / (n_A n_B), S = Σ uᵢ; within A without self pairs.

    `blocks` numbers each row's block from 0. A block of one row has no pair within: its diagonal is NaN. Cosines are about `centre`,
    0 by default.

    Raises: ValueError if a row is zero (with a centre: equals it), the lengths differ, or a block number below the largest is unused.
    Source: means over blocks of the cosine matrix, in closed form.
    """
    if len(blocks) != len(rows):
        raise ValueError(f"{len(blocks)} block numbers for {len(rows)} rows")
    _need_rows(rows, 1, "a block mean")
    sizes = torch.bincount(blocks).double()
    if bool((sizes == 0).any()):
        raise ValueError(f"block {int((sizes == 0).nonzero()[0])} has no rows: number the blocks without gaps")
    sums = torch.zeros(len(sizes), rows.shape[1], dtype=torch.float64, device=rows.device)
    start = 0
    for units in _unit_tiles(rows, centre):
        sums.index_add_(0, blocks[start : start + len(units)], units)
        start += len(units)
    means = (sums @ sums.T) / torch.outer(sizes, sizes)
    within = ((sums**2).sum(1) - sizes) / (sizes * (sizes - 1))
    return means.diagonal_scatter(torch.where(sizes > 1, within, torch.nan))


def row_lengths(rows: Float[Tensor, "tokens dim"], *, what: str = "is all zeros", first: int = 0) -> Tensor:
    """‖xᵢ‖₂ as a float64 column, of rows that all have a direction; `first` is the number of the first row.

    Raises: ValueError if a row is zero (says `what`) or not finite.
    Source: the Euclidean norm.
    """
    lengths = torch.linalg.vector_norm(rows, dim=1, keepdim=True, dtype=torch.float64)
    _need_finite(lengths, "a cosine", first)
    if not bool((lengths > 0).all()):
        row = first + int((lengths[:, 0] == 0).nonzero()[0])
        raise ValueError(f"row {row} {what}: its cosines are undefined")
    return lengths


def _median(values: Tensor) -> Tensor:
    """Of each row of a matrix, in float64."""
    half = values.shape[1] // 2
    middle = [half] if values.shape[1] % 2 else [half - 1, half]
    wide = values.detach().to(torch.float64 if values.dtype == torch.float64 else torch.float32)
    if wide.device.type == "cpu":  # one partition gives both of the middle two; torch's median gives the lower
        found = torch.from_numpy(np.partition(wide.numpy(), middle, axis=1)[:, middle])
    else:
        found = wide.sort(1).values[:, middle]
    return found.double().mean(1)


def _need_rows(rows: Tensor, least: int, what: str) -> None:
    if len(rows) < least:
        raise ValueError(f"{len(rows)} rows: {what} needs at least {least}")


def _need_finite(values: Tensor, what: str, first: int | None = None) -> None:
    """Values by coordinate, or (with `first`) by row."""
    bad = ~torch.isfinite(values)
    if bool(bad.any()):
        where = "a row" if first is None else f"row {first + int(bad[:, 0].nonzero()[0])}"
        raise ValueError(f"{where} holds NaN or infinity: {what} is undefined")


def _unit_tiles(rows: Tensor | Iterable[Tensor], centre: Tensor | None) -> Iterator[Tensor]:
    """Unit rows tile by tile, all in one buffer."""
    start = 0
    for wide in wide_tiles(rows, centre=None if centre is None else centre.double()):
        what = "is all zeros" if centre is None else "equals the centre"
        yield wide.div_(row_lengths(wide, what=what, first=start))
        start += len(wide)
