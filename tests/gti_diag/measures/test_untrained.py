"""Indicators of under-trained rows: literal references, windows, refusals."""

import pytest
import torch

from gti_diag.measures import untrained


def rows(count=20, dim=12, seed=0):
    return torch.randn(count, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + 1.0


def test_each_row_is_compared_with_the_others():
    known, mean = rows(), torch.zeros(12, dtype=torch.float64)
    axis, distances = untrained.cosine_distances(known, mean=mean)
    for place, row in enumerate(known):
        rest = torch.cat([known[:place], known[place + 1 :]]).mean(0)
        assert float(distances[place]) == pytest.approx(1 - float(torch.cosine_similarity(row, rest, dim=0)))
    assert torch.allclose(axis, known.mean(0) / known.mean(0).norm())


def test_a_shift_of_everything_changes_nothing():
    known, shift = rows(), torch.linspace(-5, 5, 12, dtype=torch.float64)
    plain = untrained.cosine_distances(known, mean=torch.ones(12))[1]
    assert torch.allclose(untrained.cosine_distances(known + shift, mean=1 + shift)[1], plain)


def test_windows_hold_what_is_like_the_known_ones():
    known = torch.linspace(0.010, 0.020, 11, dtype=torch.float64)
    near = untrained.cosine_window(known)
    assert near.holds(torch.tensor([0.0, 0.015, 0.020, 0.04])).tolist() == [True, True, True, False]
    outlier = torch.cat([known, torch.tensor([1.9])])  # a placeholder that was trained after all
    assert not bool(untrained.cosine_window(outlier).holds(torch.tensor([0.5])).any())
    norms = untrained.norm_window(torch.full((9,), 0.7))
    assert norms.holds(torch.tensor([0.6, 0.7, 0.8])).tolist() == [False, True, False]


def test_too_few_or_useless_known_rows_are_refused():
    with pytest.raises(ValueError, match="1 never trained rows"):
        untrained.cosine_distances(rows(1), mean=torch.zeros(12))
    with pytest.raises(ValueError, match="no direction"):
        untrained.cosine_distances(torch.ones(3, 12), mean=torch.ones(12))
    with pytest.raises(ValueError, match="8 are needed"):
        untrained.norm_window(torch.ones(7))
