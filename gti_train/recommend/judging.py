"""A model and its baselines judged on the same users: from cases to the document that `gti-train eval` writes.

Lists are full rankings of the catalogue. Numbers are at item level: a model ranks sequences of codes, and one that several
items share counts as all of them in an order that is not known, by expectation. The level of the codes stands beside it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gti_diag.errors import InputError
from gti_train.loop.processes import total, world

from . import metrics, significance
from .baselines import Scorer, rank
from .cases import Cases, slices
from .decoding import Decoder
from .metrics import Relevant, Ties

LENIENT, STRICT = 1.0, 2.0  # grades from which on an item counts
Values = dict[str, Float[Tensor, " users"]]


@dataclass(frozen=True)
class Lists:
    """What a model found: sequences of codes (numbers of `groups`), and their items with the scores of these sequences."""

    groups: Int[Tensor, "users ranks"]
    items: Int[Tensor, "users ranks"]
    scores: Float[Tensor, "users ranks"]


def model_lists(
    decoder: Decoder,
    prompts: Sequence[Sequence[int]],
    k: int,
    *,
    groups: Int[Tensor, " items"],
    beams: int | None = None,
    exact: bool = False,
    exclude: Sequence[set[int] | None] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Lists:
    """The k best sequences of codes of each user, by a decoder over sequences that differ, and their first k items.

    `groups` is the sequence of each item; those whose items are all to `exclude` are not found. Processes of one group
    share the users; each gets all lists.

    Raises:
        InputError: as `Decoder.decode`.
    """
    number, size = world()
    mine = list(range(number, len(prompts), size))
    count = torch.bincount(groups)
    gone = None if exclude is None else [_emptied(exclude[user], groups, count) for user in mine]
    found, scores = decoder.decode(
        [prompts[u] for u in mine], k, beams=beams, exact=exact, exclude=gone, progress=progress
    )
    every = torch.zeros(len(prompts), k, dtype=torch.long, device=found.device)
    values = torch.zeros(len(prompts), k, device=found.device)
    every[mine], values[mine] = found, scores
    every, values = total(every).cpu(), total(values).cpu()
    order, starts = groups.argsort(stable=True), torch.nn.functional.pad(count.cumsum(0), (1, 0))
    items, ranks = zip(
        *(
            _expanded(row, order, starts, k, exclude[user] if exclude else None)
            for user, row in enumerate(every.tolist())
        ),
        strict=True,
    )
    return Lists(every, torch.tensor(items), values.gather(1, torch.tensor(ranks)))


def judge(ranked: Tensor, relevant: Relevant, ks: Sequence[int], *, gains: str, ties: Ties | None = None) -> Values:
    """Every metric at every k, one value a user; with grades, precision under both thresholds as well."""
    at: dict[str, Any] = {"gains": gains, "ties": ties}
    found: Values = {}
    graded = not isinstance(relevant, Tensor) and any(
        isinstance(row, Mapping) and any(grade != 1 for grade in row.values()) for row in relevant
    )
    for k in ks:
        found[f"recall@{k}"] = metrics.recall_at_k(ranked, relevant, k, **at)
        found[f"ndcg@{k}"] = metrics.ndcg_at_k(ranked, relevant, k, **at)
        found[f"hit_rate@{k}"] = metrics.hit_rate_at_k(ranked, relevant, k, **at)
        found[f"precision@{k}"] = metrics.precision_at_k(ranked, relevant, k, **at)
        for name, grade in (("lenient", LENIENT), ("strict", STRICT)) if graded else ():
            found[f"precision_{name}@{k}"] = metrics.precision_at_k(ranked, relevant, k, at_least=grade, **at)
    found["mrr"] = metrics.mrr_at_k(ranked, relevant, max(ks), **at)
    return found


def document(
    asked: Cases,
    lists: Lists,
    ks: Sequence[int],
    *,
    groups: Int[Tensor, " items"],
    baselines: Mapping[str, Scorer],
    others: Mapping[str, Values] | None = None,
    exclude: Sequence[set[int] | None] | None = None,
    gains: str = "exponential",
    seed: int = 0,
) -> tuple[dict[str, Any], Values]:
    """Metrics of the model, of its sequences of codes, of the baselines, differences and slices; and the model's values.

    `others` are values of other models on the same users, to compare with.
    """
    values = judge(lists.items, asked.relevant, ks, gains=gains, ties=Ties(groups, exclude))
    by_code = [_best_grades(row, groups) for row in asked.relevant]
    popular = asked.popular
    beside = {
        name: judge(
            rank(scorer, asked.histories, max(ks), popular=popular, exclude=exclude), asked.relevant, ks, gains=gains
        )
        for name, scorer in baselines.items()
    }
    found = {
        "users": len(asked.users),
        "left_out": {
            "users": asked.left_out,
            "reason": "no history before an event to predict" if asked.left_out else None,
        },
        "items": asked.items,
        "k": list(ks),
        "gains": gains,
        "metrics": _summary(values, seed),
        "sid_level": _summary(judge(lists.groups, by_code, ks, gains=gains), seed),
        "baselines": {name: _summary(of, seed) for name, of in beside.items()},
        "against": _against(values, {**beside, **(others or {})}, seed),
        "slices": {name: _slice(values, mask, seed) for name, mask in slices(asked).items()},
    }
    return found, values


def records(asked: Cases, lists: Lists, values: Values, item_ids: Sequence[str]) -> list[dict[str, Any]]:
    """One record a user: what was looked for, what was found, and the metrics."""
    return [
        {
            "user_id": user,
            "relevant": {item_ids[item]: grade for item, grade in asked.relevant[row].items()},
            "items": [item_ids[item] for item in lists.items[row].tolist()],
            "log_probabilities": lists.scores[row].tolist(),
            "metrics": {name: float(of[row]) for name, of in values.items()},
        }
        for row, user in enumerate(asked.users)
    ]


def _emptied(left: set[int] | None, groups: Tensor, count: Tensor) -> set[int]:
    """The sequences all of whose items are left out."""
    gone = torch.bincount(groups[torch.tensor(sorted(left or ()), dtype=torch.long)], minlength=len(count))
    return set((gone == count).nonzero()[:, 0].tolist())


def _expanded(
    row: list[int], order: Tensor, starts: Tensor, k: int, left: set[int] | None
) -> tuple[list[int], list[int]]:
    """The first k items of ranked sequences, without those left out, and the rank of each one's sequence."""
    items: list[int] = []
    ranks: list[int] = []
    for rank_, group in enumerate(row):
        free = [item for item in order[starts[group] : starts[group + 1]].tolist() if item not in (left or ())]
        items += free
        ranks += [rank_] * len(free)
    return items[:k], ranks[:k]


