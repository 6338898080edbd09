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

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from . import spearman
from .alignment import Rows, Space, cross_square, paired, square
from .permute import FLOAT64_TOKENS as FLOAT64_SHUFFLED
from .permute import growing, shuffled_products, shuffles
from .reweight import FIRST_ORDER_TOKENS
from .spearman import Ranked, RankSums, rank_sums, ranks_reweighted, ranks_shuffled
from .tiles import one_thread_each, workers

Statistic = Callable[..., float]
Shuffled = tuple[float, Iterator[Tensor]]  # the statistic, and its values for shuffled tokens, in batches

CONSTANT = 1e-12  # a sum of squares below this share of its terms is rounding only
JACKKNIFE_TOKENS = 512  # up to here tokens are also left out one by one, which sees more of a small sample's spread
BATCH = 1 << 23  # numbers held at a time while tokens are permuted or redrawn
PAIRED_TOKENS = (
    4096  # up to here tokens × tokens numbers are held; more tokens are permuted by products of float32 rows
)


class MantelResult(NamedTuple):
    observed: float
    p_value: float
    null_mean: float
    null_std: float
    permutations: int


def pearson_rsa(x: Rows, y: Rows) -> float:
    """Pearson correlation of the two spaces' dissimilarities over all pairs i < j, exact, in O(tokens dim_x dim_y).

    The sums over pairs have a closed form in the offsets (see `_Comoment`); no pair is ever formed.

    Raises: ValueError for fewer than 3 tokens, unequal counts, rows that are zero, not finite or one point at their storage precision,
        or a space whose pairs are all equally dissimilar.
    Source: Kriegeskorte, Mur & Bandettini 2008, doi 10.3389/neuro.06.004.2008; the closed form is ours.
    """
    return _Pearson(x, y).observed


def spearman_rsa(x: Rows, y: Rows, *, exact: bool = False) -> float:
    """Spearman correlation of the two spaces' dissimilarities: Pearson correlation of their midranks (ties share their mean rank).

    Up to four million pairs are sorted in float64. More are streamed, in memory that stays at a copy of the rows: ranks are then
    resolved to bins of 1/131,072 of the range, or of the pairs where ties or clusters would crowd such bins, and the result differs
    from that of exact midranks by about 1e-8 at 10 million pairs and 3e-9 at 300 million. Values that many pairs share have bins of
    their own, so that ties stay ties. `exact` sorts any number of pairs (40 bytes each).

    Raises: ValueError as `pearson_rsa`, or if the typical row differs from the others by rounding only.
    Source: Kriegeskorte, Mur & Bandettini 2008, doi 10.3389/neuro.06.004.2008.
    """
    sums = _rank_sums(x, y, exact=exact)
    return sums.product / (sums.first * sums.second) ** 0.5


def rho_a(x: Rows, y: Rows, *, exact: bool = False) -> float:
    """12 sum (R - mean)(S - mean) / (P^3 - P) over the midranks R, S of the P pairs: what Spearman's correlation is on average if ties
    are broken at random. Nearer 0 than it where there are ties; the fair number when a reference is nearly all ties (categories).

    Raises: ValueError as `spearman_rsa`.
    Source: Schuett et al. 2023, doi 10.7554/eLife.82566; the convention of rsatoolbox 0.3.2, `compare(method="rho-a")`.
    """
    sums = _rank_sums(x, y, exact=exact)
    return 12 * sums.product / (sums.pairs**3 - sums.pairs)


