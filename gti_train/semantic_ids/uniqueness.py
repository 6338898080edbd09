"""Items that share their codes, and giving each its own."""

from collections import Counter
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from gti_diag.errors import InputError

from .ids import SemanticIds, token_of


@dataclass(frozen=True)
class Collisions:
    """How far the codes are from being identifiers."""

    items: int
    distinct: int
    largest: int

    @property
    def rate(self) -> float:
        """1 - distinct / items: the share of items that add no code sequence of their own."""
        return 1 - self.distinct / self.items


def collisions(sids: SemanticIds) -> Collisions:
    """Count the items that share all their codes."""
    groups = Counter(map(tuple, sids.codes.tolist()))
    return Collisions(len(sids.item_ids), len(groups), max(groups.values()))


def separate(sids: SemanticIds, vectors: Float[Tensor, "items dim"]) -> SemanticIds:
    """Give every item its own codes by changing the last level only, at the least total squared distance.

    Items with the same codes up to the last level compete for its codes: an assignment problem, solved
    exactly.

    Raises:
        InputError: more items share a prefix than the last level has codes.
    """
    from scipy.optimize import linear_sum_assignment

    residual = vectors.double()
    for level, book in enumerate(sids.codebooks[:-1]):
        residual = residual - book.double()[sids.codes[:, level]]
    groups: dict[tuple[int, ...], list[int]] = {}
    for row, code in enumerate(sids.codes[:, :-1].tolist()):
        groups.setdefault(tuple(code), []).append(row)
    last = sids.codebooks[-1].double()
    codes = sids.codes.clone()
    for prefix, rows in groups.items():
        if len(rows) > len(last):
            name = "".join(token_of(level, code) for level, code in enumerate(prefix))
            raise InputError(f"{len(rows)} items share {name} but the last level has {len(last)} codes: use more codes")
        if len(set(codes[rows, -1].tolist())) < len(rows):
            _, chosen = linear_sum_assignment(torch.cdist(residual[rows], last).square().numpy())
            codes[rows, -1] = torch.from_numpy(chosen).long()
    return replace(sids, codes=codes)
