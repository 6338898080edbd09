"""Ranks of pairwise dissimilarities in a stream: bins instead of a sort, in memory that does not grow with the pairs.

A space comes in as its offsets: float64 unit rows minus their mean, for which d_ij = a_i + a_j - r_i . r_j with a_i = 1/2 |r_i|^2.
Two dissimilarities that differ by less than `TIE` of the largest one differ by the rounding of a dot product, and are tied. Where they
spread over the range, equal bins will do (`Binned`); where many tie, or few lie far from all others, each frequent value has a bin
of its own and the rest is cut into equal shares (`Graded`).
"""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .tiles import one_thread_each, workers

Offsets = Float[Tensor, "tokens _"]

TIE = 2.0**-44
BINS = 1 << 17  # bins of the range; their counts and sums stay in a core's cache
UNEVEN = 1e-8  # sum of cubed bin shares above which bins are too coarse for these dissimilarities
PILOT = 1024  # tokens drawn at random, whose pairs show the range of dissimilarities
TIED = 8  # pairs of the pilot that share a value: it gets a bin of its own
ROWS, COLUMNS = 256, 4096  # a tile holds 2^20 pairs, so that counts and rank sums share one 64-bit integer:
SHIFT, STEPS = 42, (1 << 21) - 1  # count << 42 | sum of ranks in 2^21 steps, each below 2^42


class RankSums(NamedTuple):
    """Over the pairs i < j: sum of products of centred midranks, and their two sums of squares."""

    product: float
    first: float
    second: float
    pairs: int


def midranks(counts: Tensor) -> Tensor:
    """Mean rank of each group of ties (down each column), given how many values, or how much weight, it holds; minus the overall mean rank."""
    counts = counts.double()
    return counts.cumsum(0) - (counts - 1) / 2 - (counts.sum(0) + 1) / 2


@dataclass(frozen=True)
class Binned:
    """A space prepared so that one float32 product gives the bin of every pair: left(i) . right(j) = scale (d_ij - low)."""

    right: Float[Tensor, "tokens _"]
    scale: float

    @property
    def device(self) -> torch.device:
        return self.right.device

    @property
    def bins(self) -> int:
        return BINS

    def __len__(self) -> int:
        return len(self.right)

    def of(self, tile: "_Tile") -> Int[Tensor, " pairs"]:
        """Bin of each pair of the tile; pairs that are not i < j go to the extra bin `bins`."""
        if id(self) not in tile.lefts:
            tile.lefts[id(self)] = self.left(tile.rows)
        coordinates = tile.coordinates[: tile.shape[0] * tile.shape[1]].view(tile.shape)
        torch.mm(tile.lefts[id(self)], self.right[tile.columns].T, out=coordinates)
        return tile.kept(tile.indices(self).copy_(coordinates.clamp_(0, BINS - 1)), BINS)

    def left(self, rows: slice) -> Tensor:
        block = self.right[rows]
        return torch.cat([-self.scale * block[:, :-2], block[:, -1:], block[:, -2:-1]], dim=1)


@dataclass(frozen=True)
class Graded:
    """A space with ties or clusters: each frequent value has a bin of its own, and what lies between is cut to equal shares.

    Dissimilarities are taken in float64, in which ties are known from mere nearness.
    """

    offsets: Offsets
    halves: Float[Tensor, " tokens"]
    edges: Float[Tensor, " edges"]

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def device(self) -> torch.device:
        return self.offsets.device

    @property
    def bins(self) -> int:
        return len(self.edges) + 1

    def of(self, tile: "_Tile") -> Int[Tensor, " pairs"]:
        """Bin of each pair of the tile; pairs that are not i < j go to the extra bin `bins`."""
        left, right = self.offsets[tile.rows], self.offsets[tile.columns]
        values = self.halves[tile.rows, None] + self.halves[tile.columns] - left @ right.T
        return tile.kept(torch.bucketize(values, self.edges, out_int32=True), self.bins)


