"""How well judges agree: a model with people, people with each other, and the ceiling that this sets.

Source: weighted κ, Cohen 1968; leave one judge out as the ceiling that a further judge can be measured against.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gti_diag.errors import InputError

from .collection import Collection
from .judge import judge_pairs
from .prompts import Prompter

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Agreement:
    """Between two gradings of the same pairs: κ with weights (i − j)² and |i − j|, and Spearman's ρ; NaN where one is constant."""

    quadratic_kappa: float
    linear_kappa: float
    spearman: float
    pairs: int


def agreement(grades: Int[Tensor, " pairs"], others: Int[Tensor, " pairs"]) -> Agreement:
    """Of two gradings of the same pairs.

    Raises:
        InputError: other pairs, or fewer than two.
    """
    from scipy.stats import spearmanr
    from sklearn.metrics import cohen_kappa_score

    if grades.shape != others.shape or len(grades) < 2:
        raise InputError(
            f"{len(grades)} grades against {len(others)}: compare two gradings of the same pairs, two or more"
        )
    if not len(grades.unique()) > 1 or not len(others.unique()) > 1:
        return Agreement(torch.nan, torch.nan, torch.nan, len(grades))
    every = sorted({*grades.tolist(), *others.tolist()})
    labels = list(range(every[0], every[-1] + 1))  # grades that nobody gave keep their distance
    quadratic, linear = (
        cohen_kappa_score(grades.numpy(), others.numpy(), labels=labels, weights=name)
        for name in ("quadratic", "linear")
    )
    return Agreement(float(quadratic), float(linear), float(spearmanr(grades, others).statistic), len(grades))


def ceiling(judges: Mapping[str, Int[Tensor, " pairs"]]) -> dict[str, Agreement]:
    """Each judge against the rounded mean of all others: what a further judge could reach.

    Raises:
        InputError: fewer than three judges, or as `agreement`.
    """
    if len(judges) < 3:
        raise InputError(f"{len(judges)} judges: leaving one out needs three or more")
    return {
        name: agreement(grades, rounded_mean([other for one, other in judges.items() if one != name]))
        for name, grades in judges.items()
    }


def judge_agreement(
    model: "PreTrainedModel", prompter: Prompter, collection: Collection, *, like: Collection
) -> Agreement:
    """A judge against the grades of all judged pairs, its scores as grades in the shares of `like`; ρ is of the scores."""
    from scipy.stats import spearmanr

    pairs = [(query, d) for query, grades in enumerate(collection.relevant) for d in grades]
    grades = torch.tensor([grade for found in collection.relevant for grade in found.values()])
    known = torch.tensor([grade for found in like.relevant for grade in found.values()])
    scores = judge_pairs(model, prompter, collection, pairs)
    return replace(agreement(graded(scores, known), grades), spearman=float(spearmanr(scores, grades).statistic))


def rounded_mean(judges: Sequence[Int[Tensor, " pairs"]]) -> Int[Tensor, " pairs"]:
    """The mean grade of each pair, halves up."""
    return (torch.stack(list(judges)).double().mean(0) + 0.5).floor().long()


def graded(scores: Float[Tensor, " pairs"], like: Int[Tensor, " others"]) -> Int[Tensor, " pairs"]:
    """Scores as grades that are as often given as in `like`: the highest scores get its highest grades.

    A score orders pairs and has no unit of grades; equal shares is the map that needs no further fitting. Take `like` from
    pairs that are not compared.
    """
    order = scores.argsort(stable=True)
    places = (torch.arange(len(scores)) * len(like)).div(len(scores), rounding_mode="floor")
    return torch.empty_like(order).scatter(0, order, like.sort().values[places].long())
