"""Whole spaces side by side: linear CKA, orthogonal Procrustes, shared neighbourhoods; and the offsets that RSA starts from.

Pass rows in the type they are stored in (bfloat16 as bfloat16); the arithmetic is float64. Rows that differ by no more than the rounding
of that type are refused: what one would compare is noise.
"""

from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from .geometry import median_dispersion
from .spearman import Ranked, ranked
from .tiles import add_gram, evenly, mirror, one_thread_each, tiles, workers

TIE = 2.0**-44  # distances closer than this share of the largest differ by the rounding of a dot product only
TILE = 1024
PARTS = 4  # Gram matrices summed side by side
TYPICAL_ROWS = 511  # evenly chosen: enough to know the typical row
NOISE = 1e-12  # a difference below this share of its terms is rounding only


class Space:
    """Rows of one space, and what several measures need of them: made when first asked for, and kept.

    Every measure here and in `rsa` takes rows or a Space. Give a Space where the same rows are compared more than once; it
    holds a float64 copy of them or two. `dtype` is the type they were stored in, where that is not the type of `rows`.
    """

    def __init__(self, rows: Float[Tensor, "tokens dim"], name: str = "the rows", dtype: torch.dtype | None = None):
        self.rows, self.name, self.dtype = rows, name, dtype or rows.dtype

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def offsets(self) -> Float[Tensor, "tokens dim"]:
        """Unit rows minus their mean, as `unit_offsets`."""
        return unit_offsets(self.rows, self.name, self.dtype)

    @cached_property
    def comparable(self) -> Float[Tensor, "tokens dim"]:
        """The offsets, where the typical row differs from the others by more than rounding: ranks of pairs need that.

        One row far off gives the rows a spread that is not theirs. Exact copies are no noise: their pairs tie.
        """
        typical = median_dispersion(self.offsets[evenly(len(self), TYPICAL_ROWS).to(self.offsets.device)])
        if 0 < typical <= _rounding(self.dtype):
            raise ValueError(
                f"{self.name}: the typical row differs from the others by {typical:.1e} of its length, which rounding to "
                f"{_named(self.dtype)} alone can make: the order of their similarities is not known"
            )
        return self.offsets

    @cached_property
    def halves(self) -> Float[Tensor, " tokens"]:
        """1/2 |r_i|^2 of the offsets."""
        return torch.linalg.vector_norm(self.offsets, dim=1).square() / 2

    @cached_property
    def gram(self) -> Float[Tensor, "_ _"]:
        """r' r of the offsets, or r r' where tokens are fewer than dimensions."""
        return gram(self.offsets)

    @cached_property
    def dissimilarities(self) -> Float[Tensor, "tokens tokens"]:
        """1 - cos of all pairs, from the offsets."""
        return self.halves[:, None] + self.halves - self.offsets @ self.offsets.T

    @cached_property
    def ranked(self) -> Ranked:
        """Midranks of the dissimilarities, where these can be ranked."""
        return ranked(self.comparable, self.name)

    @cached_property
    def centred(self) -> Float[Tensor, "tokens dim"]:
        """Rows minus their mean, for CKA and Procrustes."""
        return _centred(self.rows, self.name, self.dtype)

    @cached_property
    def centred_square(self) -> float:
        return square(gram(self.centred))


Rows = Float[Tensor, "_tokens _dim"] | Space  # equal counts are checked by hand, to say what is wrong


