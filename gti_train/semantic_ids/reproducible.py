"""Same seed, same codes: one thread, and rows in an order of their own.

Sums in floating point depend on their order, so fitting runs on one thread whatever the machine has, and the order in
which a catalogue lists its items is taken away before anything is drawn at random.
"""

import contextlib
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from gti_diag.measures import tiles


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Torch, BLAS and OpenMP on one thread; what was set before comes back."""
    from threadpoolctl import threadpool_limits

    with tiles.one_thread(), threadpool_limits(1):
        yield


def canonical_order(vectors: Float[Tensor, "items dim"]) -> Int[Tensor, " items"]:
    """Rows in lexicographic order: a permutation that makes equal sets of rows equal matrices."""
    return torch.from_numpy(np.lexsort(vectors.T.flip(0).numpy()))
