"""Tokens with levels (codes of a semantic ID): does the geometry know the levels, and the tree that items span?"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.sparse
import torch
from jaxtyping import Float, Int
from torch import Tensor

from .geometry import row_lengths

ROUNDING = 1e-14  # a mean cosine distance below this is the rounding of float64: the directions are equal


@dataclass(frozen=True)
class LevelContrast:
    """Mean cosine of a level's tokens among themselves, and with the tokens of all other levels."""

    level: int
    count: int
    within: float | None  # None: one token has no pair
    between: float | None  # None: there is no other level


def level_contrast(rows: Float[Tensor, "tokens dim"], levels: Int[Tensor, " numbers"]) -> tuple[LevelContrast, ...]:
    """Per level A: within = (‖S_A‖² − n_A) / (n_A (n_A − 1)), between = S_A·(S − S_A) / (n_A (n − n_A)), S = Σ unit rows.

    Levels in ascending order. Pass centred rows to look past a direction that all tokens share.

    Raises: ValueError if a row is zero, or the lengths differ.
    Source: means over blocks of the cosine matrix, in closed form.
    """
    units, found = _units(rows, levels), []
    whole = units.sum(0)
    for level in levels.unique().tolist():
        mine = units[levels == level].sum(0)
        n, rest = int((levels == level).sum()), int((levels != level).sum())
        within = float(mine @ mine - n) / (n * (n - 1)) if n > 1 else None
        between = float(mine @ (whole - mine)) / (n * rest) if rest else None
        found.append(LevelContrast(level, n, within, between))
    return tuple(found)


def level_silhouette(rows: Float[Tensor, "tokens dim"], levels: Int[Tensor, " numbers"]) -> Float[Tensor, " tokens"]:
    """(b − a) / max(a, b) per token: a its mean cosine distance to its own level, b to the nearest other level.

    From −1 (sits in another level) to 1 (its level is tight and apart). 0 for the only token of a level, and where
    a = b = 0. In closed form: the mean distance to a level is 1 − u·S/n.

    Raises: ValueError if a row is zero, the lengths differ, or there is only one level.
    Source: Rousseeuw, Silhouettes (1987).
    """
    units = _units(rows, levels)
    names, place, sizes = levels.unique(return_inverse=True, return_counts=True)
    if len(names) < 2:
        raise ValueError("one level: a silhouette needs another to compare with")
    sums = units.new_zeros(len(names), units.shape[1]).index_add_(0, place, units)
    distance = 1 - units @ sums.T / sizes
    distance = torch.where(distance < ROUNDING, 0.0, distance)
    own = torch.nn.functional.one_hot(place, len(names)).bool()
    others = distance.masked_fill(own, torch.inf).min(1).values
    size = sizes[place]
    inside = distance[own] * size / (size - 1).clamp(min=1)  # without the distance 0 to itself
    larger = torch.maximum(inside, others)
    return torch.where((size == 1) | (larger == 0), 0.0, (others - inside) / larger)


def shared_depth(
    items: Int[Tensor, "items levels"], level: int
) -> tuple[Int[Tensor, " codes"], Float[Tensor, "codes codes"]]:
    """The tokens of a level (from 1) and, for each two, the expected length of the prefix that their items share.

    Σ_{q < level} ⟨D_q(s), D_q(t)⟩, D_q(s) the distribution of the first q codes over the items that hold token s at
    this level. In a strict tree (each code under one parent) that is the depth of the lowest common ancestor.

    Raises: ValueError if the level is not between 2 and the number of levels (level 1 has no prefix).
    Source: the cophenetic depth of Sokal & Rohlf (1962), averaged over the places at which codes are reused.
    """
    if not 2 <= level <= items.shape[1]:
        raise ValueError(f"level {level} of {items.shape[1]}: shared prefixes begin at level 2")
    tokens, member = items[:, level - 1].unique(return_inverse=True)
    depth = np.zeros((len(tokens), len(tokens)))
    members, weights = member.cpu().numpy(), np.bincount(member.cpu().numpy())
    for length in range(1, level):
        _, prefix = items[:, :length].unique(dim=0, return_inverse=True)
        # Entry (s, p): the share of the items with token s that begin with prefix p. Deep prefixes hold few tokens.
        shares = scipy.sparse.csr_array((1 / weights[members], (members, prefix.cpu().numpy())))
        depth += (shares @ shares.T).toarray()
    return tokens, torch.from_numpy(depth).to(items.device)


class PrefixContrast(NamedTuple):
    """Mean cosine of pairs of one level whose items share a prefix, weighted by how much, and of those that share none."""

    siblings: float
    strangers: float
    pairs: int
    sibling_pairs: int


def prefix_contrast(
    rows: Float[Tensor, "tokens dim"], items: Int[Tensor, "items levels"], *, level: int
) -> PrefixContrast:
    """Σ w cos / Σ w over pairs s < t of the level's tokens with shared depth w > 0, and the mean cosine where w = 0.

    `items` holds row numbers: the token of each level of each item.

    Raises: ValueError if the level has no prefix, a row is zero, or one of the two kinds of pair does not exist.
    Source: contrast of within- and between-branch similarity; see `shared_depth` for the weights.
    """
    depth, cosine = _pairs(rows, items, level)
    near = depth > 0
    pairs, sibling_pairs = depth.numel() // 2, int(near.sum()) // 2
    if sibling_pairs in (0, pairs):
        raise ValueError(f"level {level}: {sibling_pairs} of {pairs} token pairs share a prefix: nothing to contrast")
    siblings = float((depth * cosine).sum() / depth.sum())
    return PrefixContrast(siblings, float(cosine[~near].mean()), pairs, sibling_pairs)


def cophenetic_correlation(
    rows: Float[Tensor, "tokens dim"], items: Int[Tensor, "items levels"], *, level: int
) -> float:
    """Pearson correlation, over pairs of one level's tokens, of their cosine with the depth of prefix their items share.

    Raises: ValueError if the level has no prefix, a row is zero, or cosines or depths do not vary.
    Source: Sokal & Rohlf, The comparison of dendrograms by objective methods (1962).
    """
    depth, cosine = _pairs(rows, items, level)
    if len(depth) < 2 or float(depth.std()) == 0 or float(cosine.std()) < 1e-12:
        raise ValueError(f"level {level}: cosine or shared depth does not vary over {depth.numel() // 2} token pairs")
    x, y = depth - depth.mean(), cosine - cosine.mean()
    return float((x * y).sum() / (x.norm() * y.norm()))


def _pairs(rows: Tensor, items: Tensor, level: int) -> tuple[Tensor, Tensor]:
    """Shared depth and cosine of all ordered pairs s ≠ t of a level's tokens: every pair twice."""
    tokens, depth = shared_depth(items, level)
    dead = tokens[~(rows[tokens] != 0).any(1)]
    if len(dead):
        raise ValueError(f"token {int(dead[0])} is all zeros: its cosines are undefined")
    units = _units(rows[tokens], tokens)
    return _off_diagonal(depth), _off_diagonal((units @ units.T).clamp(-1, 1))


def _off_diagonal(square: Tensor) -> Tensor:
    # In row-major order the diagonal is every (n + 1)-th number: a view of what lies between.
    n = len(square)
    return square.flatten()[:-1].view(n - 1, n + 1)[:, 1:]


def _units(rows: Tensor, labels: Tensor) -> Tensor:
    if len(rows) != len(labels):
        raise ValueError(f"{len(labels)} levels for {len(rows)} rows")
    return rows / row_lengths(rows)
