"""Agreement: κ by its definition, the ceiling by leaving each judge out, and scores as grades."""

import math

import pytest
import torch

from gti_diag.errors import InputError
from gti_train.search.agreement import agreement, ceiling, graded, rounded_mean


def kappa(a: list[int], b: list[int], power: int) -> float:
    """1 − observed / expected disagreement, pair by pair."""
    seen = sum(abs(x - y) ** power for x, y in zip(a, b, strict=True)) / len(a)
    expected = sum(abs(x - y) ** power for x in a for y in b) / len(a) ** 2
    return 1 - seen / expected


def test_kappa_is_one_minus_disagreement_over_chance():
    a, b = [0, 0, 1, 2, 4, 4, 1, 0], [0, 1, 1, 2, 4, 2, 0, 0]  # nobody gives 3
    found = agreement(torch.tensor(a), torch.tensor(b))
    assert found.quadratic_kappa == pytest.approx(kappa(a, b, 2))
    assert found.linear_kappa == pytest.approx(kappa(a, b, 1))
    assert found.quadratic_kappa != pytest.approx(found.linear_kappa)
    assert 0.5 < found.spearman < 1 and found.pairs == 8
    constant = agreement(torch.tensor([1, 1]), torch.tensor([0, 1]))
    assert math.isnan(constant.quadratic_kappa) and math.isnan(constant.spearman)


def test_the_ceiling_leaves_each_judge_out():
    judges = {"a": [0, 1, 2, 2], "b": [0, 1, 2, 1], "c": [0, 2, 2, 0]}
    tensors = {name: torch.tensor(grades) for name, grades in judges.items()}
    assert rounded_mean([tensors["b"], tensors["c"]]).tolist() == [0, 2, 2, 1]
    found = ceiling(tensors)
    assert found["a"].quadratic_kappa == pytest.approx(kappa(judges["a"], [0, 2, 2, 1], 2))
    assert set(found) == set(judges)
    with pytest.raises(InputError, match="2 judges: leaving one out needs three"):
        ceiling({"a": tensors["a"], "b": tensors["b"]})
    with pytest.raises(InputError, match="4 grades against 3"):
        agreement(tensors["a"], torch.tensor([1, 2, 3]))


def test_scores_become_grades_in_the_shares_of_others():
    assert graded(torch.tensor([0.3, -2.0, 9.0, 0.1]), torch.tensor([2, 0, 0, 1])).tolist() == [1, 0, 2, 0]
    assert graded(torch.arange(6.0), torch.tensor([1, 0])).tolist() == [0, 0, 0, 1, 1, 1]
