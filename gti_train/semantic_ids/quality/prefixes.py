"""Items by the codes that they begin with."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int


@dataclass(frozen=True)
class Depth:
    """The items by their first `depth` codes: `labels` number the prefixes that occur, `parents` those one code shorter."""

    depth: int
    labels: Int[np.ndarray, " items"]
    parents: Int[np.ndarray, " items"]

    @property
    def counts(self) -> Int[np.ndarray, " prefixes"]:
        """Items under each prefix."""
        return np.bincount(self.labels)

    @property
    def fan_out(self) -> Int[np.ndarray, " parents"]:
        """How many codes follow each prefix one code shorter."""
        pairs = np.unique(np.stack([self.parents, self.labels]), axis=1)
        return np.bincount(pairs[0])


def depths(codes: Int[np.ndarray, "items levels"]) -> Iterator[Depth]:
    """The items at depth 1, 2, …, levels."""
    parents = np.zeros(len(codes), dtype=np.int64)
    for level in range(codes.shape[1]):
        key = parents * (int(codes[:, level].max()) + 1) + codes[:, level]
        labels = np.unique(key, return_inverse=True)[1].reshape(-1)
        yield Depth(level + 1, labels, parents)
        parents = labels
