"""Rows that are nearly one row: found through a few numbers of each row, in memory that does not grow with its length."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from torch import Tensor

from .tiles import one_thread

LINES = 16  # numbers that stand for a row in the search
MARGIN = 2.0  # two rows δ apart are at most this many times δ apart there, but for one pair in 10⁸
LOOKED_UP = (
    8,
    64,
    64,
)  # nearest places (itself included) that are compared: of all rows, of those with more, of one a cluster

Distance = Callable[[Int[Tensor, " pairs"], Int[Tensor, " pairs"]], Float[Tensor, " pairs"]]


def sketch_lines(dim: int) -> Float[Tensor, "dim lines"]:
    """Random orthogonal columns L, scaled so that ‖Lᵀx‖ is ‖x‖ on average (exact for 16 dimensions or fewer).

    Source: Johnson & Lindenstrauss, Extensions of Lipschitz mappings into a Hilbert space (1984).
    """
    count = min(LINES, dim)
    drawn = torch.randn(dim, count, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with one_thread():
        return torch.linalg.qr(drawn).Q * (dim / count) ** 0.5


def sketch_spread(sketch: Float[Tensor, "tokens lines"]) -> float:
    """√(Σ ‖sᵢ − s̄‖² / n): the dispersion of the rows that the sketch stands for, within a few per cent.

    Raises: ValueError if there are no rows.
    Source: as `geometry.dispersion`; the sketch keeps squares of distances on average.
    """
    if not len(sketch):
        raise ValueError("0 rows: a spread needs at least 1")
    return float((sketch - sketch.mean(0)).square().sum(1).mean().sqrt())


def clusters(
    sketch: Float[Tensor, "tokens lines"], reach: Float[Tensor, " others"], distance: Distance
) -> Int[Tensor, " tokens"]:
    """The number of each row's cluster: i and j are linked if distance(i, j) ≤ min(reachᵢ, reachⱼ), links are transitive.

    Candidates are each row's 7 nearest in the sketch; for rows with more in reach their 63 nearest; and where even these
    are all in reach, one row of each cluster against those of the others. Beyond that a crowd may be told in several parts.
    Rows must be distinct (exact copies crowd out what is near).

    Raises: ValueError if the lengths differ.
    Source: single linkage, Sibson (1973); sketches as `sketch_lines`; rounds after Borůvka (1926).
    """
    if len(sketch) != len(reach):
        raise ValueError(f"{len(sketch)} rows and {len(reach)} reaches: one for each")
    labels = torch.arange(len(sketch))
    active = labels
    for step, most in enumerate(LOOKED_UP):
        if step == len(LOOKED_UP) - 1:
            active = active[torch.from_numpy(np.unique(labels[active].numpy(), return_index=True)[1])]
        first, second, crowded = _candidates(sketch[active], reach[active], most)
        a, b = active[first], active[second]
        apart = labels[a] != labels[b]
        a, b = a[apart], b[apart]
        near = distance(a, b) <= torch.minimum(reach[a], reach[b])
        labels = _joined(labels, labels[a[near]], labels[b[near]])
        active = active[crowded]
    return labels


def _candidates(sketch: Tensor, reach: Tensor, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs of places i < j within reach in the sketch, and the places that have as many neighbours as were looked up."""
    at, k = sketch.numpy(), min(most, len(sketch))
    if k < 2:
        none = torch.empty(0, dtype=torch.long)
        return none, none, none
    farthest = MARGIN * float(reach.max())
    gap, index = cKDTree(at).query(at, k=k, distance_upper_bound=np.nextafter(farthest, np.inf), workers=-1)
    near = (gap <= farthest) & (index != np.arange(len(at))[:, None])
    row, column = near.nonzero()
    pairs = np.unique(np.sort(np.stack([row, index[row, column]], 1), axis=1), axis=0)
    crowded = np.flatnonzero(near.sum(1) >= k - 1)
    return torch.from_numpy(pairs[:, 0]), torch.from_numpy(pairs[:, 1]), torch.from_numpy(crowded)


def _joined(labels: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Labels after joining the clusters `first` with `second`; each is named by the least of its rows."""
    n = len(labels)
    ones = np.ones(len(first), dtype=np.int8)
    _, component = connected_components(
        coo_array((ones, (first.numpy(), second.numpy())), shape=(n, n)), directed=False
    )
    found = torch.from_numpy(component).long()[labels]
    least = torch.full((n,), n).scatter_reduce(0, found, torch.arange(n), "amin")
    return least[found]
