"""How good rankings of documents are: NDCG with gain 2^grade − 1, and how often the best document is found."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gti_train.recommend.metrics import hit_rate_at_k, ndcg_at_k
from gti_train.recommend.significance import difference, interval

from .collection import Collection

MEASURES = ("ndcg", "best")


def quality(
    ranked: Int[Tensor, "queries ranks"], collection: Collection, *, k: int = 10
) -> Float[Tensor, "queries measures"]:
    """NDCG@k over all judged documents, and whether a document of the query's best grade is among the first k (`MEASURES`)."""
    grades = collection.relevant
    best = [{d for d, g in judged.items() if g == max(judged.values())} for judged in grades]
    positive = [{d: float(g) for d, g in judged.items() if g > 0} for judged in grades]
    return torch.stack([ndcg_at_k(ranked, positive, k), hit_rate_at_k(ranked, best, k)], 1)


def reranked(candidates: Int[Tensor, "queries n"], scores: Float[Tensor, "queries n"]) -> Int[Tensor, "queries n"]:
    """Candidates by score, the highest first; equal ones keep their order."""
    return candidates.gather(1, scores.sort(dim=1, descending=True, stable=True)[1])


def report(
    values: Mapping[str, Float[Tensor, "queries measures"]], *, seed: int, against: Sequence[str] = ()
) -> dict[str, dict[str, Any]]:
    """For each ranking the mean of every measure with its 95 % bootstrap interval over queries, and paired differences from
    the rankings named in `against`."""
    found: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        bounds = interval(value, seed=seed)
        found[name] = {
            measure: {"value": float(value[:, i].mean()), "interval": bounds[i].tolist()}
            for i, measure in enumerate(MEASURES)
        }
        for other in (other for other in against if other != name and other in values):
            apart = difference(value, values[other], seed=seed)
            found[name][f"minus {other}"] = {
                measure: {
                    "value": float(apart.mean[i]), "interval": apart.interval[i].tolist(), "p": float(apart.p[i])
                }
                for i, measure in enumerate(MEASURES)
            }  # fmt: skip
    return found
