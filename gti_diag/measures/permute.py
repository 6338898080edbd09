"""Sums over pairs of tokens when the tokens of one space are permuted: the inner loop of every Mantel test."""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .tiles import one_thread_each, workers

TOGETHER = 16  # orders that a worker takes at a time: handing over a small one costs more than its sum
BLOCK = 128  # rows moved at a time: they stay in a core's cache while their columns are picked


def pair_products(
    fixed: Float[Tensor, "tokens tokens"],
    moving: Float[Tensor, "tokens tokens"],
    orders: Int[Tensor, "samples tokens"],
) -> Float[Tensor, " samples"]:
    """Σ_{i<j} F_ij M_{π(i)π(j)} of two symmetric matrices for each order π, in float64 of products in their type.

    Only the blocks on and above the diagonal are visited: tokens²/2 picks for each order, whatever the width of the spaces.
    Source: the statistic of Mantel 1967, Cancer Research 27(2):209.
    """
    upper = [fixed[at : at + BLOCK, at:].triu(1).reshape(-1) for at in range(0, len(fixed), BLOCK)]

    def product(order: Tensor) -> Tensor:
        total = torch.zeros((), dtype=torch.float64, device=fixed.device)
        for place, weights in enumerate(upper):
            rows = moving.index_select(0, order[place * BLOCK : (place + 1) * BLOCK])
            total += rows.index_select(1, order[place * BLOCK :]).view(-1) @ weights
        return total

    def products(some: Tensor) -> Tensor:
        return torch.stack([product(order) for order in some])

    with one_thread_each(workers(fixed.device)) as pool:
        return torch.cat(list(pool.map(products, orders.split(TOGETHER))))


def growing(total: int, first: int = 64) -> Iterator[int]:
    """Sizes of batches that double until they sum to `total`."""
    while total > 0:
        yield min(first, total)
        total, first = total - first, 2 * first
