"""Representational similarity analysis: do two spaces agree on which tokens are alike?

Each space is turned into the dissimilarities d_ij = 1 - cos(x_i, x_j) of its tokens, one number for each pair i < j, and the two lists
of numbers are correlated. (With cosine similarities instead of dissimilarities both signs flip and the correlation is the same.)

Convention: raw rows, as the papers have it; nothing is subtracted before the angles are taken. Centring is not offered as an option
because it is not needed for precision here: dissimilarities are never formed as 1 minus a cosine, but from the offsets r_i = u_i - mean
of the unit rows u, for which

    d_ij = 1/2 ||r_i - r_j||^2 = a_i + a_j - r_i . r_j,    a_i = 1/2 ||r_i||^2,

so that rows which share a huge common component keep all their digits. Angles about the centroid are a different question; who asks it
passes rows minus their mean.

What cannot be known is refused: a zero row has no direction; rows that differ by no more than their storage type's rounding have no
geometry; a space in which all pairs are equally far apart cannot be correlated with anything. Pass rows in the type they are stored in
(bfloat16 as bfloat16): the arithmetic is float64 throughout.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

Rows = Float[Tensor, "tokens _"]
Statistic = Callable[[Tensor, Tensor], float]

TIE = 2.0**-44  # dissimilarities closer than this share of the largest differ by rounding only
CONSTANT = 1e-12  # a sum of squares below this share of its terms is rounding only


class MantelResult(NamedTuple):
    observed: float
    p_value: float
    null_mean: float
    null_std: float
    permutations: int


def pearson_rsa(x: Rows, y: Rows) -> float:
    """Pearson correlation of the two spaces' dissimilarities over all pairs i < j, exact, in O(tokens dim_x dim_y).

    The sums over pairs have a closed form in the offsets (see `_comoment`); no pair is ever formed.

    Raises: ValueError for fewer than 3 tokens, unequal counts, non-finite or zero rows, rows that are one point at their storage
        precision, or a space whose pairs are all equally dissimilar.
    Source: Kriegeskorte, Mur & Bandettini 2008, doi 10.3389/neuro.06.004.2008; the closed form is ours.
    """
    r, s = _offsets(x, y)
    n = len(r)
    pairs = n * (n - 1)
    return _comoment(r, s, pairs) / (_own_comoment(r, pairs, "x") * _own_comoment(s, pairs, "y")) ** 0.5


def spearman_rsa(x: Rows, y: Rows) -> float:
    """Spearman correlation of the two spaces' dissimilarities: Pearson correlation of their midranks (ties share their mean rank).

    Raises: ValueError as `pearson_rsa`.
    Source: Kriegeskorte, Mur & Bandettini 2008, doi 10.3389/neuro.06.004.2008.
    """
    ranks = [_centred_ranks(offsets, name) for offsets, name in zip(_offsets(x, y), "xy", strict=True)]
    return (ranks[0] @ ranks[1] / (ranks[0].norm() * ranks[1].norm())).item()


def rho_a(x: Rows, y: Rows) -> float:
    """12 sum (R - mean)(S - mean) / (P^3 - P) over the midranks R, S of the P pairs: Spearman's value expected if ties were broken at
    random. Below |Spearman| where there are ties; the fair number when the reference is nearly all ties (prefix depth, categories).

    Raises: ValueError as `pearson_rsa`.
    Source: Schuett et al. 2023, doi 10.7554/eLife.82566, appendix on rho-a.
    """
    ranks = [_centred_ranks(offsets, name) for offsets, name in zip(_offsets(x, y), "xy", strict=True)]
    pairs = len(ranks[0])
    return (12 * (ranks[0] @ ranks[1]) / (pairs**3 - pairs)).item()


def mantel_test(
    x: Rows,
    y: Rows,
    *,
    statistic: Statistic = pearson_rsa,
    permutations: int = 999,
    generator: torch.Generator,
    within: Int[Tensor, " tokens"] | None = None,
) -> MantelResult:
    """Is the agreement larger than when y's tokens are shuffled? One-sided p = (1 + #{null >= observed}) / (permutations + 1).

    A permutation moves whole tokens (rows and columns of the dissimilarity matrix together). `within` holds a label for each token and
    restricts shuffling to tokens of equal label: with levels of a semantic ID it asks for agreement beyond "same level".
    `statistic` is any function of two row matrices; `pearson_rsa`, `spearman_rsa` and `rho_a` are prepared once and then cost one
    product for each permutation. With fewer than 7 tokens there are too few distinct permutations for a small p.

    Raises: ValueError for no permutations, labels of the wrong length or under which nothing can move, or as the statistic does.
    Source: Mantel 1967, Cancer Research 27(2):209; the p-value of Phipson & Smyth 2010, doi 10.2202/1544-6115.1585.
    """
    if permutations < 1:
        raise ValueError("a permutation test needs at least one permutation")
    labels = torch.zeros(len(y), dtype=torch.long) if within is None else within.cpu()
    if len(labels) != len(y):
        raise ValueError(f"`within` has {len(labels)} labels for {len(y)} tokens: give one for each token")
    if len(labels.unique()) == len(labels):
        raise ValueError("every token has a label of its own in `within`: there is nothing to permute")
    observed = statistic(x, y)
    shuffled = _PERMUTED[statistic](x, y) if statistic in _PERMUTED else lambda order: statistic(x, y[order])
    null = torch.tensor(
        [shuffled(_permutation(labels, generator).to(y.device)) for _ in range(permutations)], dtype=torch.float64
    )
    reached = int(
        (null >= observed - 1e-12 * max(1.0, abs(observed))).sum()
    )  # the identity must count, rounding or not
    spread = null.std(correction=0).item()
    return MantelResult(observed, (1 + reached) / (1 + permutations), null.mean().item(), spread, permutations)


def rsa_interval(
    x: Rows,
    y: Rows,
    *,
    statistic: Statistic = pearson_rsa,
    samples: int = 1000,
    confidence: float = 0.95,
    generator: torch.Generator,
) -> tuple[float, float]:
    """Percentile bootstrap interval over tokens: tokens are redrawn with replacement, and a token is never paired with its own copy.

    Tokens are the units, since pairs that share a token are not independent. A token drawn w times enters with weight w, so the pair
    (i, j) weighs w_i w_j; copies of one token (whose dissimilarity 0 is no evidence) weigh nothing. Rank statistics are ranked anew in
    every sample.

    Raises: ValueError for a statistic other than `pearson_rsa`, `spearman_rsa`, `rho_a`, for fewer than two samples, a confidence
        outside (0, 1), or as the statistic does.
    Source: Efron & Tibshirani 1993, section 13.3; dropping self-pairs as Nili et al. 2014, doi 10.1371/journal.pcbi.1003553.
    """
    if statistic not in _REWEIGHTED:
        raise ValueError(
            "only pearson_rsa, spearman_rsa and rho_a can be resampled without pairing a token with its copy"
        )
    if samples < 2 or not 0 < confidence < 1:
        raise ValueError(
            f"samples is {samples}, confidence {confidence}: need at least 2 samples and 0 < confidence < 1"
        )
    n = len(x)
    reweighted = _REWEIGHTED[statistic](x, y)
    draws = torch.randint(n, (samples, n), generator=generator, device=generator.device)
    weights = torch.stack([torch.bincount(draw, minlength=n) for draw in draws]).to(x.device).double()
    values = torch.tensor([reweighted(weight) for weight in weights], dtype=torch.float64)
    tail = (1 - confidence) / 2
    low, high = values.quantile(torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return low, high


def _permutation(labels: Int[Tensor, " tokens"], generator: torch.Generator) -> Int[Tensor, " tokens"]:
    """A uniformly random order of the tokens in which every token's place is taken by one of equal label."""
    shuffled = torch.randperm(len(labels), generator=generator, device=generator.device).cpu()
    order = torch.empty_like(shuffled)
    order[labels.argsort(stable=True)] = shuffled[labels[shuffled].argsort(stable=True)]
    return order