def linear_cka(x: Rows, y: Rows, *, debiased: bool) -> float:
    """HSIC(x, y) / sqrt(HSIC(x, x) HSIC(y, y)) with linear kernels, exact, in O(tokens dim_x dim_y); columns are centred.

    Biased: HSIC = ||X' Y||_F^2, in [0, 1]; it tends to 1 for *unrelated* spaces when tokens are fewer than dimensions.
    Debiased: HSIC_1 = ||X' Y||_F^2 - n / (n - 2) sum k_i l_i + sum k sum l / ((n - 1)(n - 2)) with k_i = |x_i|^2, l_i = |y_i|^2 (up to
    the factor n (n - 3), which cancels); 0 in expectation for unrelated spaces, may be negative, and is not clipped.

    Raises: ValueError for unequal counts, fewer than 4 tokens, rows that are not finite or are one point at their storage precision,
        or a space whose debiased HSIC with itself is not positive.
    Source: Kornblith et al. 2019, arXiv 1905.00414; HSIC_1: Song et al. 2012, JMLR 13, eq. 5, here for centred linear kernels.
    """
    first, second = paired(x, y, fewest=4)
    a, b = first.centred, second.centred
    n = len(a)
    k, l = (torch.linalg.vector_norm(side, dim=1).square() for side in (a, b))  # noqa: E741 - the letters of the formula

    def hsic(whole: float, p: Tensor, q: Tensor) -> float:
        if not debiased:
            return whole
        return whole - n / (n - 2) * (p @ q).item() + (p.sum() * q.sum()).item() / ((n - 1) * (n - 2))

    own = []
    for space, p in ((first, k), (second, l)):
        own.append(hsic(space.centred_square, p, p))
        if own[-1] <= NOISE * space.centred_square:
            raise ValueError(
                f"{space.name} shows no structure beyond what {n} tokens show by chance: debiased CKA is undefined"
            )
    return hsic(cross_square(a, b), k, l) / (own[0] * own[1]) ** 0.5


def procrustes_distance(x: Rows, y: Rows) -> float:
    """min over orthogonal Q of ||X - Y Q||_F = sqrt(2 - 2 ||X' Y||_*), for column-centred X and Y of Frobenius norm 1.

    Between 0 (same shape up to rotation, reflection and scale) and sqrt 2. Unequal widths count as padded with zero columns. Values
    below 1e-7 are rounding of the difference.

    Raises: ValueError for unequal counts, fewer than 2 tokens, rows that are not finite or one point at their storage precision.
    Source: Schoenemann 1966, doi 10.1007/BF02289451; normalised as in Ding, Denain & Steinhardt 2021, arXiv 2108.01661.
    """
    a, b = (space.centred for space in paired(x, y, fewest=2))
    nuclear = torch.linalg.svdvals(a.T @ b).sum() / (torch.linalg.vector_norm(a) * torch.linalg.vector_norm(b))
    return (2 - 2 * nuclear).clamp(min=0).sqrt().item()


def neighbourhood_overlap(x: Rows, y: Rows, *, k: int) -> float:
    """Mean over tokens of |N_k(x_i) and N_k(y_i)| / k: the share of its k nearest by cosine that a token keeps from x to y.

    A token is not its own neighbour. Between 0 and 1; unrelated spaces give k / (tokens - 1). Memory stays at a tile of tokens.

    Raises: ValueError unless 1 <= k <= tokens - 2; where a k-th neighbour ties with the next one (repeated rows), since which tokens
        are neighbours is then undefined; for unequal counts, and rows that are not finite, zero, or one point.
    Source: the mutual k-nearest-neighbour metric of Huh et al. 2024, arXiv 2405.07987, appendix A.
    """
    spaces = paired(x, y, fewest=3)
    if not 1 <= k <= len(x) - 2:
        raise ValueError(f"k is {k}; with {len(x)} tokens it must lie between 1 and {len(x) - 2}")
    r, kept = spaces[0].offsets, 0
    for start in range(0, len(r), TILE):
        first, second = (_nearest(space.offsets, start, k, space.name) for space in spaces)
        member = torch.zeros(len(first), len(r), dtype=torch.bool, device=r.device).scatter_(1, first, True)
        kept += int(member.gather(1, second).sum())
    return kept / (k * len(r))


def paired(x: Rows, y: Rows, *, fewest: int) -> tuple[Space, Space]:
    """Both as spaces, once they have enough tokens, and equally many."""
    if len(x) != len(y):
        raise ValueError(
            f"x has {len(x)} tokens and y has {len(y)}: both spaces must hold the same tokens in the same order"
        )
    if len(x) < fewest:
        raise ValueError(f"{len(x)} tokens are too few to compare two spaces: at least {fewest} are needed")
    first, second = (rows if isinstance(rows, Space) else Space(rows, name) for rows, name in ((x, "x"), (y, "y")))
    return first, second


