"""How good ranked lists are: recall, precision, hit rate, reciprocal rank and NDCG at k, one value a user.

Lists are whole rankings cut at k, never rankings among sampled negatives. What is relevant is a set of items a user, or
items with grades. Where items share all their codes, a model ranks them as one; `Ties` then gives the expectation over
the order inside such a group, which is what an item-level number must be.

Source: Järvelin and Kekäläinen 2002 (gain and discount); Burges et al. 2005 (gain 2^g − 1); expectation over tied groups,
McSherry and Najork 2008.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gti_diag.errors import InputError

GAINS: dict[str, Callable[[Tensor], Tensor]] = {
    "exponential": lambda grade: 2**grade - 1,
    "linear": lambda grade: grade,
}
Relevant = Sequence[Collection[int] | Mapping[int, float]] | Tensor
Judge = Callable[[Tensor], Tensor]  # grades -> what counts


@dataclass(frozen=True)
class Ties:
    """Which items a model cannot tell apart, and so ranks next to each other: `groups[i]` numbers the group of item i.

    absent: items that were left out of each user's list, and take no place in their group.
    """

    groups: Int[Tensor, " items"]
    absent: Sequence[Collection[int] | None] | None = None


@dataclass(frozen=True)
class Judged:
    """Grades along each list, and all grades of each user, best first; both are zero where nothing is relevant.

    At each rank: `size` of the group, `place` in it from 0, and the grades of its items, best first.
    """

    groups: Float[Tensor, "users ranks members"]
    size: Float[Tensor, "users ranks"]
    place: Float[Tensor, "users ranks"]
    ideal: Float[Tensor, "users relevant"]

    def gain(self, judge: Judge) -> Float[Tensor, "users ranks"]:
        """The expected value of `judge` at each rank: its mean over the group."""
        return judge(self.groups).sum(-1) / self.size

    def first(self, judge: Judge) -> Float[Tensor, "users ranks"]:
        """The probability that the first relevant item stands at each rank.

        In a group of g items of which m are relevant, and none in the j places before, the next one is relevant with
        probability m / (g − j).
        """
        count = (judge(self.groups) > 0).sum(-1)
        hazard = (count / (self.size - self.place)).clamp(max=1)
        left = torch.cat([torch.ones_like(hazard[:, :1]), (1 - hazard).cumprod(-1)[:, :-1]], -1)
        return left * hazard


def recall_at_k(
    ranked: Int[Tensor, "users ranks"],
    relevant: Relevant,
    k: int,
    gains: str = "exponential",
    *,
    at_least: float | None = None,
    ties: Ties | None = None,
) -> Float[Tensor, " users"]:
    """Relevant items among the first k, divided by all relevant items of the user."""
    judged, counts = _judged(ranked, relevant, k, gains, ties), _counts(at_least)
    return judged.gain(counts).sum(-1) / _some(counts(judged.ideal).sum(-1))


def precision_at_k(
    ranked: Int[Tensor, "users ranks"],
    relevant: Relevant,
    k: int,
    gains: str = "exponential",
    *,
    at_least: float | None = None,
    ties: Ties | None = None,
) -> Float[Tensor, " users"]:
    """Relevant items among the first k, divided by k."""
    return _judged(ranked, relevant, k, gains, ties).gain(_counts(at_least)).sum(-1) / k


def hit_rate_at_k(
    ranked: Int[Tensor, "users ranks"],
    relevant: Relevant,
    k: int,
    gains: str = "exponential",
    *,
    at_least: float | None = None,
    ties: Ties | None = None,
) -> Float[Tensor, " users"]:
    """1 where at least one relevant item is among the first k, else 0."""
    return _judged(ranked, relevant, k, gains, ties).first(_counts(at_least)).sum(-1)


def mrr_at_k(
    ranked: Int[Tensor, "users ranks"],
    relevant: Relevant,
    k: int,
    gains: str = "exponential",
    *,
    at_least: float | None = None,
    ties: Ties | None = None,
) -> Float[Tensor, " users"]:
    """1 / the rank of the first relevant item, 0 where none is among the first k."""
    first = _judged(ranked, relevant, k, gains, ties).first(_counts(at_least))
    return (first / torch.arange(1, k + 1, device=first.device)).sum(-1)


def ndcg_at_k(
    ranked: Int[Tensor, "users ranks"],
    relevant: Relevant,
    k: int,
    gains: str = "exponential",
    *,
    ties: Ties | None = None,
) -> Float[Tensor, " users"]:
    """Σ_{r ≤ k} gain(grade at rank r) / log2(r + 1), divided by that sum for the best possible list.

    gains: `exponential` 2^g − 1, or `linear` g; for items that are relevant or not both are the same.
    """
    judged = _judged(ranked, relevant, k, gains, ties)
    discount = 1 / torch.log2(torch.arange(2, k + 2, device=ranked.device, dtype=torch.float64))
    best = GAINS[gains](judged.ideal[:, :k])
    return (judged.gain(GAINS[gains]) * discount).sum(-1) / _some((best * discount[: best.shape[1]]).sum(-1))


def _counts(at_least: float | None) -> Judge:
    return (lambda grade: (grade > 0).double()) if at_least is None else lambda grade: (grade >= at_least).double()


def _some(total: Tensor) -> Tensor:
    none = (total == 0).nonzero()[:, 0].tolist()
    if none:
        raise InputError(
            f"user {none[0]} has no relevant item: the value is undefined; leave such users out ({len(none)})"
        )
    return total


def _judged(ranked: Tensor, relevant: Relevant, k: int, gains: str, ties: Ties | None) -> Judged:
    items, grades = _graded(relevant, ranked.device)
    _check(ranked, items, k, gains)
    ranked = ranked[:, :k]
    ideal = grades.sort(dim=-1, descending=True)[0]
    if ties is None:
        at = ((ranked[..., None] == items[:, None]) * grades[:, None]).sum(-1, keepdim=True)
        alone = torch.ones(ranked.shape, dtype=torch.float64, device=ranked.device)
        return Judged(at, alone, torch.zeros_like(alone), ideal)
    groups = ties.groups.to(ranked.device)
    here, theirs = groups[ranked], torch.where(items >= 0, groups[items.clamp(min=0)], -1)
    members = (here[..., None] == theirs[:, None]) * grades[:, None]
    size = torch.bincount(groups)[here].double()
    if ties.absent is not None:
        size -= _absent(ties.absent, groups, here)
    rank = torch.arange(k, device=ranked.device)
    begins = torch.nn.functional.pad(here[:, 1:] != here[:, :-1], (1, 0), value=True)
    place = rank - torch.where(begins, rank, 0).cummax(-1)[0]
    return Judged(members, size, place.double(), ideal)


def _absent(absent: Sequence[Collection[int] | None], groups: Tensor, here: Tensor) -> Tensor:
    """How many items of the group at each rank are left out of the user's list."""
    items, _ = _graded([set(map(int, left or ())) for left in absent], here.device)
    theirs = torch.where(items >= 0, groups[items.clamp(min=0)], -1)
    return (here[..., None] == theirs[:, None]).sum(-1)


