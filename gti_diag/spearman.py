"""Ranks of pairwise dissimilarities, exactly or in one stream: the machinery behind `rsa.spearman_rsa` and `rsa.rho_a`.

A space comes in as its offsets: float64 unit rows minus their mean, for which d_ij = a_i + a_j - r_i . r_j with a_i = 1/2 |r_i|^2.
Two dissimilarities that differ by less than `TIE` of the largest one differ by the rounding of a dot product, and are tied.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

Offsets = Float[Tensor, "tokens _"]

TIE = 2.0**-44
EXACT_PAIRS = 1 << 22  # up to here sorting takes a second or two; above, pairs are streamed
BINS = 1 << 17  # bins of the range; their counts and sums stay in a core's cache
FLOAT64_TOKENS = 512  # more tokens than this are permuted in float32: the null is a histogram, not a last digit
LEVELS = 4096  # ranks of redrawn tokens are resolved to this share of the pairs
UNEVEN = 1e-8  # sum of cubed bin shares above which bins are too coarse for these dissimilarities
PILOT = 1024  # evenly spaced tokens whose pairs show the range of dissimilarities
ROWS, COLUMNS = 256, 4096  # a tile holds 2^20 pairs, so that counts and rank sums share one 64-bit integer:
SHIFT, STEPS = 42, (1 << 21) - 1  # count << 42 | sum of ranks in 2^21 steps, each below 2^42


class RankSums(NamedTuple):
    """Over the pairs i < j: sum of products of centred midranks, and their two sums of squares."""

    product: float
    first: float
    second: float
    pairs: int


class Tied(NamedTuple):
    """Order of the pairs' dissimilarities, and for each place in that order the number of its group of ties (0, 1, …)."""

    order: Int[Tensor, " pairs"]
    group: Int[Tensor, " pairs"]


def rank_sums(r: Offsets, s: Offsets, *, exact: bool) -> RankSums:
    """Exact sums by sorting, or (many pairs, not `exact`, dissimilarities that spread over the bins) streamed sums."""
    pairs = len(r) * (len(r) - 1) // 2
    if not exact and pairs > EXACT_PAIRS:
        first, second = _binned(r), _binned(s)
        if first is not None and second is not None:
            return streamed_sums(first, second)
    first, second = centred_ranks(r, "x"), centred_ranks(s, "y")
    return RankSums((first @ second).item(), (first @ first).item(), (second @ second).item(), pairs)


