"""Ranks of pairwise dissimilarities by sorting them: the machinery behind `rsa.spearman_rsa` and `rsa.rho_a`.

A space comes in as its offsets: float64 unit rows minus their mean, for which d_ij = a_i + a_j - r_i . r_j with a_i = 1/2 |r_i|^2.
Two dissimilarities that differ by less than `TIE` of the largest one differ by the rounding of a dot product, and are tied.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .permute import TOGETHER, pair_products
from .streamed_ranks import TIE, Offsets, RankSums, binned, graded, graded_sums, midranks, streamed_sums
from .tiles import one_thread_each, workers

ROWS = 256  # of a tile whose pairs are listed
EXACT_PAIRS = 1 << 22  # up to here (2,896 tokens) sorting takes a second; above, pairs are streamed
FLOAT64_TOKENS = 128  # more tokens than this are permuted in float32: the null is a histogram, not a last digit
RERANKED_TOKENS = (
    64  # more tokens than this are redrawn to first order: at 96 bounds move by 2 % of the interval, at 256 by 0.7 %
)


class Tied(NamedTuple):
    """Order of the pairs' dissimilarities, and for each place in that order the number of its group of ties (0, 1, …)."""

    order: Int[Tensor, " pairs"]
    group: Int[Tensor, " pairs"]


def rank_sums(r: Offsets, s: Offsets, *, exact: bool, names: tuple[str, str] = ("x", "y")) -> RankSums:
    """Exact sums by sorting, or (many pairs, not `exact`) streamed sums, in memory that does not grow with the pairs."""
    pairs = len(r) * (len(r) - 1) // 2
    if not exact and pairs > EXACT_PAIRS:
        first, second = binned(r), binned(s)
        if first is not None and second is not None:
            return streamed_sums(first, second)
        return graded_sums(graded(r) if first is None else first, graded(s) if second is None else second, names)
    first, second = _both(centred_ranks, r, s, names)
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
    ranks = midranks(torch.bincount(group)).index_select(0, group)
    return torch.empty_like(ranks).index_copy_(0, order, ranks)


class Ranked(NamedTuple):
    """Centred midranks of the pairs i < j as shares of their number, the group of ties each pair is in, and the size of the groups."""

    ranks: Float[Tensor, " pairs"]
    group: Int[Tensor, " pairs"]
    counts: Float[Tensor, " groups"]


def ranked(offsets: Offsets, name: str) -> Ranked:
    order, group = tied_order(offsets, name)
    counts = torch.bincount(group).double()
    group = torch.empty_like(group).index_copy_(0, order, group)
    return Ranked((midranks(counts) / len(order)).index_select(0, group), group, counts)


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
        ranks = [midranks(counts) / total for counts in held]
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


def _both(function: Callable, r: Offsets, s: Offsets, names: tuple[str, str] = ("x", "y")) -> list:
    """Both spaces at once, unless sorting them takes gigabytes."""
    if len(r) ** 2 / 2 > EXACT_PAIRS:
        return [function(r, names[0]), function(s, names[1])]
    with one_thread_each(min(2, workers(r.device))) as pool:
        return list(pool.map(function, (r, s), names))
