"""Do items that share a prefix belong together: in their vectors, and in what users chose one after the other (D3)?

Each depth is compared with what chance gives when only its own code is shuffled, inside the prefixes one code shorter; so a
level gets no credit for what the levels before it say.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from .prefixes import Depth

SHUFFLES = 99
Pairs = tuple[Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"]]


def coherence(vectors: Float[np.ndarray, "items dim"], labels: Int[np.ndarray, " items"]) -> float | None:
    """Mean over items of the mean cosine, about the common mean, to the others with the same label; None if all are alone.

    Σ_g (|Σ_{i ∈ g} v_i|² - n_g) / (n_g - 1) over Σ_g n_g, for the groups g of two items or more.
    """
    from scipy.sparse import csr_array

    counts = np.bincount(labels)
    places = (np.ones(len(labels)), (labels, np.arange(len(labels))))
    sums = csr_array(places, shape=(len(counts), len(labels))) @ vectors
    company = counts > 1
    if not company.any():
        return None
    within = (np.square(sums).sum(axis=1) - counts)[company] / (counts[company] - 1)
    return float(within.sum() / counts[company].sum())


def directions(vectors: Float[np.ndarray, "items dim"]) -> Float[np.ndarray, "items dim"]:
    """Unit vectors about the common mean.

    Raises:
        ValueError: a vector equals the mean.
    """
    centred = vectors - vectors.mean(axis=0)
    norms = np.linalg.norm(centred, axis=1, keepdims=True)
    if not norms.all():
        raise ValueError("a vector equals the mean of all: its direction is undefined")
    return centred / norms


def together(pairs: Pairs, labels: Int[np.ndarray, " items"]) -> float | None:
    """The share of pairs whose items have the same label; None without pairs."""
    first, second = pairs
    return float((labels[first] == labels[second]).mean()) if len(first) else None


def against_chance(
    measure: Callable[[Int[np.ndarray, " items"]], float | None], depth: Depth, *, seed: int
) -> dict[str, Any] | None:
    """The measure at this depth, the 95 % of what shuffled codes give, and p = (1 + #shuffled ≥ value) / (1 + shuffles)."""
    value = measure(depth.labels)
    if value is None:
        return None
    random = np.random.default_rng([seed, depth.depth])
    order = np.argsort(depth.parents, kind="stable")
    drawn = []
    for _ in range(SHUFFLES):
        shuffled = np.empty_like(depth.labels)
        shuffled[order] = depth.labels[np.lexsort((random.random(len(order)), depth.parents))]
        drawn.append(measure(shuffled))
    chance = np.array([np.nan if found is None else found for found in drawn])
    low, mean, high = float(np.quantile(chance, 0.025)), float(chance.mean()), float(np.quantile(chance, 0.975))
    return {
        "value": value,
        "chance": mean,
        "interval": [low, high],
        "p_value": float((1 + (chance >= value).sum()) / (1 + SHUFFLES)),
    }


def next_pairs(starts: Int[np.ndarray, " users+1"], rows: Int[np.ndarray, " events"]) -> Pairs:
    """Items that a user chose one directly after the other, repeats of one item left out."""
    inside = np.ones(max(len(rows) - 1, 0), dtype=bool)
    ends = starts[1:-1] - 1
    inside[ends[(ends >= 0) & (ends < len(inside))]] = False
    first, second = rows[:-1][inside], rows[1:][inside]
    other = first != second
    return first[other], second[other]
