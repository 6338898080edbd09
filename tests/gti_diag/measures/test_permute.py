"""Permuted sums over pairs, against the loops."""

import pytest
import torch

from gti_diag.measures.permute import BLOCK, pair_products


@pytest.mark.parametrize("tokens", [2, 7, BLOCK, BLOCK + 1, 2 * BLOCK + 5])
def test_pair_products_are_the_sums_over_pairs(tokens):
    generator = torch.Generator().manual_seed(tokens)
    first, second = (torch.randn(tokens, tokens, generator=generator, dtype=torch.float64) for _ in range(2))
    first, second = first + first.T, second + second.T
    orders = torch.stack([torch.arange(tokens), torch.randperm(tokens, generator=generator)])
    i, j = torch.triu_indices(tokens, tokens, 1)
    literal = [float((first[i, j] * second[order[i], order[j]]).sum()) for order in orders]
    assert pair_products(first, second, orders).tolist() == pytest.approx(literal, rel=1e-12)
