"""Recommenders without a network: what any model must beat before its numbers mean anything.

Each is made from the training events of all users (item numbers in order of time) and gives, for histories, a score to
every item of the catalogue. Ties go by popularity, then by item number, so that every list is whole.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import sparse
from torch import Tensor

History = Sequence[int]
Scorer = Callable[[Sequence[History]], Float[Tensor, "users items"]]
AT_ONCE = 1 << 24  # scores in memory
HOPS, DECAY = 2, 0.5  # of the transition graph: how far, and how much less each further hop or earlier item weighs


def popularity(training: Sequence[History], items: int) -> Scorer:
    """How often each item was chosen, whoever asks."""
    counts = torch.from_numpy(_counts(training, items)).double()
    return lambda histories: counts.expand(len(histories), -1)


def repeat(training: Sequence[History], items: int) -> Scorer:
    """The user's own items, the latest first."""

    def score(histories: Sequence[History]) -> Tensor:
        found = torch.zeros(len(histories), items, dtype=torch.float64)
        for row, history in enumerate(histories):
            for place, item in enumerate(history, start=1):
                found[row, item] = place
        return found

    return score


def item_knn(training: Sequence[History], items: int) -> Scorer:
    """Σ over the user's items i of n_ij / √(n_i n_j), where n_ij users chose both: item-based collaborative filtering.

    Source: Deshpande and Karypis 2004, cosine similarity, all neighbours.
    """
    chosen = _table(training, items)
    both = (chosen.T @ chosen).tocsr()
    norm = np.sqrt(both.diagonal())
    scale = sparse.diags(np.divide(1, norm, out=np.zeros_like(norm), where=norm > 0))
    similar = (scale @ both @ scale).tolil()
    similar.setdiag(0)
    similar = similar.tocsr()
    return lambda histories: torch.from_numpy((_table(histories, items) @ similar).toarray())


def transitions(training: Sequence[History], items: int, *, vectors: Float[Tensor, "items dim"]) -> Scorer:
    """Items reached from the user's last two in a few steps of the transition graph, ranked by how similar texts are.

    With P_ij the share of the moves from i that went to j, reach R = Σ_h DECAYʰ⁻¹ Pʰ. An item's score is the sum over the
    last two items (the earlier weighs DECAY) of cos + R · (1 + cos), plus 2 where R > 0, so that what is reached comes first.

    Source: after the graph heuristic of Han et al. 2026 (arXiv 2605.07125): candidates from a few hops, ranked by features;
    how reach and similarity are mixed is ours.
    """
    moves = [(a, b) for history in training for a, b in pairwise(history) if a != b]
    rows, columns = np.array(moves, dtype=np.int64).reshape(-1, 2).T
    counts = sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(items, items))
    out = np.asarray(counts.sum(1)).ravel()
    step = sparse.diags(np.divide(1, out, out=np.zeros_like(out), where=out > 0)) @ counts
    reach, power = step, step
    for hop in range(1, HOPS):
        power = power @ step
        reach = reach + DECAY**hop * power
    unit = torch.nn.functional.normalize(vectors.double(), dim=1)

    def score(histories: Sequence[History]) -> Tensor:
        found = torch.zeros(len(histories), items, dtype=torch.float64)
        reached = torch.zeros(len(histories), items, dtype=torch.bool)
        for back, weight in ((1, 1.0), (2, DECAY)):
            known = [row for row, history in enumerate(histories) if len(history) >= back]
            last = [histories[row][-back] for row in known]
            near, similar = torch.from_numpy(reach[last].toarray()), unit[last] @ unit.T
            found[known] += weight * (similar + near * (1 + similar))
            reached[known] |= near > 0
        return found + 2 * reached

    return score


def baselines(training: Sequence[History], vectors: Float[Tensor, "items dim"]) -> Mapping[str, Scorer]:
    """All of them by name."""
    made: dict[str, Callable[..., Scorer]] = {
        "popularity": popularity,
        "repeat": repeat,
        "item-knn": item_knn,
        "transitions": partial(transitions, vectors=vectors),
    }
    return {name: make(training, len(vectors)) for name, make in made.items()}


def rank(
    scorer: Scorer,
    histories: Sequence[History],
    k: int,
    *,
    popular: Int[Tensor, " items"],
    exclude: Sequence[set[int] | None] | None = None,
) -> Int[Tensor, "users k"]:
    """The k items of the highest scores for each user, none of those to `exclude`."""
    order = popular.argsort(descending=True, stable=True)
    size, found = max(1, AT_ONCE // len(popular)), []
    for start in range(0, len(histories), size):
        scores = scorer(histories[start : start + size])[:, order].clone()
        for row, left in enumerate(exclude[start : start + size] if exclude is not None else ()):
            scores[row, torch.isin(order, torch.tensor(sorted(left or ()), dtype=torch.long))] = -torch.inf
        found.append(order[scores.sort(dim=-1, descending=True, stable=True)[1][:, :k]])
    return torch.cat(found) if found else torch.empty(0, k, dtype=torch.long)


def _counts(training: Sequence[History], items: int) -> np.ndarray:
    chosen = [item for history in training for item in history]
    return np.bincount(np.array(chosen, dtype=np.int64), minlength=items)


def _table(histories: Sequence[History], items: int) -> sparse.csr_matrix:
    """Who chose what, once each: users × items."""
    pairs = [(row, item) for row, history in enumerate(histories) for item in set(history)]
    rows, columns = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    return sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(len(histories), items))
