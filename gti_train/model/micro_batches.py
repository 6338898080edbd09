"""Micro-batches of similar length at the least cost."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# What one more pass costs, in tokens: reading the weights on a CPU, launching kernels on a GPU.
OVERHEAD_CPU, OVERHEAD_GPU = 64, 2048


def overhead_of(device: "torch.device") -> int:
    """What one more pass costs on `device`, in tokens."""
    return OVERHEAD_CPU if device.type == "cpu" else OVERHEAD_GPU


def buckets(lengths: Sequence[int], *, overhead: int, limit: int) -> list[list[int]]:
    """Split a batch into groups of similar length at the least cost Σ (overhead + size · longest).

    `overhead` is what running one more group costs, in tokens; no group pads to more than `limit` tokens
    unless it is a single sequence. Exact, by dynamic programming over the sorted lengths.
    """
    ranked = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    best, cut = [0.0], [0]
    for end in range(1, len(ranked) + 1):
        longest = lengths[ranked[end - 1]]
        costs = {
            start: best[start] + overhead + (end - start) * longest
            for start in range(end)
            if start == end - 1 or (end - start) * longest <= limit
        }
        cut.append(min(costs, key=costs.__getitem__))
        best.append(costs[cut[-1]])
    groups, end = [], len(ranked)
    while end:
        groups.append(ranked[cut[end] : end])
        end = cut[end]
    return groups[::-1]


def shared(lengths: Sequence[int], *, overhead: int, limit: int, count: int) -> list[list[int]]:
    """The groups of `buckets` for `count` workers that share the limit: none costs more than its worker's share, the
    costliest first."""

    def cost(group: list[int]) -> int:
        return len(group) * max(lengths[i] for i in group)

    groups, found = buckets(lengths, overhead=overhead, limit=max(1, limit // count)), []
    fair = max(1, sum(map(cost, groups)) // count)
    for group in groups:
        pieces = min(len(group), max(1, -(-cost(group) // fair)))
        size = -(-len(group) // pieces)
        found += [group[start : start + size] for start in range(0, len(group), size)]
    return sorted(found, key=cost, reverse=True)
