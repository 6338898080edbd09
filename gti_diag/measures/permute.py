"""Sums over pairs of tokens when the tokens of one space are shuffled: the inner loop of every Mantel test.

Up to `PICKED` tokens, random orders are drawn one by one and their pairs picked: tokens² / 2 picks an order. More tokens are shuffled by
shifts. Write the tokens of each level l round a circle, those of one space in an order a, those of the other in an order b; the shuffle
that takes a(i) to b(i + k_l) has the sum

    Σ_ij F_{a(i) a(j)} M_{b(i + k_l) b(j + k_m)}    (i of level l, j of level m),

a cross-correlation of two matrices, of which one Fourier transform gives all shifts k at once: tokens · log(tokens) for each shuffle.

That is as exact a test as with independent orders. a is drawn at random and b = a the first time, so that the observed order is the
shift 0; for further circles b is drawn anew. Every member of the set {b_c · shift · a⁻¹ : circle c, shift} is then as likely as any other
to be the observed one where tokens are exchangeable (Hemerik & Goeman 2018, doi 10.1007/s11749-017-0571-1: subgroups, and sets of
permutations relative to a random member), circles being given equally many shifts.
"""

from collections.abc import Iterator
from itertools import combinations_with_replacement

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .tiles import one_thread_each, workers

TOGETHER = 16  # orders that a worker takes at a time: handing over a small one costs more than its sum
BLOCK = 128  # rows moved at a time: they stay in a core's cache while their columns are picked
FLOAT64_TOKENS = 128  # more tokens than this are shuffled in float32: the null is a histogram, not a last digit
PICKED = 64  # up to so many tokens picking pairs is as cheap as transforms
CIRCLES = 16  # of two tokens or more; between more of them circles are too short to be worth a transform


def shuffled_products(
    fixed: Float[Tensor, "_ tokens tokens"],
    moving: Float[Tensor, "tokens tokens"],
    labels: Int[Tensor, " tokens"],
    *,
    samples: int,
    generator: torch.Generator,
) -> Iterator[Float[Tensor, "some _"]]:
    """Σ_{i<j} F_ij M_{π(i)π(j)} for `samples` random shuffles π that leave every label in place, one column for each F, in batches.

    Source: the statistic of Mantel 1967, Cancer Research 27(2):209.
    """
    dtype = torch.float64 if len(moving) <= FLOAT64_TOKENS else torch.float32
    fixed, moving = fixed.to(dtype), moving.to(dtype)
    levels = labels.cpu().unique(return_inverse=True, return_counts=True)
    if len(moving) > PICKED and (levels[2] > 1).sum() <= CIRCLES:
        yield from _shifted(fixed, moving, levels[1], samples, generator)
        return
    for size in growing(samples):
        yield pair_products(fixed, moving, shuffles(labels, size, generator).to(moving.device))


def shuffles(labels: Int[Tensor, " tokens"], samples: int, generator: torch.Generator) -> Int[Tensor, "samples tokens"]:
    """Uniformly random orders in which a token's place is taken by one of equal label."""
    ranks = labels.cpu().unique(return_inverse=True)[1]
    keys = (
        ranks + torch.rand(samples, len(ranks), dtype=torch.float64, generator=generator, device=generator.device).cpu()
    )
    orders = torch.empty(samples, len(ranks), dtype=torch.long)
    orders[:, ranks.argsort(stable=True)] = keys.argsort(1)
    return orders