def unit_offsets(rows: Float[Tensor, "tokens dim"], name: str, dtype: torch.dtype) -> Float[Tensor, "tokens _"]:
    """Unit rows minus their mean, in float64: 1 - cos(x_i, x_j) = 1/2 |r_i - r_j|^2 without a digit lost to a common component.

    Rounding moves a coordinate by at most u |x_ij| (u: half the gap between 1 and the next number), hence a unit row by at most u;
    a spread (root mean square of |r_i|) that rounding could have made is refused.
    """
    norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True, dtype=torch.float64)
    _require_finite(norms, name)
    if not norms.all():
        raise ValueError(
            f"row {int((norms == 0).nonzero()[0, 0])} of {name} is all zeros: its cosine is undefined; leave it out"
        )
    unit = rows.to(torch.float64, copy=True).div_(norms)
    unit -= unit[0].clone()  # exact for nearly equal rows, so that their mean offset keeps its digits
    unit -= unit.mean(0)
    _require_spread(unit, 1.0, dtype, name)
    return unit


def cross_square(r: Tensor, s: Tensor) -> float:
    """||r' s||_F^2 = sum over all i, j of (r_i . r_j)(s_i . s_j)."""
    return square(r.T @ s)


def gram(r: Float[Tensor, "tokens dim"]) -> Float[Tensor, "_ _"]:
    """r' r, or r r' where that is the smaller one; both have the same eigenvalues but for zeros."""
    tall = r if r.shape[0] >= r.shape[1] else r.T
    parts = [part for part in tall.tensor_split(PARTS) if len(part)]
    sums = [tall.new_zeros(tall.shape[1], tall.shape[1]) for _ in parts]

    def add(whole: Tensor, part: Tensor) -> None:
        for tile in tiles(part):
            add_gram(whole, tile)

    with one_thread_each(workers(r.device)) as pool:
        list(pool.map(add, sums, parts))
    for other in sums[1:]:
        sums[0] += other
    mirror(sums[0])
    return sums[0]


def square(matrix: Tensor) -> float:
    """||matrix||_F^2."""
    return float(torch.linalg.vector_norm(matrix)) ** 2


def _centred(rows: Float[Tensor, "tokens dim"], name: str, dtype: torch.dtype) -> Float[Tensor, "tokens _"]:
    """Rows minus their mean, in float64, divided by their root mean square norm; refused as in `unit_offsets`."""
    norms = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64)
    _require_finite(norms[:, None], name)
    centred = rows.to(torch.float64, copy=True)
    centred -= centred[0].clone()
    centred -= centred.mean(0)
    scale = torch.linalg.vector_norm(norms).item() / len(rows) ** 0.5
    _require_spread(centred, scale, dtype, name)
    return centred.div_(torch.linalg.vector_norm(centred) / len(rows) ** 0.5)


def _require_finite(norms: Tensor, name: str) -> None:
    if not torch.isfinite(norms).all():
        raise ValueError(f"row {int((~norms.isfinite()).nonzero()[0, 0])} of {name} is not finite")


def _require_spread(offsets: Tensor, scale: float, dtype: torch.dtype, name: str) -> None:
    spread = torch.linalg.vector_norm(offsets).item() / len(offsets) ** 0.5
    rounding = _rounding(dtype)
    if spread <= rounding * scale:
        relative = spread / scale if scale else 0.0
        raise ValueError(
            f"{name}: all rows are one point at {_named(dtype)} precision: they spread by {relative:.1e} of "
            f"their length, and rounding alone can make {rounding:.1e}; how they are arranged is not known"
        )


def _rounding(dtype: torch.dtype) -> float:
    return max(torch.finfo(dtype).eps / 2, 8 * torch.finfo(torch.float64).eps)


def _named(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _nearest(offsets: Tensor, start: int, k: int, name: str) -> Tensor:
    halves = offsets.square().sum(1) / 2
    block = offsets[start : start + TILE]
    distance = halves[start : start + TILE, None] + halves - block @ offsets.T
    own = torch.arange(len(block), device=block.device)
    largest = distance.amax(1)
    distance[own, own + start] = torch.inf
    nearest = distance.topk(k + 1, dim=1, largest=False)
    tied = nearest.values[:, k] - nearest.values[:, k - 1] <= TIE * largest
    if tied.any():
        token = start + int(tied.nonzero()[0, 0])
        raise ValueError(
            f"neighbours {k} and {k + 1} of row {token} of {name} are equally near: drop repeated rows or change k"
        )
    return nearest.indices[:, :k]