def _offsets(x: Rows, y: Rows) -> tuple[Float[Tensor, "tokens _"], Float[Tensor, "tokens _"]]:
    if len(x) != len(y):
        raise ValueError(
            f"x has {len(x)} tokens and y has {len(y)}: both spaces must hold the same tokens in the same order"
        )
    if len(x) < 3:
        raise ValueError(f"{len(x)} tokens give too few pairs to correlate: at least 3 are needed")
    return _unit_offsets(x, "x"), _unit_offsets(y, "y")


def _unit_offsets(rows: Rows, name: str) -> Float[Tensor, "tokens _"]:
    """Unit rows minus their mean, in float64; refused where storage rounding alone could have made what is left.

    Rounding moves a coordinate by at most u |x_ij| (u: half the gap between 1 and the next number), hence a unit row by at most u.
    """
    norms = torch.linalg.vector_norm(rows.double(), dim=1, keepdim=True)
    if not torch.isfinite(norms).all():
        raise ValueError(f"row {int((~norms.isfinite()).nonzero()[0, 0])} of {name} is not finite")
    if not norms.all():
        raise ValueError(
            f"row {int((norms == 0).nonzero()[0, 0])} of {name} is all zeros: its cosine is undefined; leave it out"
        )
    unit = rows.double() / norms
    offsets = unit - unit[0]
    offsets -= offsets.mean(0)
    spread = offsets.square().sum(1).mean().sqrt().item()
    rounding = max(torch.finfo(rows.dtype).eps / 2, 8 * torch.finfo(torch.float64).eps)
    if spread <= rounding:
        raise ValueError(
            f"the rows of {name} are one point at {str(rows.dtype).removeprefix('torch.')} precision: their directions spread "
            f"{spread:.1e}, and rounding alone can make {rounding:.1e}; their similarities carry no information"
        )
    return offsets


