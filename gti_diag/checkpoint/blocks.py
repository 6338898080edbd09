"""A matrix whose rectangles lie in several places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .lazy import Tensor, kind_of, torch
from .records import Matrix, bad


@dataclass(frozen=True)
class Block:
    """Rows `top` on and columns `left` on of the whole are `part`."""

    top: int
    left: int
    part: Matrix


def joined(name: str, blocks: Sequence[Block], *, shape: tuple[int, int], dtype: torch.dtype) -> Matrix:
    """The whole matrix; only the parts that hold wanted rows are read.

    Raises:
        InputError: the blocks do not tile the shape.
    """
    covered = sum(block.part.shape[0] * block.part.shape[1] for block in blocks)
    inside = all(b.top + b.part.shape[0] <= shape[0] and b.left + b.part.shape[1] <= shape[1] for b in blocks)
    if covered != shape[0] * shape[1] or not inside:
        raise bad(name, f"its stored parts hold {covered:,} of {shape[0] * shape[1]:,} elements", "a shard is missing")

    def fetch(ids: Tensor) -> Tensor:
        out = torch.full((len(ids), shape[1]), torch.nan, dtype=dtype)  # overlapping parts leave a hole that shows
        for block in blocks:
            height, width = block.part.shape
            here = ((ids >= block.top) & (ids < block.top + height)).nonzero()[:, 0]
            if len(here):
                out[here, block.left : block.left + width] = block.part.rows(ids[here] - block.top).to(dtype)
        return out

    return Matrix(name=name, shape=shape, kind=kind_of(dtype), fetch=fetch)
