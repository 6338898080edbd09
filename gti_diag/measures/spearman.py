"""Ranks of pairwise dissimilarities by sorting them: the machinery behind `rsa.spearman_rsa` and `rsa.rho_a`.

A space comes in as its offsets: float64 unit rows minus their mean, for which d_ij = a_i + a_j - r_i . r_j with a_i = 1/2 |r_i|^2.
Two dissimilarities that differ by less than `TIE` of the largest one differ by the rounding of a dot product, and are tied.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from .permute import TOGETHER, shuffled_products
from .reweight import first_order
from .streamed_ranks import TIE, Offsets, RankSums, binned, graded, graded_sums, midranks, streamed_sums
from .tiles import one_thread_each, workers

ROWS = 256  # of a tile whose pairs are listed
EXACT_PAIRS = 1 << 22  # up to here (2,896 tokens) sorting takes a second; above, pairs are streamed
EXCHANGES = 100  # pairs of neighbours, and rounds, until sorting by leading bits is given up
RERANKED_TOKENS = 64  # more are redrawn to first order: at 96 bounds move by 2 % of the interval, at 256 by 0.7 %


class Tied(NamedTuple):
    """Order of the pairs' dissimilarities, and for each place in that order the number of its group of ties (0, 1, …)."""

    order: Int[Tensor, " pairs"]
    group: Int[Tensor, " pairs"]


def rank_sums(r: Offsets, s: Offsets, *, exact: bool, names: tuple[str, str] = ("x", "y")) -> RankSums:
    """Exact sums by sorting, or streamed sums in memory that does not grow with the pairs."""
    pairs = len(r) * (len(r) - 1) // 2
    if not exact:
        first, second = binned(r), binned(s)
        if first is not None and second is not None:
            return streamed_sums(first, second)
        return graded_sums(graded(r) if first is None else first, graded(s) if second is None else second, names)
    a, b = centred_ranks(r, names[0]), centred_ranks(s, names[1])
    return RankSums((a @ b).item(), (a @ a).item(), (b @ b).item(), pairs)


def tied_order(offsets: Offsets, name: str) -> Tied:
    """Raises: ValueError if all dissimilarities are tied."""
    n = len(offsets)
    values = torch.empty(n * (n - 1) // 2, dtype=torch.float64, device=offsets.device)
    halves = offsets.square().sum(1) / 2
    at = 0
    for start in range(0, n, ROWS):
        block = offsets[start : start + ROWS]
        tile = torch.addmm(halves[start:], block, offsets[start:].T, alpha=-1).add_(halves[start : start + ROWS, None])
        for place, row in enumerate(tile, 1):
            values[at : at + len(row) - place] = row[place:]
            at += len(row) - place
    values, order = _sorted(values)
    group = torch.zeros(len(order), dtype=torch.int32, device=order.device)
    torch.cumsum(values.diff() > TIE * values[-1], 0, out=group[1:])
    if group[-1] == 0:
        raise ValueError(f"all pairs of {name} are equally dissimilar: a correlation with them is undefined")
    return Tied(order, group)


def _sorted(values: Float[Tensor, " pairs"]) -> tuple[Float[Tensor, " pairs"], Int[Tensor, " pairs"]]:
    if values.device.type != "cpu":
        return values.sort()
    order = torch.from_numpy(_order(values.numpy()))
    return values.index_select(0, order), order


def _order(values: np.ndarray) -> np.ndarray:
    """As `np.argsort`, not stable, which ties do not need: whole numbers of a value's leading bits and its place are sorted, in 60 % of
    the time, and the few neighbours that share these bits exchanged where they are the wrong way round."""
    bits, low = len(values).bit_length(), values.min(initial=np.inf)
    spread = values.max(initial=-np.inf) - low
    if len(values) > EXACT_PAIRS or not spread > 0:  # of very many, too many share these bits
        return np.argsort(values)
    keys = ((values - low) * (2.0 ** (62 - bits) / spread)).astype(np.int64) << bits
    keys |= np.arange(len(values))
    keys.sort()
    keys &= (1 << bits) - 1
    found = values[keys]
    for _ in range(EXCHANGES):
        wrong = np.flatnonzero(found[1:] < found[:-1])
        if not len(wrong):
            return keys
        if len(wrong) > EXCHANGES:
            break
        for at in wrong.tolist():
            if found[at + 1] < found[at]:
                keys[[at, at + 1]], found[[at, at + 1]] = keys[[at + 1, at]], found[[at + 1, at]]
    return np.argsort(values)


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
    sorted_ranks = (midranks(counts) / len(order)).index_select(0, group)
    ranks, group = (torch.empty_like(part).index_copy_(0, order, part) for part in (sorted_ranks, group))
    return Ranked(ranks, group, counts)


def ranks_shuffled(
    first: Ranked,
    second: Ranked,
    labels: Int[Tensor, " tokens"],
    *,
    broken_ties: bool,
    samples: int,
    generator: torch.Generator,
) -> tuple[float, Iterator[Float[Tensor, " some"]]]:
    """A rank statistic, and its values when the tokens of `second` are shuffled: ranks move with their pairs, none is taken again."""
    pairs, squares = float(len(first.ranks)), (first.ranks.square().mean(), second.ranks.square().mean())
    fixed, moving = (_symmetric(space.ranks, len(labels)) for space in (first, second))

    def value(products: Tensor) -> Tensor:
        return _statistic(products / pairs, *squares, pairs=pairs, broken_ties=broken_ties)

    drawn = shuffled_products(fixed[None], moving, labels, samples=samples, generator=generator)
    return value(first.ranks @ second.ranks).item(), (value(products[:, 0]) for products in drawn)


def ranks_reweighted(
    first: Ranked, second: Ranked, weights: Float[Tensor, "samples tokens"], *, broken_ties: bool
) -> tuple[Float[Tensor, " samples"], Float[Tensor, "tokens tokens"]]:
    """A rank statistic for every row of token weights (pair i, j weighs w_i w_j), and the influence of each pair on it.

    Up to `RERANKED_TOKENS` tokens, every sample is ranked anew (weighted midranks: nothing is sorted again); the value is not finite
    where a sample has no spread. More tokens take the first-order expansion, value + weighted mean influence.
    """
    n = weights.shape[1]
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
        return first_order(observed, matrix, weights), matrix

    i, j = torch.triu_indices(n, n, 1, device=weights.device)

    def values(some: Tensor) -> Tensor:  # pairs × samples
        pair = some.T[i] * some.T[j]
        total = pair.sum(0)
        held = [
            pair.new_zeros(len(space.counts), len(some)).index_add_(0, space.group, pair) for space in (first, second)
        ]
        ranks = [midranks(counts) / total for counts in held]
        squares = ((counts * rank.square()).sum(0) / total for counts, rank in zip(held, ranks, strict=True))
        product = (pair * ranks[0][first.group] * ranks[1][second.group]).sum(0)
        return _statistic(product / total, *squares, pairs=total, broken_ties=broken_ties)

    with one_thread_each(workers(weights.device)) as pool:
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
    matrix[torch.ones_like(matrix, dtype=torch.bool).triu_(1)] = values
    return matrix + matrix.T