def mantel_test(
    x: Rows,
    y: Rows,
    *,
    statistic: Statistic = pearson_rsa,
    permutations: int = 999,
    enough: int | None = None,
    generator: torch.Generator,
    within: Int[Tensor, " _tokens"] | None = None,
) -> MantelResult:
    """Is the agreement larger than when y's tokens are shuffled? One-sided p = (1 + #{null >= observed}) / (permutations + 1).

    A permutation moves whole tokens (rows and columns of the dissimilarity matrix together). `within` holds a label for each token and
    restricts shuffling to tokens of equal label: with levels of a semantic ID it asks for agreement beyond "same level".
    With `enough`, drawing stops at the draw l that is the so-manieth to reach the observed value, and p = enough / l: as uniform under
    the null as the fixed number, at a fraction of the draws where nothing is there. The result says how many were drawn.
    `statistic` is any function of two row matrices; for `pearson_rsa`, `spearman_rsa` and `rho_a` pairs are formed once, and more than
    64 tokens are shuffled by shifts (see `permute`), whose cost is that of a Fourier transform of the pairs for as many permutations
    as there are tokens. With fewer than 7 tokens there are too few distinct permutations for a small p.

    Raises: ValueError for no permutations, labels of the wrong length or under which nothing can move, or as the statistic does.
    Source: Mantel 1967, Cancer Research 27(2):209; the p-value of Phipson & Smyth 2010, doi 10.2202/1544-6115.1585, and for `enough` of
        Besag & Clifford 1991, doi 10.1093/biomet/78.2.301.
    """
    if permutations < 1 or (enough is not None and enough < 1):
        raise ValueError("a permutation test needs at least one permutation")
    labels = torch.zeros(len(y), dtype=torch.long) if within is None else within.cpu()
    if len(labels) != len(y):
        raise ValueError(f"`within` has {len(labels)} labels for {len(y)} tokens: give one for each token")
    if len(labels.unique()) == len(labels):
        raise ValueError("every token has a label of its own in `within`: there is nothing to permute")
    first, second = (rows if isinstance(rows, Space) else Space(rows, name) for rows, name in ((x, "x"), (y, "y")))
    observed, batches = _SHUFFLED.get(statistic, partial(_any_shuffled, statistic))(
        first, second, labels, samples=permutations, generator=generator
    )
    # Rounding must not hide the identity, nor an order that changes nothing.
    bar = observed - (1e-12 if len(y) <= FLOAT64_SHUFFLED else 1e-6) * max(1.0, abs(observed))
    null = torch.empty(0, dtype=torch.float64)
    for batch in batches:
        null = torch.cat([null, batch.double().cpu()])
        reached = (null >= bar).cumsum(0)
        if enough is not None and reached[-1] >= enough:
            null = null[: int((reached < enough).sum()) + 1]
            break
    count, drawn = int((null >= bar).sum()), len(null)
    p_value = count / drawn if count == enough else (1 + count) / (1 + drawn)
    return MantelResult(observed, p_value, null.mean().item(), null.std(correction=0).item(), drawn)


