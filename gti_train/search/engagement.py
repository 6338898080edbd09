"""Engagement that is simulated: what its teacher says, and what a ranker's scores become as probabilities of a click."""

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .calibration import calibrate, order
from .clicks import ACTIONS, ClickModel, engagement_teacher, propensities, simulate, standardised
from .collection import Collection
from .evaluation import quality, reranked

GOOD = 0.75  # of the highest grade: 3 of 4


@dataclass(frozen=True)
class Engagement:
    """How engagement is simulated, and what its actions weigh beside relevance: the rare one counts five times."""

    clicks: ClickModel = field(default_factory=ClickModel)
    sessions: int = 20
    weights: tuple[float, float] = (0.3, 1.5)
    seed: int = 0


def engagement_targets(
    collection: Collection, places: Tensor, odds: Float[Tensor, "queries n"], popularity: Tensor, wanted: Engagement
) -> Float[Tensor, "queries n actions"]:
    """What the engagement teacher thinks of the candidates `places`, after simulated sessions over them.

    It knows the judge's log-odds `odds` and the popularity of documents, never the grades that the clicks were drawn from.
    """
    grades = _grades(collection, wanted.clicks)
    told = {"sessions": wanted.sessions, "seed": wanted.seed}
    random = simulate(places, grades, popularity, wanted.clicks, shuffle=True, **told)  # type: ignore[arg-type]
    log = simulate(places, grades, popularity, wanted.clicks, **told)  # type: ignore[arg-type]
    own = torch.zeros(grades.shape).scatter(1, places, odds)
    features = standardised([own, popularity.expand(grades.shape)])
    teacher = engagement_teacher(log, features, propensities(random))
    chosen = features.gather(1, places[..., None].expand(-1, -1, 2))
    return teacher(chosen.flatten(0, 1)).view(*places.shape, len(ACTIONS))


def popularity_of(collection: Collection) -> Float[Tensor, " documents"]:
    """A known popularity: log(1 + the number of queries that a document is a good answer to: three quarters of the highest grade)."""
    counts, top = torch.zeros(len(collection.documents)), collection.highest_grade
    for judged in collection.relevant:
        counts[[place for place, grade in judged.items() if grade >= GOOD * top]] += 1
    return counts.log1p()


def calibrated(
    collection: Collection, places: Tensor, scores: Float[Tensor, "queries n"], popularity: Tensor, wanted: Engagement
) -> dict[str, Any]:
    """Calibrations by position of `scores` of the candidates `places`, fitted to new sessions over their order, and NDCG@10.

    before: by score; after: by probability at the first position, plateaus by score; by_probability: plateaus as they fall,
    which a calibration that is not looked after does to a ranking.
    """
    ranked, depth = reranked(places, scores), min(10, places.shape[1])
    log = simulate(
        ranked,
        _grades(collection, wanted.clicks),
        popularity,
        wanted.clicks,
        sessions=wanted.sessions,
        seed=wanted.seed + 1,
    )
    in_order = scores.sort(dim=1, descending=True, stable=True).values
    positions = torch.arange(1, places.shape[1] + 1).expand(log.shown.shape)
    fit = calibrate(in_order[log.queries].flatten(), positions.flatten(), log.done[..., 0].flatten())
    first = fit(scores, position=1)
    by = {
        "before": ranked,
        "after": places.gather(1, order(first, scores)),
        "by_probability": reranked(places, first),
    }
    ndcg = {name: float(quality(found, collection, k=depth)[:, 0].mean()) for name, found in by.items()}
    return {"calibration": asdict(fit), "ndcg": ndcg}


def _grades(collection: Collection, model: ClickModel) -> Int[Tensor, "queries documents"]:
    """On the scale that the click model knows: the collection's highest grade is its highest."""
    grades = torch.zeros(len(collection.queries), len(collection.documents), dtype=torch.long)
    best, top = len(model.attraction) - 1, collection.highest_grade
    for query, judged in enumerate(collection.relevant):
        for place, grade in judged.items():
            grades[query, place] = round(grade * best / top)
    return grades
