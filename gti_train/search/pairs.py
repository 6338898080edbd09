"""Which pairs of query and document a judge or ranker learns from, and how they are put together."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from random import Random
from typing import Protocol

from gti_train.loop.training import LoopConfig

from .collection import Collection

Pair = tuple[int, int]  # places of a query and of a document


class Training(Protocol):
    """What of a training's configuration decides which pairs it meets: most pairs of a family, seed, and the loop over families."""

    @property
    def family(self) -> int: ...

    @property
    def seed(self) -> int: ...

    def loop(self, count: int) -> LoopConfig: ...


@dataclass(frozen=True)
class Sampling:
    """How many documents a query is shown with: judged ones above grade 0 (the best always among them), hard negatives out of
    what retrieval ranks high and nobody judged relevant, and any others."""

    judged: int = 6
    hard: int = 6
    random: int = 2


def sampled_pairs(
    collection: Collection, candidates: Sequence[Sequence[int]], sampling: Sampling, *, seed: int
) -> list[tuple[Pair, int]]:
    """Pairs to learn from, each with its grade (0 where nobody judged). `candidates[q]`: what retrieval finds for query q."""
    rng, found = Random(seed), []
    for query, (grades, near) in enumerate(zip(collection.relevant, candidates, strict=True)):
        top = max(grades.values())
        best = [document for document, grade in grades.items() if grade == top][: sampling.judged]
        others = [document for document, grade in grades.items() if 0 < grade < top]
        negative = [document for document in near if not grades.get(document)]
        far = [d for d in rng.sample(range(len(collection.documents)), min(len(collection.documents), 4 * sampling.random))
               if not grades.get(d)]  # fmt: skip
        chosen = [
            *best,
            *rng.sample(others, min(len(others), sampling.judged - len(best))),
            *rng.sample(negative, min(len(negative), sampling.hard)),
            *far[: sampling.random],
        ]
        found += [((query, document), grades.get(document, 0)) for document in dict.fromkeys(chosen)]
    return found


def soft_labels(
    collection: Collection, candidates: Sequence[Sequence[int]], *, seed: int, sampling: Sampling | None = None
) -> list[tuple[Pair, float]]:
    """Pairs to learn from, each with its grade as a probability: divided by the highest grade of the collection."""
    top = collection.highest_grade
    pairs = sampled_pairs(collection, candidates, sampling or Sampling(), seed=seed)
    return [(pair, grade / top) for pair, grade in pairs]


def families(pairs: Sequence[Pair], *, by_document: bool, most: int, seed: int) -> list[list[int]]:
    """Numbers of pairs that share a document (or a query), in random order, at most `most` together."""
    groups: dict[int, list[int]] = defaultdict(list)
    for number, pair in enumerate(pairs):
        groups[pair[by_document]].append(number)
    rng, found = Random(seed), []
    for members in groups.values():
        rng.shuffle(members)
        pieces = -(-len(members) // most)
        found += [members[i::pieces] for i in range(pieces)]
    return found


def met(pairs: Sequence[Pair], config: Training, *, by_document: bool) -> tuple[list[int], int]:
    """Numbers of the pairs that training meets, in their order, and its steps: nobody else has to be asked about the others.

    Where the steps see fewer families than there are, so many are drawn at random.
    """
    grouped = families(pairs, by_document=by_document, most=config.family, seed=config.seed)
    loop = config.loop(len(grouped))
    seen = min(len(grouped), loop.steps * loop.batch)
    chosen = Random(config.seed).sample(grouped, seen) if seen < len(grouped) else grouped
    return sorted(chain.from_iterable(chosen)), loop.steps