def _comoment(r: Tensor, s: Tensor, pairs: int) -> float:
    """Sum over ordered pairs of (d_ij - mean d)(e_ij - mean e), for dissimilarities d, e of the centred offsets r, s.

    With a_i = 1/2 |r_i|^2, b_i = 1/2 |s_i|^2 and n rows, repeated rows allowed (d = e = 0 between copies, so they drop out of all sums
    and only `pairs`, the number of ordered pairs of different tokens, has to know):
        2n sum (a_i - mean a)(b_i - mean b) + ||r' s||_F^2 + 4 n^2 mean(a) mean(b) (1 - n^2 / pairs).
    """
    n = len(r)
    a, b = r.square().sum(1) / 2, s.square().sum(1) / 2
    mean_a, mean_b = a.mean(), b.mean()
    cross = (r.T @ s).square().sum()
    return (2 * n * ((a - mean_a) @ (b - mean_b)) + cross + 4 * n * n * mean_a * mean_b * (1 - n * n / pairs)).item()


def _own_comoment(r: Tensor, pairs: int, name: str) -> float:
    own = _comoment(r, r, pairs)
    if own <= CONSTANT * r.square().sum().item() ** 2 / len(r):
        raise ValueError(f"all pairs of {name} are equally dissimilar: a correlation with them is undefined")
    return own


