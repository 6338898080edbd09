"""Codes become unique at a fixed length, whatever the vectors, and what it cost is counted."""

from itertools import permutations, product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tests.strategies  # noqa: F401  no deadlines
from gti_diag.errors import InputError
from gti_train.semantic_ids.ids import SemanticIds
from gti_train.semantic_ids.making import UNIQUE, make_ids
from gti_train.semantic_ids.quantiser import Quantiser
from gti_train.semantic_ids.quantisers import fit
from gti_train.semantic_ids.uniqueness import collisions, extra_level, separate

from .cases import spread


def books(sizes, dim=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randn(size, dim, generator=generator, dtype=torch.float64) / (2**level)
        for level, size in enumerate(sizes)
    )


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.sampled_from([(2, 3), (3, 2, 2), (4,)]), st.sampled_from([0.0, 0.01, 1.0]))
def test_every_item_gets_its_own_codes_whenever_there_are_enough(seed, sizes, width):
    quantiser = Quantiser("test", books(sizes, seed=seed))
    capacity = torch.tensor(sizes).prod().item()
    z = torch.randn(capacity, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * width
    codes = quantiser.encode(z)
    found, moves = separate(quantiser, z, codes)
    assert len(torch.unique(found, dim=0)) == capacity  # full: every single code is needed
    assert all(int(found[:, level].max()) < size for level, size in enumerate(sizes))
    assert torch.equal((found != codes).any(dim=1).nonzero().flatten(), moves.moved)
    errors = (z - quantiser.summed(found)).square().sum(dim=1)
    assert torch.allclose(moves.after, errors)


def test_inside_a_prefix_the_assignment_is_the_cheapest():
    quantiser, z = (
        Quantiser("test", books((2, 5))),
        torch.randn(5, 3, generator=torch.Generator().manual_seed(4)).double() * 0.1,
    )
    codes = torch.tensor([[1, 0]] * 5)
    found, moves = separate(quantiser, z, codes)
    residual = z - quantiser.books[0][1]
    costs = torch.cdist(residual, quantiser.books[1]).square()
    cheapest = min(sum(float(costs[row, code]) for row, code in enumerate(order)) for order in permutations(range(5)))
    assert float(moves.after.sum()) == pytest.approx(cheapest)
    assert found[:, 0].tolist() == [1] * 5


def test_the_item_that_loses_least_leaves_a_full_prefix_for_the_cheapest_other():
    quantiser = Quantiser("test", (torch.tensor([[0.0], [10.0], [30.0]]), torch.tensor([[0.0], [1.0]])))
    z = torch.tensor([[0.0], [1.0], [4.0]], dtype=torch.float64)
    found, moves = separate(quantiser, z, torch.tensor([[0, 0], [0, 1], [0, 1]]))
    assert found.tolist() == [[0, 0], [0, 1], [1, 0]]
    assert moves.summary() == {
        "moved": 1, "moved_prefixes": 1, "mean_rise": 27.0, "largest_rise": 27.0, "error_rise": 27 / 9,
    }  # fmt: skip


def test_nothing_moves_where_all_codes_differ():
    quantiser = Quantiser("test", books((2, 2)))
    codes = torch.tensor(list(product(range(2), range(2))))
    found, moves = separate(quantiser, quantiser.summed(codes), codes)
    assert torch.equal(found, codes)
    assert moves.summary() == {
        "moved": 0,
        "moved_prefixes": 0,
        "mean_rise": 0.0,
        "largest_rise": 0.0,
        "error_rise": None,
    }


def test_more_items_than_codes_are_refused():
    with pytest.raises(InputError, match="5 items, but 4 codes in all"):
        separate(Quantiser("test", books((2, 2))), torch.zeros(5, 3).double(), torch.zeros(5, 2, dtype=torch.long))


def test_an_extra_level_numbers_equal_codes():
    assert extra_level(torch.tensor([[1, 2], [0, 0], [1, 2], [1, 2]]))[:, -1].tolist() == [0, 0, 1, 2]


@pytest.mark.parametrize("unique", UNIQUE)
@pytest.mark.parametrize("name", ["residual-kmeans", "product", "fsq"])
def test_each_way_to_be_unique(unique, name):
    vectors = spread(rows=60)
    fitted = fit(vectors, quantiser=name, sizes=(8, 8))
    made = make_ids([str(row) for row in range(60)], vectors, fitted, unique=unique)
    assert (collisions(made.sids).largest == 1) == (unique != "no")
    assert made.sids.codes.shape[1] == (3 if unique == "extra-level" else 2)
    assert made.sids.made["unique"] == unique and ("moves" in made.sids.made) == (unique in ("assign", "sinkhorn"))
    if unique in ("assign", "sinkhorn"):
        assert made.sids.made["moves"]["moved"] == int((made.sids.codes != fitted.codes).any(dim=1).sum())
    if unique == "extra-level":
        assert not made.sids.codebooks[2].any() and torch.equal(made.sids.codes[:, :2], fitted.codes)


def test_sinkhorn_prices_even_out_the_last_level():
    vectors = spread(rows=96)
    fitted = fit(vectors, quantiser="residual-kmeans", sizes=(4, 32))
    most = {}
    for unique in ("assign", "sinkhorn"):
        sids = make_ids([str(row) for row in range(96)], vectors, fitted, unique=unique).sids
        most[unique] = int(torch.bincount(sids.codes[:, 1]).max())
    assert most["sinkhorn"] <= most["assign"]


def test_collisions_are_counted():
    codes = torch.tensor([[0, 0], [0, 0], [0, 0], [1, 0]])
    found = collisions(SemanticIds(("p", "q", "r", "s"), codes, books((2, 3))))
    assert (found.items, found.distinct, found.largest, found.rate) == (4, 2, 3, 0.5)
