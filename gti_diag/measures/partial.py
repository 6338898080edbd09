"""RSA with nuisances taken out: about each level's own mean, and with how often tokens are used held constant.

    K_ij = cos(x_i - m_l(i), x_j - m_l(j)),    L_ij the same of y,    over pairs i < j;  m_l: mean of the tokens of level l

`centred`: the correlation of K and L, each minus its mean over the pairs of the same two levels. A direction that all tokens of a
level share says nothing of what single ones mean; in raw cosines it hides how they differ.

`counts held`: the same once K and L are regressed, over pairs, on log c_i + log c_j, |log c_i - log c_j| and log c_i log c_j, where c_i
is one more than the number of items that carry token i. Rows that are used more travel farther, and means of many items lie nearer the
centre: two spaces can agree on that and on nothing else. (The product is what a direction shared in proportion to log c leaves in
cosines; without it such spaces still agreed.)

Chance: tokens are shuffled within their level. The residuals of L move as whole rows and columns and are regressed again, so that what
counts explain stays where it was (Freedman & Lane); without counts that is Mantel's test. Levels set `apart` keep their tokens in
place and their own pairs do not count: what is left agrees only if there is structure beyond them.
Everything is held as tokens × tokens: for some thousand tokens at most.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .alignment import Rows, Space, paired
from .permute import shuffled_products
from .reweight import FIRST_ORDER_TOKENS, first_order

Square = Float[Tensor, "tokens tokens"]
TIED = 1e-6  # correlations closer than this come from arrangements that are the same but for rounding
NOTHING = 1e-10  # a square sum below this share of the whole is what regression leaves of rounding
JACKKNIFE_TOKENS = 512  # up to here tokens are also left out one by one, which sees more of a small sample's spread


class PermutationTest(NamedTuple):
    """One-sided p; and one over the share of shuffles that reach the best value seen (inf: one at most did).

    Two clusters of 4 tokens can be arranged in 35 ways only: one shuffle in 35 is a perfect match, and no match is any news.
    """

    p_value: float
    arrangements: float


@dataclass(frozen=True)
class Agreement:
    """Two similarity matrices of the same tokens: residuals with square sum 1, zero where a pair does not count."""

    first: Square
    second: Square
    counted: Square  # 1 for the pairs that count, else 0
    held: Float[Tensor, "covariates tokens tokens"]  # orthonormal, and orthogonal to the means over pairs of levels
    levels: Int[Tensor, " tokens"]
    apart: tuple[int, ...]

    @property
    def value(self) -> float:
        """The (partial) correlation."""
        return (self.first * self.second).sum().clamp(-1, 1).item()

    def permutation_test(
        self, permutations: int, *, enough: int | None = None, generator: torch.Generator
    ) -> PermutationTest:
        """p = (1 + #{null >= value}) / (permutations + 1) over shuffles of the tokens of `second` within levels.

        With `enough`, drawing stops at the draw l that is the so-manieth to reach the value, and p = enough / l.

        Raises: ValueError for no permutations.
        Source: Freedman & Lane 1983, doi 10.1080/07350015.1983.10509354, for matrices as in Legendre 2000,
            doi 10.1080/00949650008812035; the p-value of Phipson & Smyth 2010, doi 10.2202/1544-6115.1585, and for `enough` of
            Besag & Clifford 1991, doi 10.1093/biomet/78.2.301.
        """
        if permutations < 1 or (enough is not None and enough < 1):
            raise ValueError("a permutation test needs at least one permutation")
        null = torch.empty(0, dtype=torch.float64)
        fixed = torch.cat([self.first[None], self.held])
        for products in shuffled_products(
            fixed, self.second, self._labels(), samples=permutations, generator=generator
        ):
            null = torch.cat([null, _partial(products).cpu()])
            reached = (null >= self.value - TIED).cumsum(0)
            if enough is not None and reached[-1] >= enough:
                null = null[: int((reached < enough).sum()) + 1]
                break
        count, drawn = int((null >= self.value - TIED).sum()), len(null)
        best = int((null >= max(self.value, null.max().item()) - TIED).sum())
        p_value = count / drawn if count == enough else (1 + count) / (1 + drawn)
        return PermutationTest(p_value, drawn / best if best > 1 else torch.inf)

    def _labels(self) -> Int[Tensor, " tokens"]:
        """Tokens of one label may take each other's place: those of a level, and where that is apart each itself alone."""
        n, levels = len(self.levels), self.levels.cpu()
        apart = torch.isin(levels, torch.tensor(self.apart, dtype=levels.dtype))
        return torch.where(apart, n * levels + torch.arange(n), n * levels)

    def interval(self, samples: int, *, generator: torch.Generator, confidence: float = 0.95) -> tuple[float, float]:
        """Bootstrap interval over tokens, rescaled as in `rsa.rsa_interval`: no token is paired with its own copy.

        What is held is not fitted anew: residuals are orthogonal to it, which makes that a second-order matter.

        Raises: ValueError for fewer than two samples, or where a sample leaves no correlation (too few different tokens).
        Source: as `rsa.rsa_interval`.
        """
        if samples < 2:
            raise ValueError(f"samples is {samples}: an interval needs at least 2")
        n, device = len(self.first), self.first.device
        draws = torch.randint(n, (samples, n), generator=generator, device=generator.device).to(device)
        weights = torch.zeros(samples, n, dtype=torch.float64, device=device)
        weights.scatter_add_(1, draws, torch.ones_like(weights))
        left_out = 1 - torch.eye(n if n <= JACKKNIFE_TOKENS else 0, n, dtype=torch.float64, device=device)
        values, without = self._reweighted(torch.cat([weights, left_out])).split([samples, len(left_out)])
        if not bool(torch.isfinite(values).all()):
            raise ValueError(f"{n} tokens, redrawn, leave samples without a correlation: too few different tokens")
        variance, of_pairs = values.var().item(), self._pair_variance()
        wanted = (n - 1) * without.var(correction=0).item() - of_pairs if len(without) else variance - 2 * of_pairs
        tail = (1 - confidence) / 2
        percentiles = values.cpu().quantile(torch.tensor([tail, 1 - tail], dtype=torch.float64))
        factor = (max(wanted, of_pairs) / variance) ** 0.5 if variance > 0 else 0.0
        low, high = (self.value + factor * (percentiles - self.value)).clamp(-1, 1).tolist()
        return low, high

    def _reweighted(self, weights: Float[Tensor, "samples tokens"]) -> Float[Tensor, " samples"]:
        """The correlation where pair i, j weighs w_i w_j, for every row of token weights."""
        if len(self.first) > FIRST_ORDER_TOKENS and not self.apart:
            return first_order(self.value, self._influence(), weights)
        a, b = self.first, self.second
        forms = self.counted, a, b, a * b, a * a, b * b
        pairs, d, e, de, dd, ee = (((weights @ form) * weights).sum(1) for form in forms)
        return (de - d * e / pairs) / ((dd - d * d / pairs) * (ee - e * e / pairs)).sqrt()

    def _pair_variance(self) -> float:
        """V2 of `rsa.rsa_interval`: the variance that stems from what pairs have beyond the effects of their two tokens."""
        n, pairs, influence = len(self.first), self.counted.sum().item() / 2, self._influence()
        residual = influence.square().sum().item() / 2 - influence.sum(1).square().sum().item() / (n - 2)
        return max(residual, 0.0) / (n * (n - 3) / 2) / pairs

    def _influence(self) -> Square:
        """Of each pair on the correlation, with mean 0 over the pairs."""
        a, b = self.first, self.second
        return self.counted.sum() * (a * b - self.value / 2 * (a * a + b * b))


def _partial(products: Float[Tensor, "samples _"]) -> Float[Tensor, " samples"]:
    """The correlation from sums over pairs i < j with the first space's residuals and with what is held, regressed out anew."""
    own, *held = 2 * products.T
    return own / (1 - sum(product**2 for product in held)) ** 0.5


@dataclass(frozen=True)
class Cosines:
    """Cosines of the rows of two spaces about the mean of their level: what every choice of counts and levels starts from."""

    squares: tuple[Square, Square]
    names: tuple[str, str]
    levels: Int[Tensor, " tokens"]

    def agreement(self, *, counts: Tensor | None = None, apart: Sequence[int] = ()) -> Agreement:
        """As the function `agreement`, which see."""
        if counts is not None and len(counts) != len(self.levels):
            raise ValueError(f"{len(counts)} counts for {len(self.levels)} tokens: give one for each")
        pairs = _Pairs(self.levels, apart)
        held = _held(counts, pairs) if counts is not None else pairs.counted.new_zeros(0, *pairs.counted.shape)
        residuals = []
        for cosines, name in zip(self.squares, self.names, strict=True):
            left, share = _regressed(cosines, pairs, held)
            if share <= NOTHING:
                raise ValueError(
                    f"the pairs of {name} are all alike once means and counts are out: nothing is left to compare"
                )
            residuals.append(left)
        return Agreement(residuals[0], residuals[1], pairs.counted, held, self.levels, tuple(apart))


def cosines(x: Rows, y: Rows, *, levels: Int[Tensor, " _tokens"] | None = None) -> Cosines:
    """Of all pairs, about the mean of each of the `levels` (one, if None).

    Raises: ValueError as `agreement`, but for what concerns counts.
    """
    spaces = paired(x, y, fewest=4)
    n, device = len(x), spaces[0].rows.device
    if levels is not None and len(levels) != n:
        raise ValueError(f"{len(levels)} levels for {n} tokens: give one for each")
    levels = torch.zeros(n, dtype=torch.long, device=device) if levels is None else levels.to(device)
    first, second = (_cosines(space, levels) for space in spaces)
    return Cosines((first, second), (spaces[0].name, spaces[1].name), levels)


def agreement(
    x: Rows,
    y: Rows,
    *,
    counts: Float[Tensor, " _tokens"] | Int[Tensor, " _tokens"] | None = None,
    levels: Int[Tensor, " _tokens"] | None = None,
    apart: Sequence[int] = (),
) -> Agreement:
    """RSA centred within `levels` (one, if None); with `counts` (how many items carry each token), those held constant.

    Raises: ValueError for fewer than 4 tokens, unequal lengths, negative or infinite counts; rows of a level that are not finite, one
        point at their storage precision, or one on their mean; a space in which nothing is left to compare.
    Source: Kriegeskorte, Mur & Bandettini 2008, doi 10.3389/neuro.06.004.2008; the partial form: Smouse, Long & Sokal 1986,
        doi 10.2307/2413122.
    """
    return cosines(x, y, levels=levels).agreement(counts=counts, apart=apart)


class _Pairs:
    """Which pairs count (1, else 0: off the diagonal, not between levels set apart), and their means over each two levels."""

    def __init__(self, levels: Int[Tensor, " tokens"], apart: Sequence[int]):
        names, place = levels.unique(return_inverse=True)
        self.member = torch.nn.functional.one_hot(place, len(names)).double()
        outside = torch.isin(levels, torch.tensor(apart, dtype=levels.dtype, device=levels.device)).double()
        self.counted = (1 - outside[:, None] * outside).fill_diagonal_(0)
        self.sizes = self._sums(self.counted)

    def centred(self, matrix: Square) -> Square:
        """Minus the means; 0 where a pair does not count."""
        means = self._sums(matrix * self.counted) / self.sizes.clamp(min=1)
        return (matrix - self.member @ means @ self.member.T) * self.counted

    def _sums(self, matrix: Square) -> Float[Tensor, "levels levels"]:
        return self.member.T @ matrix @ self.member


def _cosines(space: Space, levels: Int[Tensor, " tokens"]) -> Square:
    """Cosines of the rows about the mean of their level."""
    units = torch.zeros(space.rows.shape, dtype=torch.float64, device=space.rows.device)
    for level in levels.unique().tolist():
        members = (levels == level).nonzero()[:, 0]
        own = Space(space.rows[members], space.name, space.dtype)
        _ = own.comparable  # refuses rows of which the typical one is a rounding off
        lengths = torch.linalg.vector_norm(own.centred, dim=1, keepdim=True)
        if bool((lengths <= NOTHING * lengths.max()).any()):
            row = int(members[lengths[:, 0].argmin()])
            raise ValueError(f"row {row} of {space.name} lies on the mean of its level: it has no direction from there")
        units[members] = own.centred / lengths
    return units @ units.T


def _held(counts: Tensor, pairs: _Pairs) -> Float[Tensor, "covariates tokens tokens"]:
    """Sum, absolute difference and product of log counts over pairs, made orthonormal; those that do not vary are left out."""
    if not bool((torch.isfinite(counts) & (counts >= 0)).all()):
        raise ValueError("counts say how many items carry a token: they must be finite, 0 or more")
    logs = counts.to(pairs.counted).log1p()
    held = pairs.counted.new_zeros(0, *pairs.counted.shape)
    for covariate in (logs[:, None] + logs, (logs[:, None] - logs).abs(), logs[:, None] * logs):
        left, share = _regressed(covariate, pairs, held)
        if share > NOTHING:
            held = torch.cat([held, left[None]])
    return held


def _regressed(matrix: Square, pairs: _Pairs, held: Tensor) -> tuple[Square, float]:
    """The matrix minus its means over blocks and its projections on what is held, scaled to square sum 1; the share left."""
    whole, left = (matrix * pairs.counted).square().sum().item(), pairs.centred(matrix)
    for covariate in held:
        left = left - (left * covariate).sum() * covariate
    square = left.square().sum().item()
    return (left / square**0.5 if square else left), square / whole if whole else 0.0
