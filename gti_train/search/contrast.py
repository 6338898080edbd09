"""Tuning a bi-encoder: InfoNCE with in-batch and mined negatives, and a margin between grades.

A lesson is a few queries after the same document and a few documents: the best one, others that are judged, hard negatives.
Every query of a batch is compared with every document of it. Documents that are judged relevant to a query are never its
negatives, whoever they came with.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from gti_train.loop.training import Part
from gti_train.model.loading import products_in

from .collection import Collection
from .pairs import Sampling, sampled_pairs

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


@dataclass(frozen=True)
class Lesson:
    """Places of queries and documents; the first document is the best for every query."""

    queries: tuple[int, ...]
    documents: tuple[int, ...]


@dataclass(frozen=True)
class Contrast:
    """loss = InfoNCE(similarity / temperature) + weight · mean of max(0, margin · (gᵢ − gⱼ) − (sᵢ − sⱼ)) where gᵢ > gⱼ.

    s are cosines, g grades divided by the highest one. The margin holds among documents with a grade above 0; those without
    are InfoNCE's.
    """

    temperature: float = 0.05
    margin: float = 0.2
    weight: float = 1.0

    def loss(self, cosines: Float[Tensor, "queries documents"], grades: Float[Tensor, "queries documents"]) -> Tensor:
        """Summed over queries. `grades`: from 0 (not judged relevant) to 1.

        Source: InfoNCE, van den Oord et al. 2018; hinge on graded pairs as in RankSVM, Joachims 2002.
        """
        best = grades == grades.max(1, keepdim=True).values
        scaled = cosines / self.temperature
        against = scaled.masked_fill(grades > 0, -torch.inf).logsumexp(1, keepdim=True)
        each = torch.logaddexp(scaled, against) - scaled  # −log of a positive's share among itself and the negatives
        contrast = (each * best).sum(1) / best.sum(1)
        apart = grades[:, :, None] - grades[:, None, :]
        wanted = (apart > 0) & (grades[:, None, :] > 0)
        short = (self.margin * apart - (cosines[:, :, None] - cosines[:, None, :])).clamp(min=0) * wanted
        return (contrast + self.weight * short.sum((1, 2)) / wanted.sum((1, 2)).clamp(min=1)).sum()


def lessons(
    collection: Collection, candidates: Sequence[Sequence[int]], sampling: Sampling, *, queries: int, seed: int
) -> list[Lesson]:
    """Lessons of up to `queries` queries that have the same best documents, each query once."""
    rng = Random(seed)
    shown: dict[int, dict[int, int]] = {}
    for (query, document), grade in sampled_pairs(collection, candidates, sampling, seed=seed):
        shown.setdefault(query, {})[document] = grade
    groups: dict[tuple[int, ...], list[int]] = {}
    for query, grades in shown.items():
        top = max(grades.values())
        groups.setdefault(tuple(sorted(d for d, g in grades.items() if g == top)), []).append(query)
    found = []
    for members in groups.values():
        rng.shuffle(members)
        for start in range(0, len(members), queries):
            some = members[start : start + queries]
            first = sorted(shown[some[0]], key=lambda d, q=some[0]: -shown[q][d])  # type: ignore[misc]
            found.append(Lesson(tuple(some), tuple(first)))
    return found


class Contrasts:
    """The loop's objective: a batch of lessons is one part, since all are compared with all."""

    side_by_side = False

    def __init__(
        self,
        encoder: "SentenceTransformer",
        collection: Collection,
        lessons: Sequence[Lesson],
        contrast: Contrast,
        *,
        compute: torch.dtype,
    ):
        self.encoder, self.collection, self.lessons = encoder, collection, lessons
        self.contrast, self.compute = contrast, compute

    def supervised(self, indices: Sequence[int]) -> float:
        """Queries."""
        return float(sum(len(self.lessons[i].queries) for i in indices))

    def updated(self) -> None:
        """Nothing to do: the model is the parameters."""

    def parts(self, indices: Sequence[int]) -> list[Part]:
        """All lessons at once."""
        return [lambda: self._loss([self.lessons[i] for i in indices])] if len(indices) else []

    def _loss(self, chosen: Sequence[Lesson]) -> Tensor:
        queries = [q for lesson in chosen for q in lesson.queries]
        documents = list(dict.fromkeys(d for lesson in chosen for d in lesson.documents))
        relevant = self.collection.relevant
        grades = torch.tensor([[float(relevant[q].get(d, 0)) for d in documents] for q in queries])
        grades = (grades / grades.max(1, keepdim=True).values).to(self.encoder.device)
        asked = self._vectors([self.collection.queries[q].text for q in queries])
        read = self._vectors([self.collection.documents[d].text for d in documents])
        return self.contrast.loss(asked @ read.T, grades)

    def _vectors(self, texts: Sequence[str]) -> Float[Tensor, "texts dim"]:
        from sentence_transformers.util import batch_to_device

        device = self.encoder.device
        inputs = batch_to_device(self.encoder.preprocess(list(texts)), device)
        with products_in(self.compute, device):
            vectors = self.encoder(inputs)["sentence_embedding"]
        return torch.nn.functional.normalize(vectors.float(), dim=-1)
