"""The order in which examples are met: a function of seed and step alone."""

from collections.abc import Iterator
from itertools import islice

import torch


def order(count: int, *, batch: int, seed: int, start: int = 0) -> Iterator[list[int]]:
    """Endless batches of indices from batch number `start` on; each epoch's permutation is of (seed, epoch)."""
    per_epoch = -(-count // batch)
    epoch, skip = divmod(start, per_epoch)
    while True:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        parts = torch.randperm(count, generator=generator).split(batch)
        yield from (part.tolist() for part in islice(parts, skip, None))
        epoch, skip = epoch + 1, 0
