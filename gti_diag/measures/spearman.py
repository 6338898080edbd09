"""Ranks of pairwise dissimilarities, exactly or in one stream: the machinery behind `rsa.spearman_rsa` and `rsa.rho_a`.

A space comes in as its offsets: float64 unit rows minus their mean, for which d_ij = a_i + a_j - r_i . r_j with a_i = 1/2 |r_i|^2.
Two dissimilarities that differ by less than `TIE` of the largest one differ by the rounding of a dot product, and are tied.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .permute import TOGETHER, pair_products
from .tiles import one_thread_each, workers

Offsets = Float[Tensor, "tokens _"]

TIE = 2.0**-44
EXACT_PAIRS = 1 << 23  # up to here (4,096 tokens) sorting takes seconds; above, pairs are streamed
BINS = 1 << 17  # bins of the range; their counts and sums stay in a core's cache
FLOAT64_TOKENS = 128  # more tokens than this are permuted in float32: the null is a histogram, not a last digit
RERANKED_TOKENS = (
    64  # more tokens than this are redrawn to first order: at 96 bounds move by 2 % of the interval, at 256 by 0.7 %
)
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
    first, second = _both(centred_ranks, r, s)
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
        for i, row in enumerate(tile):
            values[at : at + len(row) - i - 1] = row[i + 1 :]
            at += len(row) - i - 1
    values, order = values.sort()
    group = torch.zeros(len(order), dtype=torch.int32, device=order.device)
    torch.cumsum(values.diff() > TIE * values[-1], 0, out=group[1:])
    if group[-1] == 0:
        raise ValueError(f"all pairs of {name} are equally dissimilar: a correlation with them is undefined")
    return Tied(order, group)


def centred_ranks(offsets: Offsets, name: str) -> Float[Tensor, " pairs"]:
    """Midranks of the dissimilarities of the pairs i < j (row by row), minus their mean."""
    order, group = tied_order(offsets, name)
    midranks = _midranks(torch.bincount(group)).index_select(0, group)
    return torch.empty_like(midranks).index_copy_(0, order, midranks)


def _midranks(counts: Tensor) -> Float[Tensor, " groups"]:
    """Mean rank of each group of ties, given how many values (or how much weight) it holds, minus the overall mean rank."""
    counts = counts.double()
    return counts.cumsum(0) - (counts - 1) / 2 - (counts.sum() + 1) / 2


class Ranked(NamedTuple):
    """Centred midranks of the pairs i < j as shares of their number, the group of ties each pair is in, and the size of the groups."""

    ranks: Float[Tensor, " pairs"]
    group: Int[Tensor, " pairs"]
    counts: Float[Tensor, " groups"]


def ranked(offsets: Offsets, name: str) -> Ranked:
    order, group = tied_order(offsets, name)
    counts = torch.bincount(group).double()
    group = torch.empty_like(group).index_copy_(0, order, group)
    return Ranked((_midranks(counts) / len(order)).index_select(0, group), group, counts)


def ranks_permuted(
    r: Offsets, s: Offsets, *, broken_ties: bool
) -> tuple[float, Callable[[Int[Tensor, "samples tokens"]], Float[Tensor, " samples"]]]:
    """A rank statistic, and its values when the tokens of `s` are permuted: ranks move with their pairs, none is taken again."""
    n, (first, second) = len(r), (space.ranks for space in _both(ranked, r, s))
    dtype = torch.float64 if n <= FLOAT64_TOKENS else torch.float32
    fixed, moving = (_symmetric(ranks, n).to(dtype) for ranks in (first, second))
    pairs, squares = n * (n - 1) / 2, (first.square().mean(), second.square().mean())

    def permuted(orders: Tensor) -> Tensor:
        products = pair_products(fixed, moving, orders)
        return _statistic(products / pairs, *squares, pairs=pairs, broken_ties=broken_ties)

    return permuted(torch.arange(n, device=r.device)[None]).item(), permuted


def ranks_reweighted(
    r: Offsets, s: Offsets, weights: Float[Tensor, "samples tokens"], *, broken_ties: bool
) -> tuple[Float[Tensor, " samples"], Float[Tensor, "tokens tokens"]]:
    """A rank statistic for every row of token weights (pair i, j weighs w_i w_j), and the influence of each pair on it.

    Up to `RERANKED_TOKENS` tokens, every sample is ranked anew (weighted midranks: nothing is sorted again); the value is not finite
    where a sample has no spread. More tokens take the first-order expansion, value + weighted mean influence.
    """
    n, (first, second) = len(r), _both(ranked, r, s)
    theta, *squares = (
        (a.ranks @ b.ranks / len(a.ranks)) for a, b in ((first, second), (first, first), (second, second))
    )
    observed = _statistic(theta, *squares, pairs=n * (n - 1) / 2, broken_ties=broken_ties)
    shift = _tail_means(first, second) + _tail_means(second, first) - 3 * theta
    influence = first.ranks * second.ranks + shift
    if broken_ties:
        influence *= 12
    else:
        influence /= (squares[0] * squares[1]).sqrt()
        for space, square in zip((first, second), squares, strict=True):
            shares = space.counts / len(space.ranks)
            influence += observed / (8 * square) * (shares.square() - shares.pow(3).sum()).index_select(0, space.group)
    matrix = _symmetric(influence, n)
    if n > RERANKED_TOKENS:
        pairs = (weights.sum(1).square() - weights.square().sum(1)) / 2
        return observed + ((weights @ matrix) * weights).sum(1) / 2 / pairs, matrix

    i, j = torch.triu_indices(n, n, 1, device=r.device)

    def value(weight: Tensor) -> Tensor:
        pair = weight[i] * weight[j]
        total = pair.sum()
        held = [torch.zeros_like(space.counts).index_add_(0, space.group, pair) for space in (first, second)]
        ranks = [_midranks(counts) / total for counts in held]
        squares = (counts @ rank.square() / total for counts, rank in zip(held, ranks, strict=True))
        product = (pair * ranks[0].index_select(0, first.group)) @ ranks[1].index_select(0, second.group)
        return _statistic(product / total, *squares, pairs=total, broken_ties=broken_ties)

    def values(some: Tensor) -> Tensor:
        return torch.stack([value(weight) for weight in some])

    with one_thread_each(workers(r.device)) as pool:
        return torch.cat(list(pool.map(values, weights.split(TOGETHER)))), matrix


def _statistic(theta: Tensor, first: Tensor, second: Tensor, *, pairs: Tensor | float, broken_ties: bool) -> Tensor:
    """From means over pairs of products and squares of ranks / pairs."""
    return 12 * theta / (1 - 1 / pairs**2) if broken_ties else theta / (first * second).sqrt()


def _tail_means(space: Ranked, other: Ranked) -> Float[Tensor, " pairs"]:
    """For each pair, the mean over all pairs of [other's rank where space's is larger, half of it where tied]: what moving the pair's
    rank under everybody else adds to the mean product."""
    sums = torch.zeros_like(space.counts).index_add_(0, space.group, other.ranks)
    return ((sums.flip(0).cumsum(0).flip(0) - sums / 2) / len(space.ranks)).index_select(0, space.group)


def _symmetric(values: Float[Tensor, " pairs"], tokens: int) -> Float[Tensor, "tokens tokens"]:
    matrix = torch.zeros(tokens, tokens, dtype=values.dtype, device=values.device)
    i, j = torch.triu_indices(tokens, tokens, 1, device=values.device)
    matrix[i, j] = values
    matrix[j, i] = values
    return matrix


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

    with one_thread_each(workers(table.device)) as pool:
        list(pool.map(visit, range(0, tokens, ROWS)))
    counts = torch.stack([tile.counts + tile.packed[:BINS] for tile in tiles]).sum(0)
    return counts, torch.stack([tile.sums for tile in tiles]).sum(0)


def _both(function: Callable, r: Offsets, s: Offsets) -> list:
    """Both spaces at once, unless sorting them takes gigabytes."""
    if len(r) ** 2 / 2 > EXACT_PAIRS:
        return [function(r, "x"), function(s, "y")]
    with one_thread_each(min(2, workers(r.device))) as pool:
        return list(pool.map(function, (r, s), "xy"))
