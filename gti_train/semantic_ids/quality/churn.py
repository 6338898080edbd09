"""D6: what becomes of an item's codes when the mapping is made again."""

from typing import Any

import numpy as np
from jaxtyping import Int

from .prefixes import depths


def churn(one: Int[np.ndarray, "items levels"], other: Int[np.ndarray, "items levels"]) -> list[dict[str, Any]]:
    """For each depth that both have, how the same items (row by row) are placed in both mappings.

    `kept` is the share of items whose prefix is the same; a model that learned the old codes still finds those.
    `pairs_kept` is |A ∩ B| / |A ∪ B| over the pairs of items that share a prefix in one mapping (A) or the other (B): it does
    not care how codes are numbered. None where no two items share a prefix in either.

    Raises:
        ValueError: the mappings have different items.
    """
    if len(one) != len(other):
        raise ValueError(f"{len(one)} items in one mapping, {len(other)} in the other: compare the same items")
    same = np.ones(len(one), dtype=bool)
    found = []
    for level, (left, right) in enumerate(zip(depths(one), depths(other), strict=False)):
        same &= one[:, level] == other[:, level]
        both = np.unique(left.labels * (right.labels.max() + 1) + right.labels, return_counts=True)[1]
        shared = _pairs(both)
        union = _pairs(left.counts) + _pairs(right.counts) - shared
        found.append({"depth": level + 1, "kept": float(same.mean()), "pairs_kept": shared / union if union else None})
    return found


def _pairs(counts: Int[np.ndarray, " groups"]) -> int:
    return int((counts * (counts - 1) // 2).sum())
