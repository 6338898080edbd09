"""How rows fill space: isotropy, uniformity on the sphere, intrinsic dimension, hubs and near-duplicates."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from scipy.spatial import cKDTree
from torch import Tensor

from .geometry import centroid, row_lengths, spacing_norms
from .tiles import wide_tiles

TILE_ROWS = 512  # compared with all others at a time
LINES = 8  # random lines on which rows are placed before they are compared
LOOKED_UP = 2, 32, 1024  # nearest places (itself included) that are compared, for ever fewer rows
CELLS, PAIRS = 1 << 20, 1024  # places looked up, and rows compared, at a time
BANDS = 16  # groups of rows of a like reach, looked up together: one long row must not widen the search of all
TIED = 0.1  # share of rows with tied neighbours from which hubness depends on the order of the rows
SPARE = 4  # nearest rows, by float32 distance, whose distances are then taken in float64


class Neighbours(NamedTuple):
    """Euclidean distances (float64) and numbers of each row's nearest other rows, nearest first."""

    distance: Float[Tensor, "tokens k"]
    numbers: Int[Tensor, "tokens k"]


def isoscore(s_centred: Float[Tensor, " rank"], dim: int) -> float:
    """IsoScore = (PR − 1) / (dim − 1), PR = (Σλ)²/Σλ² of the centred rows' λ = σ². 0: one direction; 1: isotropic.

    The published definition goes through an "isotropy defect"; the two are identical algebraically.

    Raises: ValueError if dim < 2 or less than the number of singular values, or all of these are zero.
    Source: Rudman et al., IsoScore: measuring the uniformity of embedding space utilization (ACL Findings 2022).
    """
    if dim < max(2, len(s_centred)):
        raise ValueError(f"dim = {dim} for {len(s_centred)} singular values: must be at least 2 and as many")
    largest = float(s_centred.max()) if len(s_centred) else 0.0
    if not largest > 0:
        raise ValueError("all centred singular values are zero: no isotropy is defined")
    energy = (s_centred.double() / largest) ** 2
    return (float(energy.sum() ** 2 / (energy**2).sum()) - 1) / (dim - 1)


def uniformity(rows: Float[Tensor, "tokens dim"], *, temperature: float = 2.0) -> float:
    """ln mean exp(−t ‖uᵢ − uⱼ‖²) over all pairs i < j of unit rows, exact. 0 (the maximum): all directions equal.

    Independent directions in high dimension give about −2t.

    Raises: ValueError for fewer than two rows, or if a row is zero.
    Source: Wang & Isola, Understanding contrastive representation learning (ICML 2020), §4.1.2.
    """
    n = len(rows)
    if n < 2:
        raise ValueError(f"{n} rows: uniformity needs at least two")
    units = (rows / row_lengths(rows)).float()
    total = 0.0
    for start in range(0, n, TILE_ROWS):
        part = units[start : start + TILE_ROWS]
        excess = (part @ units[start:].T).sub_(1).mul_(2 * temperature).clamp_(max=0).exp_()
        own = excess[:, : len(part)]
        total += float(excess[:, len(part) :].sum(dtype=torch.float64)) + float(own.triu(1).sum(dtype=torch.float64))
    return min(0.0, float(torch.tensor(total / (n * (n - 1) / 2)).double().log()))


def two_nn(rows: Float[Tensor, "tokens dim"], *, discard: float = 0.1, near: Neighbours | None = None) -> float:
    """Intrinsic dimension: slope through the origin of −ln(1 − F) on ln μ, μ = r₂/r₁ the ratio of the distances to
    the second and the first nearest row, F = i/n its empirical distribution, the largest `discard` share left out.

    Blind to scale: rows within rounding of one point have a dimension too, that of their noise. `near` is the result of
    `nearest_others` for these rows, where there is one already.

    Raises: ValueError for fewer than three rows kept, none left out, duplicates (r₁ = 0), or if all μ are 1.
    Source: Facco et al., Estimating the intrinsic dimension of datasets (2017), with scikit-dimension's F = i/n.
    """
    kept = int(len(rows) * (1 - discard))
    if not 3 <= kept < len(rows):
        raise ValueError(f"{kept} of {len(rows)} rows kept: TwoNN needs three or more, and to leave one out")
    distance = (near or nearest_others(rows, k=2)).distance
    if not bool((distance[:, 0] > 0).all()):
        row = int((distance[:, 0] == 0).nonzero()[0])
        raise ValueError(f"row {row} has an exact duplicate: TwoNN is undefined; pass distinct rows")
    x = (distance[:, 1] / distance[:, 0]).log().sort().values[:kept]
    if float(x[-1]) == 0:
        raise ValueError("first and second neighbours are equally far everywhere: TwoNN is undefined")
    share = torch.arange(1, kept + 1, dtype=torch.float64, device=rows.device) / len(rows)
    y = -torch.log1p(-share)
    return float((x @ y) / (x @ x))