def tied_order(offsets: Offsets, name: str) -> Tied:
    """Raises: ValueError if all dissimilarities are tied."""
    n = len(offsets)
    values = torch.empty(n * (n - 1) // 2, dtype=torch.float64, device=offsets.device)
    halves = offsets.square().sum(1) / 2
    at = 0
    for start in range(0, n, ROWS):
        block = offsets[start : start + ROWS]
        tile = halves[start : start + ROWS, None] + halves[start:] - block @ offsets[start:].T
        found = tile[torch.ones_like(tile, dtype=torch.bool).triu_(1)]
        values[at : at + len(found)] = found
        at += len(found)
    values, order = values.sort()
    largest = values[-1].item()
    group = torch.zeros_like(order)
    group[1:] = (values.diff() > TIE * largest).cumsum(0)
    if group[-1] == 0:
        raise ValueError(f"all pairs of {name} are equally dissimilar: a correlation with them is undefined")
    return Tied(order, group)


def centred_ranks(offsets: Offsets, name: str) -> Float[Tensor, " pairs"]:
    """Midranks of the dissimilarities of the pairs i < j (row by row), minus their mean."""
    order, group = tied_order(offsets, name)
    ranks = torch.empty(len(order), dtype=torch.float64, device=order.device)
    ranks[order] = _midranks(torch.bincount(group))[group]
    return ranks


def _midranks(counts: Tensor) -> Float[Tensor, " groups"]:
    """Mean rank of each group of ties, given how many values (or how much weight) it holds, minus the overall mean rank."""
    counts = counts.double()
    return counts.cumsum(0) - (counts - 1) / 2 - (counts.sum() + 1) / 2


def ranks_permuted(
    r: Offsets, s: Offsets, orders: Int[Tensor, "samples tokens"], combine: Callable
) -> tuple[float, Tensor]:
    """A rank statistic, and its values when the tokens of `s` are permuted: ranks move with their pairs, none is taken again.

    `combine(product, first, second, pairs)` makes the statistic of the sums over pairs of ranks divided by the number of pairs.
    """
    first, second = centred_ranks(r, "x"), centred_ranks(s, "y")
    n, pairs = len(r), len(first)
    own = ((first @ first) / pairs**2, (second @ second) / pairs**2, pairs)
    dtype = torch.float64 if n <= FLOAT64_TOKENS else torch.float32
    matrices = []
    for ranks in (first, second):
        matrix = torch.zeros(n, n, dtype=dtype, device=r.device)
        matrix[torch.ones_like(matrix, dtype=torch.bool).triu_(1)] = (ranks / pairs).to(dtype)
        matrices.append(matrix + matrix.T)
    local = threading.local()

    def product(order: Tensor) -> Tensor:
        if not hasattr(local, "buffers"):
            local.buffers = torch.empty_like(matrices[0]), torch.empty_like(matrices[0])
        rows, moved = local.buffers
        torch.index_select(matrices[1], 0, order, out=rows)
        torch.index_select(rows, 1, order, out=moved)
        return matrices[0].view(-1) @ moved.view(-1)

    with _one_thread_each(_workers(r.device)) as pool:
        products = torch.stack(list(pool.map(product, [torch.arange(n, device=r.device), *orders]))).double() / 2
    values = combine(products, *own)
    return values[0].item(), values[1:]


def ranks_reweighted(r: Offsets, s: Offsets, weights: Float[Tensor, "samples tokens"], combine: Callable) -> Tensor:
    """A rank statistic for every row of token weights (pair i, j weighs w_i w_j): weighted midranks, without sorting again.

    Ranks are resolved to 1 / `LEVELS` of the pairs, far below what redrawing tokens changes. Not finite where a sample has no spread.
    """
    i, j = torch.triu_indices(len(r), len(r), 1, dtype=torch.int32, device=r.device)
    pairs = len(i)
    groups = []
    for offsets, name in ((r, "x"), (s, "y")):
        ranks = centred_ranks(offsets, name)
        if pairs > LEVELS:
            groups.append(((ranks / pairs + 0.5) * LEVELS).clamp_(0, LEVELS - 1).int())
        else:
            groups.append((ranks - ranks.min()).mul_(2).round().int())  # midranks are halves: exact

    def value(weight: Tensor) -> Tensor:
        pair = weight.index_select(0, i).mul_(weight.index_select(0, j))
        ranks, own = [], []
        for group in groups:
            held = torch.zeros(2 * LEVELS, dtype=torch.float64, device=r.device).index_add_(0, group, pair)
            midranks = _midranks(held)
            ranks.append(midranks.index_select(0, group))
            own.append(held @ midranks.square())
        total = pair.sum()
        return combine((pair * ranks[0]) @ ranks[1] / total**2, own[0] / total**2, own[1] / total**2, total)

    with _one_thread_each(_workers(r.device)) as pool:
        return torch.stack(list(pool.map(value, weights)))


@dataclass(frozen=True)
class Binned:
    """A space prepared so that one float32 product gives the bin of every pair: left(i) . right(j) = scale (d_ij - low)."""

    right: Float[Tensor, "tokens _"]
    scale: float

    def left(self, rows: slice) -> Tensor:
        block = self.right[rows]
        return torch.cat([-self.scale * block[:, :-2], block[:, -1:], block[:, -2:-1]], dim=1)


def _binned(offsets: Offsets) -> Binned | None:
    """None where equal bins over the range would lump too many dissimilarities together (clusters, many ties)."""
    n = len(offsets)
    pilot = offsets[torch.linspace(0, n - 1, min(n, PILOT), device=offsets.device).long()]
    halves = pilot.square().sum(1) / 2
    found = halves[:, None] + halves - pilot @ pilot.T
    found = found[torch.ones_like(found, dtype=torch.bool).triu_(1)]
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
    counts_second = _accumulate(tokens, lambda tile: (tile.bins(second), None), ones)[0]
    ranks_second = _midranks(counts_second)
    steps = (ranks_second / pairs + 0.5).mul(STEPS).round().clamp(0, STEPS).long()
    packed = torch.cat([steps + (1 << SHIFT), steps.new_zeros(1)])
    counts, sums = _accumulate(tokens, lambda tile: (tile.bins(first), tile.bins(second)), packed)

    ranks_first = _midranks(counts)
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
        self.indices: dict[int, Tensor] = {}
        self.values = torch.empty(ROWS * COLUMNS, dtype=torch.int64, device=device)
        self.counts = torch.zeros(BINS, dtype=torch.int64, device=device)
        self.sums = torch.zeros(BINS, dtype=torch.int64, device=device)
        self.packed = torch.zeros(BINS + 1, dtype=torch.int64, device=device)
        self.rows = self.columns = slice(0, 0)
        self.lefts: dict[int, Tensor] = {}

    def bins(self, space: Binned) -> Int[Tensor, " pairs"]:
        """Bin of each pair of the tile; pairs that are not i < j go to the extra bin `BINS`."""
        shape = (self.rows.stop - self.rows.start, self.columns.stop - self.columns.start)
        key, size = id(space), shape[0] * shape[1]
        if key not in self.lefts:
            self.lefts[key] = space.left(self.rows)
        if key not in self.indices:
            self.indices[key] = torch.empty(ROWS * COLUMNS, dtype=torch.int32, device=space.right.device)
        coordinates = self.coordinates[:size].view(shape)
        torch.mm(self.lefts[key], space.right[self.columns].T, out=coordinates)
        found = self.indices[key][:size].view(shape).copy_(coordinates.clamp_(0, BINS - 1))
        if self.columns.start < self.rows.stop:
            i = torch.arange(self.rows.start, self.rows.stop, device=found.device)
            j = torch.arange(self.columns.start, self.columns.stop, device=found.device)
            found.masked_fill_(j <= i[:, None], BINS)
        return found.view(-1)


def _accumulate(tokens: int, bins: Callable, table: Int[Tensor, " bins"]) -> tuple[Tensor, Tensor]:
    """Counts in each bin and sums of table entries; `bins(tile)` gives where each pair goes and which entry it brings (None: 1)."""
    workers = _workers(table.device)
    local = threading.local()
    tiles: list[_Tile] = []

    def visit(start: int) -> None:
        if not hasattr(local, "tile"):
            local.tile = _Tile(table.device)
            tiles.append(local.tile)
        tile = local.tile
        tile.rows, tile.lefts = slice(start, min(start + ROWS, tokens)), {}
        for column in range(start, tokens, COLUMNS):
            tile.columns = slice(column, min(column + COLUMNS, tokens))
            where, entry = bins(tile)
            if entry is None:
                tile.packed.index_add_(0, where, table[:1].expand(len(where)))
                continue
            torch.index_select(table, 0, entry, out=tile.values[: len(entry)])
            tile.packed.index_add_(0, where, tile.values[: len(entry)])
            tile.counts += tile.packed[:BINS] >> SHIFT
            tile.sums += tile.packed[:BINS] & ((1 << SHIFT) - 1)
            tile.packed.zero_()

    with _one_thread_each(workers) as pool:
        list(pool.map(visit, range(0, tokens, ROWS)))
    counts, sums = sum(tile.counts for tile in tiles), sum(tile.sums for tile in tiles)
    return counts + sum(tile.packed[:BINS] for tile in tiles), sums


def _workers(device: torch.device) -> int:
    return torch.get_num_threads() if device.type == "cpu" else 1


@contextmanager
def _one_thread_each(workers: int) -> Iterator[ThreadPoolExecutor]:
    """Workers that each compute on one thread: no barrier for a busy core to hold up."""
    before = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(workers, initializer=lambda: torch.set_num_threads(1)) as pool:
            yield pool
    finally:
        torch.set_num_threads(before)
