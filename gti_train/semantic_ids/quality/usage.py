"""How the code space is used: level by level (D1), by prefixes and whole IDs (D2, D5), by popular and rare items (D4)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from .prefixes import Depth

HEAD, TAIL = 0.2, 0.5  # shares of the items, the most and the least popular


def level_use(codes: Int[np.ndarray, " items"], size: int) -> dict[str, float]:
    """One level: codes used, perplexity, overlap.

    Perplexity is exp(-Σ_k p_k log p_k), p_k the share of items with code k: the number of codes, had all the same use.
    Overlap is Σ_k n_k (n_k - 1) / (n (n - 1)): the chance that two items have the same code here. `reachable` is
    K (1 - (1 - 1/K)^n), how many of K codes n items would use if each drew one: few items cannot use many codes.
    """
    counts = np.bincount(codes, minlength=size)
    shares = counts[counts > 0] / len(codes)
    pairs = len(codes) * (len(codes) - 1)
    return {
        "size": size,
        "used": int((counts > 0).sum()),
        "reachable": size * (1 - (1 - 1 / size) ** len(codes)),
        "perplexity": float(np.exp(-(shares * np.log(shares)).sum())),
        "overlap": float((counts * (counts - 1)).sum() / pairs) if pairs else 0.0,
        "largest": int(counts.max()),
    }


def capacity(levels: Sequence[dict[str, float]]) -> dict[str, float]:
    """Expected codeword overlap Σ_l overlap_l, and the bits Σ_l log2(perplexity_l) that the levels could carry.

    Source: DRQ (arXiv 2606.01844) for the overlap.
    """
    return {
        "expected_overlap": sum(level["overlap"] for level in levels),
        "bits": float(sum(np.log2(level["perplexity"]) for level in levels)),
        "bits_of_the_sizes": float(sum(np.log2(level["size"]) for level in levels)),
    }


def structure(depth: Depth) -> dict[str, Any]:
    """Prefixes of one depth: how many, how full, how many items are alone, and how wide the tree opens there."""
    counts, fan_out = depth.counts, depth.fan_out
    return {
        "depth": depth.depth,
        "items": len(depth.labels),
        "active": len(counts),
        "alone": float((counts == 1).sum() / len(depth.labels)),
        "largest": int(counts.max()),
        "fan_out": {"mean": float(fan_out.mean()), "most": int(fan_out.max())},
    }


def popular_shares(depth: Depth, popularity: Int[np.ndarray, " items"]) -> dict[str, float]:
    """D4: the share of the code space that head, middle and tail items have, over their share of the items.

    A prefix's space is divided evenly among its items, so 1 means a fair share, and less means crowded prefixes.
    """
    order = np.argsort(-popularity, kind="stable")
    space = 1 / depth.counts[depth.labels] / len(depth.counts)
    head, tail = round(HEAD * len(order)), round((1 - TAIL) * len(order))
    parts = {"head": order[:head], "middle": order[head:tail], "tail": order[tail:]}
    return {name: float(space[rows].sum() * len(order) / len(rows)) for name, rows in parts.items() if len(rows)}