def rsa_interval(
    x: Rows,
    y: Rows,
    *,
    statistic: Statistic = pearson_rsa,
    samples: int = 1000,
    confidence: float = 0.95,
    generator: torch.Generator,
) -> tuple[float, float]:
    """Bootstrap interval over tokens: tokens are redrawn with replacement, and a token is never paired with its own copy.

    Tokens are the units, since pairs that share a token are not independent. A token drawn w times enters with weight w, so the pair
    (i, j) weighs w_i w_j; copies of one token (whose dissimilarity 0 is no evidence) weigh nothing.

    The variance of such redraws is V1 + 3 V2, where that of the statistic is V1 + V2: V1 stems from tokens, V2 = sigma^2 / pairs from
    what pairs have of their own (their influence minus both tokens' mean influence), which is redrawn three times over. For unrelated
    spaces V1 = 0, and plain percentiles would be sqrt 3 too wide. So the percentiles' distances from the observed value are rescaled to
    the variance V1 + V2: that of the redraws less 2 V2, or, up to `JACKKNIFE_TOKENS` tokens, that of the jackknife (V1 + 2 V2) less V2.
    Measured coverage of nominal 95 % intervals: see reports/LOG.md; `reports/benchmarks/rsa.py --coverage`.

    Raises: ValueError for a statistic other than `pearson_rsa`, `spearman_rsa`, `rho_a`, for fewer than two samples, a confidence
        outside (0, 1), fewer than 4 tokens, or as the statistic does.
    Source: Efron & Tibshirani 1993, section 13.3; self-pairs: Nili et al. 2014, doi 10.1371/journal.pcbi.1003553; the variance by
        Hoeffding 1948, doi 10.1214/aoms/1177730196 (U-statistics of degree 2), as corrected for in Schuett et al. 2023,
        doi 10.7554/eLife.82566.
    """
    if statistic not in _REWEIGHTED:
        raise ValueError(
            "only pearson_rsa, spearman_rsa and rho_a can be resampled without pairing a token with its copy"
        )
    if samples < 2 or not 0 < confidence < 1:
        raise ValueError(
            f"samples is {samples}, confidence {confidence}: need at least 2 samples and 0 < confidence < 1"
        )
    first, second = paired(x, y, fewest=4)
    n, device = len(first), first.rows.device
    draws = torch.randint(n, (samples, n), generator=generator, device=generator.device).to(device)
    weights = torch.zeros(samples, n, dtype=torch.float64, device=device)
    weights.scatter_add_(1, draws, torch.ones_like(weights))
    left_out = 1 - torch.eye(n if n <= JACKKNIFE_TOKENS else 0, n, dtype=torch.float64, device=device)
    values, pair_variance = _REWEIGHTED[statistic](first, second, torch.cat([weights, left_out]))
    values, without = values.split([samples, len(left_out)])
    if not torch.isfinite(values).all():
        raise ValueError(
            f"{n} tokens, redrawn, leave samples without a correlation: too few different tokens for an interval"
        )
    tail = (1 - confidence) / 2
    percentiles = values.cpu().quantile(torch.tensor([tail, 1 - tail], dtype=torch.float64))
    variance = values.var().item()
    if len(without):
        corrected = (n - 1) * without.var(correction=0).item() - pair_variance
    else:
        corrected = variance - 2 * pair_variance
    observed = statistic(first, second)
    rescaled = (max(corrected, pair_variance) / variance) ** 0.5 * (percentiles - observed)
    low, high = (observed + rescaled).clamp(-1, 1).tolist()
    return low, high


def _rank_sums(x: Rows, y: Rows, *, exact: bool) -> RankSums:
    first, second = paired(x, y, fewest=3)
    pairs = len(first) * (len(first) - 1) // 2
    if pairs > spearman.EXACT_PAIRS:
        return rank_sums(first.comparable, second.comparable, exact=exact, names=(first.name, second.name))
    a, b = (space.ranks * pairs for space in _ranked(first, second))
    return RankSums((a @ b).item(), (a @ a).item(), (b @ b).item(), pairs)


def _ranked(first: Space, second: Space) -> tuple[Ranked, Ranked]:
    """Both at once, unless sorting their pairs takes gigabytes."""
    together = 2 if len(first) ** 2 / 2 <= spearman.EXACT_PAIRS else 1
    with one_thread_each(min(together, workers(first.rows.device))) as pool:
        ranked = list(pool.map(lambda space: space.ranked, (first, second)))
    return ranked[0], ranked[1]