def _pairs_of(count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    i, j = torch.triu_indices(count, count, 1, device=device)
    return i, j


def _dissimilarities(offsets: Tensor) -> Float[Tensor, "tokens tokens"]:
    a = offsets.square().sum(1) / 2
    return a[:, None] + a[None, :] - offsets @ offsets.T


def _sorted_ties(offsets: Tensor, name: str) -> tuple[Int[Tensor, " pairs"], Int[Tensor, " pairs"]]:
    """Order of the pairs' dissimilarities, and for each place in that order the number of its group of ties (0, 1, …)."""
    values, order = _dissimilarities(offsets)[_pairs_of(len(offsets), offsets.device)].sort()
    group = torch.zeros_like(order)
    group[1:] = (values.diff() > TIE * values[-1]).cumsum(0)
    if group[-1] == 0:
        raise ValueError(f"all pairs of {name} are equally dissimilar: a correlation with them is undefined")
    return order, group


def _centred_ranks(offsets: Tensor, name: str) -> Float[Tensor, " pairs"]:
    order, group = _sorted_ties(offsets, name)
    counts = torch.bincount(group).double()
    midranks = counts.cumsum(0) - (counts - 1) / 2
    ranks = torch.empty(len(order), dtype=torch.float64, device=order.device)
    ranks[order] = midranks[group] - (len(order) + 1) / 2
    return ranks


def _pearson_permuted(x: Rows, y: Rows) -> Callable[[Tensor], float]:
    r, s = _offsets(x, y)
    pairs = len(r) * (len(r) - 1)
    scale = (_own_comoment(r, pairs, "x") * _own_comoment(s, pairs, "y")) ** 0.5
    return lambda order: _comoment(r, s[order], pairs) / scale


def _ranks_permuted(x: Rows, y: Rows, *, broken_ties: bool) -> Callable[[Tensor], float]:
    r, s = _offsets(x, y)
    first, second = _centred_ranks(r, "x"), _centred_ranks(s, "y")
    i, j = _pairs_of(len(r), r.device)
    matrix = torch.zeros(len(r), len(r), dtype=torch.float64, device=r.device)
    matrix[i, j] = second
    matrix += matrix.T.clone()
    scale = (len(first) ** 3 - len(first)) / 12 if broken_ties else (first.norm() * second.norm()).item()
    return lambda order: (first @ matrix[order[i], order[j]]).item() / scale


def _pearson_reweighted(x: Rows, y: Rows) -> Callable[[Tensor], float]:
    r, s = _offsets(x, y)

    def value(weights: Tensor) -> float:
        rows = weights.long().nonzero().squeeze(1).repeat_interleave(weights[weights > 0].long())
        pairs = int(weights.sum()) ** 2 - int(weights.square().sum())
        p, q = r[rows] - r[rows].mean(0), s[rows] - s[rows].mean(0)
        return _comoment(p, q, pairs) / (_own_comoment(p, pairs, "x") * _own_comoment(q, pairs, "y")) ** 0.5

    return value


def _ranks_reweighted(x: Rows, y: Rows, *, broken_ties: bool) -> Callable[[Tensor], float]:
    """Weighted midranks without sorting again: in the order of the full sample, weights are only accumulated."""
    r, s = _offsets(x, y)
    i, j = _pairs_of(len(r), r.device)
    orders = [_sorted_ties(r, "x"), _sorted_ties(s, "y")]

    def value(weights: Tensor) -> float:
        weight = weights[i] * weights[j]
        total = weight.sum()
        ranks = []
        for order, group in orders:
            counts = torch.bincount(group, weights=weight[order])
            midranks = counts.cumsum(0) - (counts - 1) / 2 - (total + 1) / 2
            ranks.append(torch.empty_like(weight).index_copy_(0, order, midranks[group]))
        first, second = ranks
        product = (weight * first) @ second
        if broken_ties:
            return (12 * product / (total**3 - total)).item()
        return (product / ((weight * first) @ first * ((weight * second) @ second)).sqrt()).item()

    return value


_PERMUTED = {
    pearson_rsa: _pearson_permuted,
    spearman_rsa: lambda x, y: _ranks_permuted(x, y, broken_ties=False),
    rho_a: lambda x, y: _ranks_permuted(x, y, broken_ties=True),
}
_REWEIGHTED = {
    pearson_rsa: _pearson_reweighted,
    spearman_rsa: lambda x, y: _ranks_reweighted(x, y, broken_ties=False),
    rho_a: lambda x, y: _ranks_reweighted(x, y, broken_ties=True),
}