def _best_grades(row: Mapping[int, float], groups: Tensor) -> dict[int, float]:
    """The best grade of each sequence of codes that stands for a relevant item."""
    found: dict[int, float] = {}
    for item, grade in row.items():
        group = int(groups[item])
        found[group] = max(grade, found.get(group, 0.0))
    return found


def _summary(values: Values, seed: int) -> dict[str, Any]:
    table = torch.stack(list(values.values()), 1)
    bounds = significance.interval(table, seed=seed)
    return {
        name: {"value": float(mean), "interval": edges}
        for name, mean, edges in zip(values, table.mean(0), bounds.tolist(), strict=True)
    }


def _slice(values: Values, mask: Tensor, seed: int) -> dict[str, Any]:
    count = int(mask.sum())
    if not count:
        return {"users": 0, "metrics": None, "reason": "no user is in this slice"}
    return {"users": count, "metrics": _summary({name: of[mask] for name, of in values.items()}, seed)}


def _against(values: Values, others: Mapping[str, Values], seed: int) -> dict[str, Any]:
    """The model minus each other: differences, relative gains and p, corrected for how many others there are."""
    for name, other in others.items():
        missing = [metric for metric in values if metric not in other]
        if missing:
            raise InputError(f"{name} has no {missing[0]}: evaluate it at the same k and grades")
    apart = {
        name: significance.difference(_table(values, values), _table(other, values), seed=seed)
        for name, other in others.items()
    }
    corrected = significance.holm({name: found.p for name, found in apart.items()})
    return {
        name: {
            metric: {
                "difference": float(found.mean[i]),
                "interval": found.interval[i].tolist(),
                "relative": _number(found.relative[i]),
                "relative_interval": [_number(edge) for edge in found.relative_interval[i]],
                "reason": None if found.relative[i].isfinite() else f"the {metric} of {name} is 0",
                "p_value": float(found.p[i]),
                "p_corrected": float(corrected[name][i]),
            }
            for i, metric in enumerate(values)
        }
        for name, found in apart.items()
    }


def _table(values: Values, names: Values) -> Float[Tensor, "users metrics"]:
    return torch.stack([values[name] for name in names], 1)


def _number(value: Tensor) -> float | None:
    """None for a gain over nothing."""
    return float(value) if value.isfinite() else None
