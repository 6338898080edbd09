"""Baselines against their formulas, loops and all."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gti_train.recommend import baselines as module
from gti_train.recommend.baselines import baselines, item_knn, popularity, rank, repeat, transitions

ITEMS = 7
VECTORS = torch.randn(ITEMS, 3, generator=torch.Generator().manual_seed(0))
histories = st.lists(st.lists(st.integers(0, ITEMS - 1), min_size=1, max_size=6), min_size=1, max_size=6)


@settings(deadline=None, max_examples=40)
@given(histories, histories)
def test_scores_are_those_of_the_formulas(training, asked):
    counts = [sum(history.count(item) for history in training) for item in range(ITEMS)]
    assert popularity(training, ITEMS)(asked).tolist() == [counts] * len(asked)
    last = [[max((p for p, i in enumerate(h, 1) if i == item), default=0) for item in range(ITEMS)] for h in asked]
    assert repeat(training, ITEMS)(asked).tolist() == last
    users = [{u for u, history in enumerate(training) if item in history} for item in range(ITEMS)]

    def cosine(i, j):
        return (
            len(users[i] & users[j]) / math.sqrt(len(users[i]) * len(users[j]))
            if i != j and users[i] and users[j]
            else 0.0
        )

    expected = [[sum(cosine(i, j) for i in set(history)) for j in range(ITEMS)] for history in asked]
    torch.testing.assert_close(item_knn(training, ITEMS)(asked), torch.tensor(expected, dtype=torch.float64))


@settings(deadline=None, max_examples=40)
@given(histories, histories)
def test_transitions_are_two_hops_and_similarity(training, asked):
    moves = torch.zeros(ITEMS, ITEMS, dtype=torch.float64)
    for history in training:
        for a, b in itertools.pairwise(history):
            moves[a, b] += a != b
    step = moves / moves.sum(1, keepdim=True).clamp(min=1)
    reach = step + 0.5 * step @ step
    expected = []
    for history in asked:
        row, reached = torch.zeros(ITEMS, dtype=torch.float64), torch.zeros(ITEMS, dtype=torch.bool)
        for item, weight in zip(history[::-1][:2], (1.0, 0.5), strict=False):
            cosine = torch.cosine_similarity(VECTORS[item].double(), VECTORS.double())
            row += weight * (cosine + reach[item] * (1 + cosine))
            reached |= reach[item] > 0
        expected.append(row + 2 * reached)
    torch.testing.assert_close(transitions(training, ITEMS, vectors=VECTORS)(asked), torch.stack(expected))


@settings(deadline=None, max_examples=40)
@given(histories, histories, st.data())
def test_lists_are_whole_without_what_is_excluded_and_ties_go_by_popularity(training, asked, data):
    left = [data.draw(st.none() | st.sets(st.integers(0, ITEMS - 1), max_size=3)) for _ in asked]
    popular = torch.tensor([sum(history.count(item) for history in training) for item in range(ITEMS)])
    for scorer in baselines(training, VECTORS).values():
        scores, found = scorer(asked), rank(scorer, asked, 4, popular=popular, exclude=left)
        for row, (items, gone) in enumerate(zip(found.tolist(), left, strict=True)):
            free = [item for item in range(ITEMS) if item not in (gone or ())]
            expected = sorted(free, key=lambda i: (-float(scores[row, i]), -int(popular[i]), i))
            assert items == expected[:4]


def test_many_users_are_ranked_in_parts(monkeypatch):
    asked = [[user % ITEMS] for user in range(20)]
    scorer, popular = repeat([[0, 1]], ITEMS), torch.zeros(ITEMS, dtype=torch.long)
    whole = rank(scorer, asked, 3, popular=popular)
    monkeypatch.setattr(module, "AT_ONCE", 2 * ITEMS)
    assert torch.equal(rank(scorer, asked, 3, popular=popular), whole)
    assert whole[:, 0].tolist() == [user % ITEMS for user in range(20)]


def test_a_catalogue_that_nobody_chose_from_has_baselines_all_the_same():
    for name, scorer in baselines([[]], VECTORS).items():
        assert scorer([[1, 2]]).shape == (1, ITEMS), name
        assert scorer([[1, 2]]).isfinite().all(), name


def test_item_knn_never_recommends_an_item_for_itself():
    assert item_knn([[0, 1], [0, 1]], ITEMS)([[0]])[0, 0] == pytest.approx(0)
