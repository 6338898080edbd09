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

LINES, TREE = 48, 16  # numbers that stand for a row; and those of them by which it is looked up
# Two rows δ apart are at most this many times δ apart in so many numbers, but for one pair in 10⁶ (χ² with as many degrees of freedom).
MARGIN, TREE_MARGIN = 1.5, 1.8
BANDS = 16  # groups of rows of a like reach, looked up together
# Nearest places (itself included) that are compared: of all rows, of those with more in reach, of one row of each cluster.
LOOKED_UP = (8, 64, 64)

Distance = Callable[[Int[Tensor, " pairs"], Int[Tensor, " pairs"]], Float[Tensor, " pairs"]]


def sketch_lines(dim: int) -> Float[Tensor, "dim lines"]:
    """Random orthogonal columns L, scaled so that ‖Lᵀx‖ is ‖x‖ on average (exact for 48 dimensions or fewer).

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

    Candidates are each row's 7 nearest by 16 numbers of the sketch that are in reach by all; for rows with more in reach their 63 nearest; and where even these
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
    k, lines = min(most, len(sketch)), sketch.shape[1]
    if k < 2:
        none = torch.empty(0, dtype=torch.long)
        return none, none, none
    at = (sketch[:, :TREE] * (lines / min(TREE, lines)) ** 0.5).numpy()
    row, column, crowded = _looked_up(at, reach.numpy() * (TREE_MARGIN if lines > TREE else 1 + 1e-9), k)
    pairs = np.unique(np.sort(np.stack([row, column], 1), axis=1), axis=0)
    first, second = (torch.from_numpy(side.copy()) for side in pairs.T)
    close = _apart(sketch, first, second) <= MARGIN * torch.minimum(reach[first], reach[second])
    return first[close], second[close], torch.from_numpy(crowded)


def _looked_up(at: np.ndarray, radius: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of a row and one of its k nearest within its radius; and the rows that have k − 1 such.

    Rows of a like radius are looked up together: one long row must not widen the search of all.
    """
    tree, rows, others, crowded = cKDTree(at), [], [], []
    for own in np.array_split(np.argsort(radius, kind="stable"), BANDS):
        if len(own):
            gap, index = tree.query(
                at[own], k=k, distance_upper_bound=np.nextafter(radius[own].max(), np.inf), workers=-1
            )
            near = (gap <= radius[own][:, None]) & (index != own[:, None])
            place, column = near.nonzero()
            rows.append(own[place])
            others.append(index[place, column])
            crowded.append(own[near.sum(1) >= k - 1])
    return np.concatenate(rows), np.concatenate(others), np.sort(np.concatenate(crowded))


def _apart(sketch: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Distances in the whole sketch, some pairs at a time."""
    parts = [
        torch.linalg.vector_norm(sketch[a] - sketch[b], dim=1)
        for a, b in zip(first.split(1 << 16), second.split(1 << 16), strict=True)
    ]
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.float64)


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
