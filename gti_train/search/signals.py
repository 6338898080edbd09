"""Retrieval as ranking: a learned linear combination of similarity and other signals, which stays exact retrieval.

A combination of signals that are each linear in the document's side is itself an inner product, so it costs what one of them
does. Weights are learned from pairs of documents that judges tell apart.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gti_diag.errors import InputError

from .collection import Collection

Signals = Float[Tensor, "signals queries documents"]


@dataclass(frozen=True)
class Combination:
    """score = Σ weight · (signal − mean) / deviation; the names of the signals in the order of the weights."""

    names: tuple[str, ...]
    weights: tuple[float, ...]
    means: tuple[float, ...]
    deviations: tuple[float, ...]

    def scores(self, signals: Signals) -> Float[Tensor, "queries documents"]:
        """The combined score of every document."""
        weights, means, deviations = (
            torch.tensor(values, dtype=signals.dtype)[:, None, None]
            for values in (self.weights, self.means, self.deviations)
        )
        return (weights * (signals - means) / deviations).sum(0)

    def top(self, signals: Signals, k: int) -> Int[Tensor, "queries k"]:
        """The k best documents of each query; equal ones in their order."""
        return self.scores(signals).sort(dim=1, descending=True, stable=True)[1][:, :k]


def combine(
    names: tuple[str, ...], signals: Signals, collection: Collection, *, near: int = 50, strength: float = 1.0
) -> Combination:
    """Weights by logistic regression on differences: for documents i, j of a query with grades gᵢ > gⱼ, the model says which is
    better from signal differences alone, each pair weighing 2^gᵢ − 2^gⱼ. Pairs are among the judged documents and the `near`
    best by any signal. `strength` is the inverse of the ridge penalty.

    Source: RankSVM's reduction to classification (Joachims 2002) with the logistic loss (Burges et al. 2005, RankNet).

    Raises:
        InputError: a signal says the same of every document, or there is no pair to learn from.
    """
    from sklearn.linear_model import LogisticRegression

    means, deviations = signals.mean((1, 2)), signals.std((1, 2))
    for name, deviation in zip(names, deviations.tolist(), strict=True):
        if not deviation > 0:
            raise InputError(f"the signal {name!r} is the same for every query and document: leave it out")
    plain = (signals - means[:, None, None]) / deviations[:, None, None]
    rows, weights = [], []
    for query, grades in enumerate(collection.relevant):
        tops = signals[:, query].topk(min(near, signals.shape[2]), dim=1).indices.flatten().tolist()
        documents = sorted({*grades, *tops})
        grade = torch.tensor([float(grades.get(d, 0)) for d in documents])
        better, worse = (grade[:, None] > grade[None]).nonzero(as_tuple=True)
        seen = plain[:, query, documents].T
        rows.append(seen[better] - seen[worse])
        weights.append(2 ** grade[better] - 2 ** grade[worse])
    pairs, weight = torch.cat(rows), torch.cat(weights)
    if not len(pairs):
        raise InputError("no two documents of a query differ in grade: there is nothing to learn weights from")
    both = torch.cat([pairs, -pairs])
    which = torch.cat([torch.ones(len(pairs)), torch.zeros(len(pairs))])
    model = LogisticRegression(C=strength / len(pairs), fit_intercept=False)
    scale = weight / weight.mean()
    model.fit(both.numpy(), which.numpy(), sample_weight=torch.cat([scale, scale]).numpy())
    return Combination(names, tuple(model.coef_[0].tolist()), tuple(means.tolist()), tuple(deviations.tolist()))
