"""Shuffled sums over pairs, against the loops."""

import pytest
import torch

from gti_diag.measures.permute import (
    BLOCK,
    CIRCLES,
    PICKED,
    pair_products,
    shift_products,
    shuffled_products,
    shuffles,
)
from tests import references_rsa as literal


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def squares(tokens: int, count: int = 3, seed: int = 0) -> torch.Tensor:
    rows = torch.randn(count, tokens, tokens, generator=seeded(seed), dtype=torch.float64)
    return rows + rows.mT


def literal_products(fixed, moving, orders) -> list[float]:
    i, j = torch.triu_indices(len(moving), len(moving), 1)
    return [float((first[i, j] * moving[order[i], order[j]]).sum()) for order in orders for first in fixed]


@pytest.mark.parametrize("tokens", [2, 7, BLOCK, BLOCK + 1, 2 * BLOCK + 5])
def test_pair_products_are_the_sums_over_pairs(tokens):
    *fixed, moving = squares(tokens)
    orders = torch.stack([torch.arange(tokens), torch.randperm(tokens, generator=seeded())])
    found = pair_products(torch.stack(fixed), moving, orders)
    assert found.flatten().tolist() == pytest.approx(literal_products(fixed, moving, orders), rel=1e-12)


def test_shift_products_are_the_sums_over_pairs_of_shifted_circles():
    *fixed, moving = squares(13)
    fixed = torch.stack(fixed)
    fixed.diagonal(dim1=1, dim2=2).zero_()
    tokens = torch.randperm(13, generator=seeded(1))
    first = tokens[:6], tokens[6:11], tokens[11:]
    second = first[0].flip(0), first[1][[2, 0, 1, 4, 3]], first[2]
    shifts = torch.tensor([[0, 0, 0], [1, 3, 0], [5, 4, 1]])
    orders = torch.empty(3, 13, dtype=torch.long)
    for row, shift in zip(orders, shifts.tolist(), strict=True):
        for a, b, by in zip(first, second, shift, strict=True):
            for place, token in enumerate(a.tolist()):
                row[token] = b[(place + by) % len(a)]
    found = shift_products(fixed, moving, list(zip(first, second, strict=True)), shifts) / 2
    assert found.flatten().tolist() == pytest.approx(literal_products(fixed, moving, orders), abs=1e-9)


def test_shuffles_move_tokens_of_a_label_only_and_uniformly():
    labels = torch.tensor([7, 7, -2, -2, -2, 3])
    allowed = set(literal.all_orders(labels.tolist()))
    drawn = [tuple(order) for order in shuffles(labels, 1200, seeded()).tolist()]
    assert set(drawn) == allowed
    counts = [drawn.count(order) for order in allowed]
    assert max(counts) < 100 + 5 * 10  # 1200 draws of 12 orders: 100 each, standard deviation 10
    assert min(counts) > 100 - 5 * 10


LABELS = {
    "one level": torch.zeros(90, dtype=torch.long),
    "levels": torch.arange(90) % 3,
    "unequal levels": torch.tensor([0] * 70 + [1] * 17 + [2] * 3),
    "some stay": torch.cat([torch.arange(30) + 5, torch.zeros(60, dtype=torch.long)]),
    "many levels": torch.arange(90) % (CIRCLES + 1),
}


@pytest.mark.parametrize("labels", LABELS.values(), ids=list(LABELS))
def test_shuffled_products_have_the_moments_of_independent_shuffles(labels):
    assert len(labels) > PICKED
    *fixed, moving = squares(90)
    fixed = torch.stack(fixed)
    found = torch.cat(list(shuffled_products(fixed, moving, labels, samples=4000, generator=seeded())))
    wanted = pair_products(fixed, moving, shuffles(labels, 4000, seeded(1)))
    assert found.shape == (4000, 2)
    error = wanted.std(0) / 4000**0.5
    assert bool(((found.mean(0) - wanted.mean(0)).abs() < 6 * error).all())
    assert (found.std(0) / wanted.std(0)).tolist() == pytest.approx([1, 1], abs=0.08)


@pytest.mark.parametrize("samples", [1, 89, 90, 200])
def test_the_observed_order_is_not_among_the_first_shifts(samples):
    moving = squares(90, 1)[0].fill_diagonal_(0)
    products = torch.cat(
        list(shuffled_products(moving[None], moving, LABELS["one level"], samples=samples, generator=seeded()))
    )
    assert len(products) == samples
    assert float(products.max()) < 0.5 * float((moving * moving).sum()) / 2