class _Pearson:
    """The Pearson correlation of the dissimilarities of x and y, and of x and permuted y.

    For offsets r, s (n rows, columns centred), a_i = 1/2 |r_i|^2 and b_i = 1/2 |s_i|^2, the sum over ordered pairs i != j of
    (d_ij - mean d)(e_ij - mean e) is
        2n sum (a_i - mean a)(b_i - mean b) + ||r' s||_F^2 - 4 n^2 / (n - 1) mean a mean b,
    in which a permutation of y touches the first two terms only.
    """

    def __init__(self, x: Rows, y: Rows):
        spaces = paired(x, y, fewest=3)
        self.r, self.s = (space.offsets for space in spaces)
        n, own = len(self.r), []
        for space in spaces:
            halves = space.halves
            terms = 2 * n * (halves - halves.mean()).square().sum().item() + square(space.gram)
            own.append(terms - 4 * n * n / (n - 1) * halves.mean().item() ** 2)
            if own[-1] <= CONSTANT * terms:
                raise ValueError(
                    f"all pairs of {space.name} are equally dissimilar: a correlation with them is undefined"
                )
        self.own, self.scale = own, (own[0] * own[1]) ** 0.5
        means = [space.halves.mean() for space in spaces]
        self.constant = 4 * n * n / (n - 1) * (means[0] * means[1]).item()
        self.a, self.b = (space.halves - mean for space, mean in zip(spaces, means, strict=True))
        self.spaces, self.means = spaces, [2 * n / (n - 1) * mean for mean in means]  # means of d_ij over the pairs

    @property
    def observed(self) -> float:
        moved = 2 * len(self.a) * (self.a @ self.b).item() + cross_square(self.r, self.s)
        return (moved - self.constant) / self.scale

    def shuffled(
        self, labels: Int[Tensor, " tokens"], *, samples: int, generator: torch.Generator
    ) -> Iterator[Float[Tensor, " some"]]:
        """Values where y's tokens are shuffled within labels."""
        if len(self.a) > PAIRED_TOKENS:
            for size in growing(samples):
                yield self._multiplied(shuffles(labels, size, generator).to(self.r.device))
            return
        fixed, moving = self.dissimilarities
        for products in shuffled_products(fixed[None], moving, labels, samples=samples, generator=generator):
            yield 2 * products[:, 0] / self.scale

    @property
    def dissimilarities(self) -> tuple[Float[Tensor, "tokens tokens"], Float[Tensor, "tokens tokens"]]:
        """Of both spaces, less their means over the pairs: rounding is then relative to their spread."""
        first, second = (space.dissimilarities - mean for space, mean in zip(self.spaces, self.means, strict=True))
        return first, second

    def _multiplied(self, orders: Int[Tensor, "samples tokens"]) -> Float[Tensor, " samples"]:
        r, s, a, b = self.r, self.s, self.a, self.b
        if r.shape[1] < s.shape[1]:  # permuting the narrower space the other way round is cheaper
            r, s, a, b, orders = s, r, b, a, orders.argsort(1)
        r, s = r.float(), s.float()

        def moved(batch: Tensor) -> Tensor:
            shuffled = s.index_select(0, batch.T.reshape(-1)).view(len(s), -1)  # tokens × (samples · dim)
            cross = (r.T @ shuffled).view(r.shape[1], len(batch), -1).square().sum((0, 2))
            return 2 * len(a) * (b[batch] @ a) + cross.double()

        batches = orders.split(max(1, BATCH // (s.shape[1] * max(r.shape))))
        with one_thread_each(workers(r.device)) as pool:
            found = list(pool.map(moved, batches))
        return (torch.cat(found) - self.constant) / self.scale


def _pearson_shuffled(x: Space, y: Space, labels: Tensor, **drawn) -> Shuffled:
    pearson = _Pearson(x, y)
    return pearson.observed, pearson.shuffled(labels, **drawn)


def _ranks_shuffled(x: Space, y: Space, labels: Tensor, *, broken_ties: bool, **drawn) -> Shuffled:
    return ranks_shuffled(*_ranked(*paired(x, y, fewest=3)), labels, broken_ties=broken_ties, **drawn)


def _any_shuffled(
    statistic: Statistic, x: Space, y: Space, labels: Tensor, *, samples: int, generator: torch.Generator
) -> Shuffled:
    orders = (shuffles(labels, size, generator).to(y.rows.device) for size in growing(samples))
    return statistic(x.rows, y.rows), (
        torch.tensor([statistic(x.rows, y.rows[order]) for order in batch]) for batch in orders
    )


def _pearson_reweighted(x: Rows, y: Rows, weights: Float[Tensor, "samples tokens"]) -> tuple[Tensor, float]:
    """Weighted correlations for all samples at once: sums over pairs i < j are quadratic forms w' M w, taken tile by tile.

    Of more than `FIRST_ORDER_TOKENS` tokens to first order, value + weighted mean influence, in float32.
    """
    pearson = _Pearson(x, y)
    n, observed = len(x), pearson.observed
    linear = n > FIRST_ORDER_TOKENS
    dtype = torch.float32 if linear else torch.float64
    spaces = []  # offsets and half squares for which dissimilarities have mean 0 and variance 1
    for offsets, own in zip((pearson.r, pearson.s), pearson.own, strict=True):
        scaled = offsets / (own / (n * (n - 1))) ** 0.25
        half = torch.linalg.vector_norm(scaled, dim=1).square() / 2
        spaces.append((scaled.to(dtype), (half - n / (n - 1) * half.mean()).to(dtype)))
    step = max(1, min(512, BATCH // 4 // len(weights)))
    wide = max(step, BATCH // 4 // max(step, len(weights)))
    weight = weights.to(dtype)

    def visited(i: int) -> tuple[Tensor, Tensor, float]:
        """Weighted sums, the pairs' influence summed by token, and its sum of squares, over pairs (i … i + step, later)."""
        sums = torch.zeros(1 if linear else 5, len(weights), dtype=torch.float64, device=weights.device)
        influence, squares, rows = sums.new_zeros(n), 0.0, slice(i, i + step)
        for j in range(i, n, wide):
            columns = slice(j, j + wide)
            d, e = (
                (half[rows, None] + half[columns] - offsets[rows] @ offsets[columns].T).triu_(1 + i - j)
                for offsets, half in spaces
            )
            de, dd, ee = d * e, d * d, e * e
            of_pairs = de - observed / 2 * (dd + ee)
            for at, form in enumerate([of_pairs] if linear else [d, e, de, dd, ee]):
                sums[at] += ((weight[:, rows] @ form) * weight[:, columns]).sum(1)
            influence[rows] += of_pairs.sum(1)
            influence[columns] += of_pairs.sum(0)
            squares += of_pairs.square().sum().item()
        return sums, influence, squares

    with one_thread_each(workers(weights.device)) as pool:
        parts = list(pool.map(visited, range(0, n, step)))
    pairs = (n * n - weights.square().sum(1)) / 2
    sums = torch.stack([part[0] for part in parts]).sum(0)
    if linear:
        values = observed + sums[0] / pairs
    else:
        d, e, de, dd, ee = sums
        values = (de - d * e / pairs) / ((dd - d * d / pairs) * (ee - e * e / pairs)).sqrt()
    influence = torch.stack([part[1] for part in parts]).sum(0)
    return values, _pair_variance(influence, sum(part[2] for part in parts))


def _pair_variance(influence: Float[Tensor, " tokens"], squares: float) -> float:
    """V2 of `rsa_interval`: residual mean square of the pairs' influences (mean 0) about token effects, over the number of pairs.

    `influence` holds each token's sum over its pairs, `squares` the sum of squares over pairs i < j.
    """
    n = len(influence)
    residual = squares - influence.square().sum().item() / (n - 2)
    return max(residual, 0.0) / (n * (n - 3) / 2) / (n * (n - 1) / 2)


def _ranks_reweighted(x: Rows, y: Rows, weights: Tensor, *, broken_ties: bool) -> tuple[Tensor, float]:
    values, influence = ranks_reweighted(*_ranked(*paired(x, y, fewest=3)), weights, broken_ties=broken_ties)
    return values, _pair_variance(influence.sum(1), influence.square().sum().item() / 2)


_SHUFFLED: dict[Statistic, Callable[..., Shuffled]] = {
    pearson_rsa: _pearson_shuffled,
    spearman_rsa: partial(_ranks_shuffled, broken_ties=False),
    rho_a: partial(_ranks_shuffled, broken_ties=True),
}
_REWEIGHTED: dict[Statistic, Callable[[Space, Space, Tensor], tuple[Tensor, float]]] = {
    pearson_rsa: _pearson_reweighted,
    spearman_rsa: partial(_ranks_reweighted, broken_ties=False),
    rho_a: partial(_ranks_reweighted, broken_ties=True),
}