def hubness(rows: Float[Tensor, "tokens dim"], *, k: int = 10, near: Neighbours | None = None) -> float:
    """Skewness of N, the number of other rows that have a row among their k nearest: E(N − k)³ / (E(N − k)²)^1.5.

    About 0 without hubs, large when few rows are everybody's neighbour. `near` as in `two_nn`, with k neighbours or more; with
    more, rows whose k-th and next neighbour are equally far are seen: which of the two counts is then an accident of their order.

    Raises: ValueError unless 1 ≤ k < number of rows, if all rows are chosen equally often, or a tenth of the rows have such ties.
    Source: Radovanović et al., Hubs in space (JMLR 2010), equation 1, Euclidean distance.
    """
    if near is None:
        near = nearest_others(rows, k=min(k + 1, max(k, len(rows) - 1)))
    elif near.numbers.shape[1] < k:
        raise ValueError(f"{near.numbers.shape[1]} neighbours of each row: hubness needs {k}")
    if near.numbers.shape[1] > k:
        tied = near.distance[:, k] == near.distance[:, k - 1]
        if float(tied.double().mean()) > TIED:
            raise ValueError(
                f"{int(tied.sum())} rows have neighbours {k} and {k + 1} equally far: hubness is undefined"
            )
    index = near.numbers[:, :k]
    counts = torch.bincount(index.flatten(), minlength=len(rows)).double() - k
    variance = float((counts**2).mean())
    if variance == 0:
        raise ValueError(f"every row is among the {k} nearest of {k} others: hubness is undefined")
    return float((counts**3).mean()) / variance**1.5


def near_duplicates(rows: Float[Tensor, "tokens dim"], dtype: torch.dtype) -> int:
    """How many rows have another row within ‖ulp(x)‖₂, ulp the spacing of the storage dtype at each coordinate.

    Such rows differ by about one unit in the last place: storage can hardly tell them apart. Exact duplicates count.

    Rows that near have projections that near: rows are placed on 8 random lines and looked up in a tree of those places,
    first the nearest place, then for rows not settled up to 1,024. More neighbours than that, none of them a twin, are a
    crowd that no trained matrix has shown; the count is then a lower bound.

    Raises: ValueError for fewer than two rows.
    Source: Goldberg, What every computer scientist should know about floating-point arithmetic (1991), §1.2.
    """
    n = len(rows)
    if n < 2:
        raise ValueError(f"{n} row: twins need at least two")
    lines = torch.randn(rows.shape[1], LINES, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    lines = torch.linalg.qr(lines).Q.to(rows.device)  # orthonormal: distances along them are at most those of the rows
    origin = rows[0].detach().double()
    place = torch.cat([tile @ lines for tile in wide_tiles(rows, centre=origin)])
    radius = torch.cat([spacing_norms(tile, dtype) for tile in wide_tiles(rows)])
    slack = torch.finfo(torch.float64).eps * 64 * float(place.abs().max())
    at, reach = place.cpu().numpy(), radius.cpu().numpy() + slack
    tree, twin, open_rows = cKDTree(at), torch.zeros(n, dtype=torch.bool), radius.cpu().argsort()
    for k in LOOKED_UP:
        crowded = [
            _look_up(tree, at, reach, some, min(k, n), rows, radius, twin)
            for some in open_rows.split(max(1, min(CELLS // k, n // BANDS)))
        ]
        open_rows = torch.cat(crowded)
        open_rows = open_rows[~twin[open_rows]]
        if k >= n or not len(open_rows):
            break
    return int(twin.sum())


def _look_up(
    tree: cKDTree, at: Any, reach: Any, some: Tensor, k: int, rows: Tensor, radius: Tensor, twin: Tensor
) -> Tensor:
    """Mark those of `some` that have a twin among the k nearest places; which of them may have more within reach."""
    mine = some.numpy()
    distance, index = tree.query(at[mine], k=range(1, k + 1), distance_upper_bound=reach[mine].max(), workers=-1)
    near = torch.from_numpy((distance <= reach[mine][:, None]) & (index != mine[:, None]))
    i, column = near.nonzero(as_tuple=True)
    for part, columns in zip(i.split(PAIRS), column.split(PAIRS), strict=True):
        own, other = some[part], torch.from_numpy(index)[part, columns]
        gap = torch.linalg.vector_norm(rows[own].double() - rows[other].double(), dim=1)
        twin[own[(gap <= radius[own]).cpu()]] = True
    return some[near.sum(1) >= k - 1]


def nearest_others(rows: Float[Tensor, "tokens dim"], *, k: int) -> Neighbours:
    """Each row's k nearest other rows.

    Found by float32 products of the centred rows; the k + 4 best are then measured in float64.

    Raises: ValueError unless 1 ≤ k < number of rows.
    """
    n = len(rows)
    if not 1 <= k < n:
        raise ValueError(f"k = {k} nearest of {n - 1} other rows: must lie between 1 and these")
    centre = centroid(rows)
    largest = max(float(tile.abs().max()) for tile in wide_tiles(rows, centre=centre)) or 1.0
    # Scaled before they are rounded: float32 does not reach as far as float64, and squares of tiny rows would underflow.
    centred = torch.cat([tile.div_(largest).float() for tile in wide_tiles(rows, centre=centre)])
    squares = (centred**2).sum(1)
    keep, found = min(k + SPARE, n - 1), []
    for start in range(0, n, TILE_ROWS):
        part = centred[start : start + TILE_ROWS]
        gaps = torch.addmm(squares, part, centred.T, alpha=-2)  # ‖y‖² − 2xy orders like the distance from x
        gaps.diagonal(start).fill_(torch.inf)
        found.append(gaps.topk(keep, dim=1, largest=False).indices)
    index = torch.cat(found)
    distance = torch.empty(index.shape, dtype=torch.float64, device=rows.device)
    for start in range(0, n, 32):  # few rows at a time: their neighbours fit the cache
        own = slice(start, start + 32)
        distance[own] = torch.linalg.vector_norm(rows[index[own]].double() - rows[own, None].double(), dim=2)
    nearest = distance.topk(k, dim=1, largest=False)
    return Neighbours(nearest.values, index.gather(1, nearest.indices))
