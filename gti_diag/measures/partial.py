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
from itertools import combinations_with_replacement
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .alignment import Rows, Space, paired
from .permute import growing, pair_products

Square = Float[Tensor, "tokens tokens"]
TIED = 1e-6  # correlations closer than this come from arrangements that are the same but for rounding
NOTHING = 1e-10  # a square sum below this share of the whole is what regression leaves of rounding
FLOAT64_TOKENS = 128  # more are permuted in float32: a null needs few digits
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
        for size in [permutations] if enough is None else growing(permutations):
            null = torch.cat([null, self.null(self._orders(size, generator)).cpu()])
            reached = (null >= self.value - TIED).cumsum(0)
            if enough is not None and reached[-1] >= enough:
                null = null[: int((reached < enough).sum()) + 1]
                break
        count, drawn = int((null >= self.value - TIED).sum()), len(null)
        best = int((null >= max(self.value, null.max().item()) - TIED).sum())
        p_value = count / drawn if count == enough else (1 + count) / (1 + drawn)
        return PermutationTest(p_value, drawn / best if best > 1 else torch.inf)

    def _orders(self, samples: int, generator: torch.Generator) -> Int[Tensor, "samples tokens"]:
        """Uniformly random orders in which a token's place is taken by one of its level, or by itself where that is apart."""
        n, place = len(self.levels), torch.arange(len(self.levels))
        levels = self.levels.cpu()
        labels = torch.where(
            torch.isin(levels, torch.tensor(self.apart, dtype=levels.dtype)), n * levels + place, n * levels
        )
        keys = labels + torch.rand(samples, n, dtype=torch.float64, generator=generator, device=generator.device).cpu()
        orders = torch.empty(samples, n, dtype=torch.long)
        orders[:, labels.argsort(stable=True)] = keys.argsort(1)
        return orders

    def null(self, orders: Int[Tensor, "samples tokens"]) -> Float[Tensor, " samples"]:
        """The correlation for each order of `second`'s tokens, what is held regressed out anew."""
        dtype = torch.float64 if len(self.first) <= FLOAT64_TOKENS else torch.float32
        moving, moved = self.second.to(dtype), orders.to(self.second.device)
        found = [2 * pair_products(fixed.to(dtype), moving, moved) for fixed in (self.first, *self.held)]
        return found[0] / (1 - sum(product**2 for product in found[1:])) ** 0.5

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
        a, b = self.first, self.second
        forms = self.counted, a, b, a * b, a * a, b * b
        pairs, d, e, de, dd, ee = (((weights @ form) * weights).sum(1) for form in forms)
        return (de - d * e / pairs) / ((dd - d * d / pairs) * (ee - e * e / pairs)).sqrt()

    def _pair_variance(self) -> float:
        """V2 of `rsa.rsa_interval`: the variance that stems from what pairs have beyond the effects of their two tokens."""
        n, pairs = len(self.first), self.counted.sum().item() / 2
        influence = 2 * pairs * (self.first * self.second - self.value / 2 * (self.first**2 + self.second**2))
        residual = influence.square().sum().item() / 2 - influence.sum(1).square().sum().item() / (n - 2)
        return max(residual, 0.0) / (n * (n - 3) / 2) / pairs


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
    spaces = paired(x, y, fewest=4)
    n, device = len(x), spaces[0].rows.device
    for name, given in (("counts", counts), ("levels", levels)):
        if given is not None and len(given) != n:
            raise ValueError(f"{len(given)} {name} for {n} tokens: give one for each")
    levels = torch.zeros(n, dtype=torch.long, device=device) if levels is None else levels.to(device)
    counted, blocks = _pairs(levels, apart)
    held = _held(counts, blocks, counted) if counts is not None else counted.new_zeros(0, n, n)
    residuals = []
    for space in spaces:
        left, share = _regressed(_cosines(space, levels) * counted, blocks, held)
        if share <= NOTHING:
            raise ValueError(
                f"the pairs of {space.name} are all alike once means and counts are out: nothing is left to compare"
            )
        residuals.append(left)
    return Agreement(residuals[0], residuals[1], counted, held, levels, tuple(apart))


def _pairs(
    levels: Int[Tensor, " tokens"], apart: Sequence[int]
) -> tuple[Square, Float[Tensor, "blocks tokens tokens"]]:
    """Which pairs count (off the diagonal, not between levels set apart), and for each two levels which pairs are theirs."""
    member = {level: (levels == level).double() for level in levels.unique().tolist()}
    counted = torch.ones(len(levels), len(levels), dtype=torch.float64, device=levels.device).fill_diagonal_(0)
    outside = torch.stack([member[level] for level in apart if level in member]).sum(0) if apart else 0 * counted[0]
    counted *= 1 - outside[:, None] * outside
    blocks = []
    for one, other in combinations_with_replacement(member, 2):
        block = member[one][:, None] * member[other]
        block = (block if one == other else block + block.T) * counted
        if bool(block.any()):
            blocks.append(block)
    return counted, torch.stack(blocks)


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


def _held(counts: Tensor, blocks: Tensor, counted: Square) -> Float[Tensor, "covariates tokens tokens"]:
    """Sum, absolute difference and product of log counts over pairs, made orthonormal; those that do not vary are left out."""
    if not bool((torch.isfinite(counts) & (counts >= 0)).all()):
        raise ValueError("counts say how many items carry a token: they must be finite, 0 or more")
    logs = counts.to(counted).log1p()
    held = counted.new_zeros(0, *counted.shape)
    for covariate in (logs[:, None] + logs, (logs[:, None] - logs).abs(), logs[:, None] * logs):
        left, share = _regressed(covariate * counted, blocks, held)
        if share > NOTHING:
            held = torch.cat([held, left[None]])
    return held


def _regressed(matrix: Square, blocks: Tensor, held: Tensor) -> tuple[Square, float]:
    """The matrix minus its means over blocks and its projections on what is held, scaled to square sum 1; the share left."""
    whole, left = matrix.square().sum().item(), matrix
    for block in blocks:
        left = left - (left * block).sum() / block.sum() * block
    for covariate in held:
        left = left - (left * covariate).sum() * covariate
    square = left.square().sum().item()
    return (left / square**0.5 if square else left), square / whole if whole else 0.0
