"""Items that share their codes, and giving each its own at a fixed number of levels.

Inside a prefix (all codes but the last) the items compete for the codes of the last level: an assignment of least cost,
solved exactly. If a prefix holds more items than the last level has codes, those with least to lose go to the next
cheapest prefix that has room. So the codes are unique whenever there are enough of them; nothing is left to chance.
"""

import heapq
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gti_diag.errors import InputError

from .ids import SemanticIds
from .quantiser import Quantiser

Prefix = tuple[int, ...]


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


@dataclass(frozen=True)
class Moves:
    """What uniqueness cost: |z - Σq|² of each item before and after, in the space of the codebooks."""

    moved: Int[Tensor, " moved"]  # rows whose codes changed
    prefixes: int  # of them, those whose prefix changed too
    before: Float[Tensor, " items"]
    after: Float[Tensor, " items"]

    def summary(self) -> dict[str, Any]:
        """Counts and costs as they stand in `sids.json`; a relative cost that is undefined is None."""
        rise = (self.after - self.before)[self.moved]
        total = float(self.before.sum())
        return {
            "moved": len(self.moved),
            "moved_prefixes": self.prefixes,
            "mean_rise": float(rise.mean()) if len(rise) else 0.0,
            "largest_rise": float(rise.max()) if len(rise) else 0.0,
            "error_rise": float(rise.sum()) / total if total else None,
        }


def separate(
    quantiser: Quantiser,
    latent: Float[Tensor, "items dim"],
    codes: Int[Tensor, "items levels"],
    *,
    nearest: Int[Tensor, "items levels"] | None = None,
) -> tuple[Int[Tensor, "items levels"], Moves]:
    """Codes of which no two rows are equal, with as few changes and at as little cost as above, and what it cost.

    Only items that share their codes, or their prefix with items that do, are touched. What moved is told against
    `nearest` (by default `codes`).

    Raises:
        InputError: more items than codes.
    """
    capacity = math.prod(len(book) for book in quantiser.books)
    if len(codes) > capacity:
        raise InputError(f"{len(codes)} items, but {capacity} codes in all: use more codes or levels")
    found = codes.clone()
    groups: dict[Prefix, list[int]] = {}
    for row, prefix in enumerate(codes[:, :-1].tolist()):
        groups.setdefault(tuple(prefix), []).append(row)
    room, moved = len(quantiser.books[-1]), 0
    counts = Counter({prefix: len(rows) for prefix, rows in groups.items()})
    for prefix in sorted(prefix for prefix, rows in groups.items() if len(rows) > room):
        rows = groups[prefix]
        for place, target in leaving(quantiser, latent[rows], counts, prefix):
            found[rows[place], :-1] = torch.tensor(target, dtype=codes.dtype)
            groups.setdefault(target, []).append(rows[place])
            moved += 1
        groups[prefix] = [row for row in rows if tuple(found[row, :-1].tolist()) == prefix]
    for rows in groups.values():
        rows.sort()
        taken = set(found[rows, -1].tolist())
        if len(taken) < len(rows) or not torch.equal(found[rows], codes[rows]):
            found[rows, -1] = assigned(quantiser, latent[rows], found[rows])
    nearest = codes if nearest is None else nearest
    errors = [(latent - quantiser.summed(chosen)).square().sum(dim=1) for chosen in (nearest, found)]
    changed = (found != nearest).any(dim=1).nonzero().flatten()
    return found, Moves(changed, moved, errors[0], errors[1])


def assigned(
    quantiser: Quantiser, latent: Float[Tensor, "items dim"], codes: Int[Tensor, "items levels"]
) -> Int[Tensor, " items"]:
    """The last code of each row of one prefix: the assignment of least total cost."""
    from scipy.optimize import linear_sum_assignment

    last = len(quantiser.books) - 1
    residual = latent - quantiser.summed(codes, levels=last)
    return torch.from_numpy(linear_sum_assignment(quantiser.costs(residual, last).numpy())[1])


def leaving(
    quantiser: Quantiser, latent: Float[Tensor, "items dim"], counts: Counter[Prefix], prefix: Prefix
) -> Iterator[tuple[int, Prefix]]:
    """Rows that leave a prefix with more items than last codes, those first that lose least, each with its new prefix.

    `latent` has the prefix's items; `counts`, the items of every prefix, is kept up to date.
    """
    room = len(quantiser.books[-1])
    own = _leaf_errors(quantiser, latent, [prefix])[:, 0].tolist()
    ways = [_prefixes(quantiser, z, prefix) for z in latent]
    offers: list[tuple[float, int, Prefix]] = []

    def offer(row: int) -> None:
        cost, target = next(found for found in ways[row] if counts[found[1]] < room)
        heapq.heappush(offers, (cost - own[row], row, target))

    for row in range(len(latent)):
        offer(row)
    while counts[prefix] > room:
        _, row, target = heapq.heappop(offers)
        if counts[target] >= room:  # filled up in the meantime
            offer(row)
            continue
        counts[prefix] -= 1
        counts[target] += 1
        yield row, target


def _prefixes(quantiser: Quantiser, z: Float[Tensor, " dim"], start: Prefix) -> Iterator[tuple[float, Prefix]]:
    """Prefixes by what they cost an item, cheapest of the known first; each makes those that differ in one code known.

    Every prefix comes up in the end, so one with room is found if there is one.
    """
    known = {start}
    heap: list[tuple[float, Prefix]] = [(float(_leaf_errors(quantiser, z[None], [start])[0, 0]), start)]
    while heap:
        cost, prefix = heapq.heappop(heap)
        yield cost, prefix
        near = [
            (*prefix[:level], code, *prefix[level + 1 :])
            for level, book in enumerate(quantiser.books[:-1])
            for code in range(len(book))
        ]
        fresh = [other for other in dict.fromkeys(near) if other not in known]
        known.update(fresh)
        if fresh:
            for other, error in zip(fresh, _leaf_errors(quantiser, z[None], fresh)[0].tolist(), strict=True):
                heapq.heappush(heap, (error, other))


def _leaf_errors(
    quantiser: Quantiser, latent: Float[Tensor, "items dim"], prefixes: Sequence[Prefix]
) -> Float[Tensor, "items prefixes"]:
    """The least cost of each item under each prefix, over the codes of the last level."""
    last = len(quantiser.books) - 1
    starts = torch.zeros(len(prefixes), latent.shape[1], dtype=torch.float64)
    columns = torch.tensor(prefixes, dtype=torch.long).reshape(len(prefixes), last)
    for book, column in zip(quantiser.books, columns.T, strict=False):
        starts += book.double()[column]
    residual = (latent[:, None] - starts).flatten(0, 1)
    return quantiser.costs(residual, last).amin(dim=1).reshape(len(latent), len(prefixes))


def extra_level(codes: Int[Tensor, "items levels"]) -> Int[Tensor, "items levels+1"]:
    """One level more that numbers the items of equal codes in the order in which they are listed: 0, 1, 2, …

    Its codes mean nothing, and items get longer IDs. Source: TIGER (Rajput et al. 2023), section 3.1.
    """
    seen: Counter[Prefix] = Counter()
    numbers = []
    for row in map(tuple, codes.tolist()):
        numbers.append(seen[row])
        seen[row] += 1
    return torch.cat([codes, torch.tensor(numbers, dtype=codes.dtype).reshape(-1, 1)], dim=1)