def pair_products(
    fixed: Float[Tensor, "_ tokens tokens"],
    moving: Float[Tensor, "tokens tokens"],
    orders: Int[Tensor, "samples tokens"],
) -> Float[Tensor, "samples _"]:
    """Σ_{i<j} F_ij M_{π(i)π(j)} of symmetric matrices for each order π and each F, in float64 of products in their type.

    Only the blocks on and above the diagonal are visited: tokens²/2 picks for each order.
    Source: the statistic of Mantel 1967, Cancer Research 27(2):209.
    """
    count, starts = len(moving), range(0, len(moving), BLOCK)
    upper = [fixed[:, at : at + BLOCK, at:].triu(1).flatten(1) for at in starts]

    def product(order: Tensor) -> Tensor:
        total = torch.zeros(len(fixed), dtype=torch.float64, device=fixed.device)
        for at, weights in zip(starts, upper, strict=True):
            total += weights @ moving.index_select(0, order[at : at + BLOCK]).index_select(1, order[at:]).view(-1)
        return total

    def products(some: Tensor) -> Tensor:
        if count > BLOCK:
            return torch.stack([product(order) for order in some])
        picked = moving.take(some[:, :, None] * count + some[:, None, :])  # all pairs of a few orders at once
        return (picked.flatten(1) @ upper[0].T).double()

    with one_thread_each(workers(fixed.device)) as pool:
        return torch.cat(list(pool.map(products, orders.split(TOGETHER))))


def shift_products(
    fixed: Float[Tensor, "_ tokens tokens"],
    moving: Float[Tensor, "tokens tokens"],
    circles: list[tuple[Tensor, Tensor]],
    shifts: Int[Tensor, "samples circles"],
) -> Float[Tensor, "samples _"]:
    """Σ_{i≠j} F_ij M_{π(i)π(j)} for the π that take a(i) to b(i + shift) on each circle (a, b); the diagonals of F are zero."""
    total = moving.new_zeros(len(shifts), len(fixed))
    for one, other in combinations_with_replacement(range(len(circles)), 2):
        (a, b), (c, d) = circles[one], circles[other]
        still = fixed[:, a[:, None], c]
        found = torch.fft.rfft2(still).conj_physical_().mul_(torch.fft.rfft2(moving[b[:, None], d]))
        table = torch.fft.irfft2(found, s=still.shape[1:])
        total += (1 if one == other else 2) * table[:, shifts[:, one], shifts[:, other]].T
    return total


def growing(total: int, first: int = 64) -> Iterator[int]:
    """Sizes of batches that double until they sum to `total`."""
    while total > 0:
        yield min(first, total)
        total, first = total - first, 2 * first


def _shifted(
    fixed: Tensor, moving: Tensor, labels: Tensor, samples: int, generator: torch.Generator
) -> Iterator[Tensor]:
    """By shifts, as many times anew as the largest level makes necessary; tokens with a label of their own stay."""
    fixed = fixed.clone()
    fixed.diagonal(dim1=1, dim2=2).zero_()
    members = [(labels == label).nonzero()[:, 0] for label in labels.unique()]
    alone = [tokens for tokens in members if len(tokens) == 1]
    levels = [tokens for tokens in members if len(tokens) > 1]

    def drawn(tokens: Tensor) -> Tensor:
        return tokens[torch.randperm(len(tokens), generator=generator, device=generator.device).cpu()]

    first = [drawn(tokens) for tokens in levels]
    rounds = -(-(samples + 1) // max(map(len, levels)))
    for number in range(rounds):
        second = first if number == 0 else [drawn(tokens) for tokens in levels]
        size = (samples + 1) * (number + 1) // rounds - (samples + 1) * number // rounds
        shifts = torch.stack([_shifts(len(tokens), size, generator) for tokens in levels], 1)
        if number == 0:
            shifts = shifts[1:] - shifts[0]  # relative to the observed order
        circles = list(zip(first, second, strict=True))
        if alone:
            circles.append((torch.cat(alone), torch.cat(alone)))
            shifts = torch.cat([shifts, torch.zeros(len(shifts), 1, dtype=torch.long)], 1)
        lengths = torch.tensor([len(a) for a, _ in circles])
        yield shift_products(fixed, moving, circles, shifts % lengths).double() / 2


def _shifts(length: int, samples: int, generator: torch.Generator) -> Int[Tensor, " samples"]:
    """Every shift as often as any other, in random order."""
    rounds = -(-samples // length)
    drawn = [torch.randperm(length, generator=generator, device=generator.device).cpu() for _ in range(rounds)]
    return torch.cat(drawn)[:samples]