def graded(offsets: Offsets) -> Graded:
    values = _pilot(offsets).sort().values
    near = TIE * values[-1]
    starts = torch.cat([values.new_zeros(1, dtype=torch.long), (values.diff() > near).nonzero()[:, 0] + 1])
    ends = torch.cat([starts[1:], starts.new_full((1,), len(values))])
    tied = ends - starts >= TIED
    cut = (starts[1:] * BINS // len(values)).diff(prepend=starts[:1]) > 0
    between = (values[starts[1:]] + values[ends[:-1] - 1]) / 2
    around = torch.cat([values[starts[tied]] - near, values[ends[tied] - 1] + near])
    return Graded(offsets, offsets.square().sum(1) / 2, torch.cat([between[cut], around]).sort().values)


def _pilot(offsets: Offsets) -> Float[Tensor, " pairs"]:
    """Dissimilarities of the pairs of some tokens. Drawn, with a seed: evenly spaced ones may all be of one cluster."""
    chosen = torch.randperm(len(offsets), generator=torch.Generator().manual_seed(0))[:PILOT].to(offsets.device)
    pilot = offsets[chosen]
    halves = pilot.square().sum(1) / 2
    found = halves[:, None] + halves - pilot @ pilot.T
    return found[torch.ones_like(found, dtype=torch.bool).triu_(1)]


def binned(offsets: Offsets) -> Binned | None:
    """None where equal bins over the range would lump too many dissimilarities together (clusters, many ties)."""
    n, found = len(offsets), _pilot(offsets)
    margin = (found.max() - found.min()) / 4
    low = (found.min() - margin).clamp(min=0).item()
    scale = BINS / ((found.max() + margin).item() - low) if margin > 0 else 0.0
    shares = torch.bincount(((found - low) * scale).long()) / len(found)
    if shares.double().pow(3).sum() > UNEVEN:
        return None
    right = torch.empty(n, offsets.shape[1] + 2, device=offsets.device)
    right[:, :-2] = offsets
    right[:, -2] = scale * (torch.linalg.vector_norm(offsets, dim=1).square() - low) / 2
    right[:, -1] = 1
    return Binned(right, scale)


def graded_sums(first: Binned | Graded, second: Binned | Graded, names: tuple[str, str]) -> RankSums:
    """As `streamed_sums`, with sums in float64: ranks of ties are few, and rounding them to steps would not average out.

    Raises: ValueError if all dissimilarities of a space are tied.
    """
    spaces, pairs = (first, second), len(first) * (len(first) - 1) // 2
    counts = [_gathered(space, None) for space in spaces]
    ranks = [midranks(count) for count in counts]
    for name, count in zip(names, counts, strict=True):
        if int((count > 0).sum()) == 1:
            raise ValueError(f"all pairs of {name} are equally dissimilar: a correlation with them is undefined")
    weights = torch.cat([ranks[1], ranks[1].new_zeros(1)])
    sums = _gathered(first, lambda tile: weights[second.of(tile)])
    own = [(count.double() @ rank.square()).item() for count, rank in zip(counts, ranks, strict=True)]
    return RankSums((ranks[0] @ sums).item(), own[0], own[1], pairs)


def _gathered(space: Binned | Graded, weights: Callable[["_Tile"], Tensor] | None) -> Float[Tensor, " bins"]:
    """For each bin how many pairs lie in it, or the sum of their weights."""
    local, tokens, size, device = threading.local(), len(space), space.bins, space.device

    def visit(start: int) -> Tensor:
        if not hasattr(local, "tile"):
            local.tile = _Tile(device)
        found = torch.zeros(size + 1, dtype=torch.float64, device=device)
        for tile in local.tile.along(start, tokens):
            own = None if weights is None else weights(tile)
            found += torch.bincount(space.of(tile), own, minlength=size + 1)
        return found[:size]

    with one_thread_each(workers(device)) as pool:
        return sum(pool.map(visit, range(0, tokens, ROWS)), torch.zeros(size, dtype=torch.float64, device=device))


def streamed_sums(first: Binned, second: Binned) -> RankSums:
    """Two passes over tiles of pairs: bin counts of the narrower space, then, in each bin of the other one, count and rank sum.

    Values in one bin count as tied, which costs about a billionth of the correlation; no pair outlives its tile.
    """
    if first.right.shape[1] < second.right.shape[1]:
        product, own, other, pairs = streamed_sums(second, first)
        return RankSums(product, other, own, pairs)
    tokens, device = len(first.right), first.right.device
    pairs = tokens * (tokens - 1) // 2

    ones = torch.ones(BINS + 1, dtype=torch.int64, device=device)
    counts_second = _accumulate(tokens, lambda tile: (second.of(tile), None), ones)[0]
    ranks_second = midranks(counts_second)
    steps = (ranks_second / pairs + 0.5).mul(STEPS).round().clamp(0, STEPS).long()
    packed = torch.cat([steps + (1 << SHIFT), steps.new_zeros(1)])
    counts, sums = _accumulate(tokens, lambda tile: (first.of(tile), second.of(tile)), packed)

    ranks_first = midranks(counts)
    rank_sums_in_bins = (sums.double() / STEPS - counts.double() / 2) * pairs
    return RankSums(
        (ranks_first @ rank_sums_in_bins).item(),
        (counts.double() @ ranks_first.square()).item(),
        (counts_second.double() @ ranks_second.square()).item(),
        pairs,
    )


class _Tile:
    """Buffers of one worker, and the tile of pairs it is at: tokens `rows` against tokens `columns`, of which i < j count."""

    def __init__(self, device: torch.device):
        self.coordinates = torch.empty(ROWS * COLUMNS, device=device)
        self.buffers: dict[int, Tensor] = {}
        self.values = torch.empty(ROWS * COLUMNS, dtype=torch.int64, device=device)
        self.counts = torch.zeros(BINS, dtype=torch.int64, device=device)
        self.sums = torch.zeros(BINS, dtype=torch.int64, device=device)
        self.packed = torch.zeros(BINS + 1, dtype=torch.int64, device=device)
        self.rows = self.columns = slice(0, 0)
        self.lefts: dict[int, Tensor] = {}

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start

    def along(self, start: int, tokens: int) -> Iterator["_Tile"]:
        """This tile at every place of the `ROWS` tokens from `start` on, from the diagonal to the last token."""
        self.rows, self.lefts = slice(start, min(start + ROWS, tokens)), {}
        for column in range(start, tokens, COLUMNS):
            self.columns = slice(column, min(column + COLUMNS, tokens))
            yield self

    def indices(self, space: "Binned") -> Int[Tensor, "rows columns"]:
        """A buffer for the bins of one space."""
        if id(space) not in self.buffers:
            self.buffers[id(space)] = torch.empty(ROWS * COLUMNS, dtype=torch.int32, device=space.right.device)
        return self.buffers[id(space)][: self.shape[0] * self.shape[1]].view(self.shape)

    def kept(self, found: Int[Tensor, "rows columns"], extra: int) -> Int[Tensor, " pairs"]:
        """Bins as a list, those of pairs that are not i < j replaced by the extra one."""
        if self.columns.start < self.rows.stop:
            i = torch.arange(self.rows.start, self.rows.stop, device=found.device)
            j = torch.arange(self.columns.start, self.columns.stop, device=found.device)
            found.masked_fill_(j <= i[:, None], extra)
        return found.view(-1)


def _accumulate(tokens: int, bins: Callable, table: Int[Tensor, " bins"]) -> tuple[Tensor, Tensor]:
    """Counts in each bin and sums of table entries; `bins(tile)` gives where each pair goes and which entry it brings (None: 1)."""
    local = threading.local()
    tiles: list[_Tile] = []

    def visit(start: int) -> None:
        if not hasattr(local, "tile"):
            local.tile = _Tile(table.device)
            tiles.append(local.tile)
        for tile in local.tile.along(start, tokens):
            where, entry = bins(tile)
            if entry is None:
                tile.packed.index_add_(0, where, table[:1].expand(len(where)))
                continue
            torch.index_select(table, 0, entry, out=tile.values[: len(entry)])
            tile.packed.index_add_(0, where, tile.values[: len(entry)])
            tile.counts += tile.packed[:BINS] >> SHIFT
            tile.sums += tile.packed[:BINS] & ((1 << SHIFT) - 1)
            tile.packed.zero_()

    with one_thread_each(workers(table.device)) as pool:
        list(pool.map(visit, range(0, tokens, ROWS)))
    counts = torch.stack([tile.counts + tile.packed[:BINS] for tile in tiles]).sum(0)
    return counts, torch.stack([tile.sums for tile in tiles]).sum(0)