def _graded(relevant: Relevant, device: torch.device) -> tuple[Int[Tensor, "users n"], Float[Tensor, "users n"]]:
    """Items (−1 pads) and grades of each user."""
    if isinstance(relevant, Tensor):
        relevant = _of_tensor(relevant)
    rows = [
        {int(i): float(g) for i, g in row.items()} if isinstance(row, Mapping) else {int(i): 1.0 for i in row}
        for row in relevant
    ]
    width = max((len(row) for row in rows), default=0)
    items = torch.full((len(rows), width), -1)
    grades = torch.zeros(len(rows), width, dtype=torch.float64)
    for place, row in enumerate(rows):
        items[place, : len(row)] = torch.tensor(list(row), dtype=torch.long)
        grades[place, : len(row)] = torch.tensor(list(row.values()), dtype=torch.float64)
    if (grades < 0).any() or not grades.isfinite().all():
        raise InputError("a grade is negative or not a number: grades are 0 or more")
    return items.to(device), grades.to(device)


def _of_tensor(relevant: Tensor) -> list[Mapping[int, float]]:
    """One item a user (users), items (users × n, integers), or grades of all items (users × items, real or boolean)."""
    if relevant.is_floating_point() or relevant.dtype == torch.bool:
        return [{int(i): float(row[i]) for i in row.nonzero()[:, 0]} for row in relevant]
    rows = relevant[:, None] if relevant.ndim == 1 else relevant
    return [dict.fromkeys(row.tolist(), 1.0) for row in rows]


def _check(ranked: Tensor, items: Tensor, k: int, gains: str) -> None:
    if gains not in GAINS:
        raise InputError(f"gains {gains!r} are unknown: use one of {', '.join(GAINS)}")
    if ranked.ndim != 2 or ranked.is_floating_point():
        raise InputError(f"ranked lists are {ranked.dtype} {tuple(ranked.shape)}: give items, users × ranks")
    if len(ranked) != len(items):
        raise InputError(f"{len(ranked)} ranked lists for {len(items)} users: give one for each")
    if not 1 <= k <= ranked.shape[1]:
        raise InputError(f"k is {k} and the lists have {ranked.shape[1]} items: rank more, or ask for fewer")
    ordered = ranked[:, :k].sort(dim=-1)[0]
    twice = (ordered[:, 1:] == ordered[:, :-1]).any(-1).nonzero()[:, 0].tolist()
    if twice:
        raise InputError(f"the list of user {twice[0]} names an item twice among its first {k}")
