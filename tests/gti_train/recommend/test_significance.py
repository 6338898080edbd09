"""Intervals and p-values against scipy and full enumeration."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap, permutation_test

from gti_diag.errors import InputError
from gti_train.recommend import significance
from gti_train.recommend.significance import difference, holm, interval, permutation


def sample(users, metrics=1, seed=0):
    return torch.rand(users, metrics, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_interval_is_scipys_percentile_bootstrap():
    values = sample(80, 2)
    found = interval(values, seed=0, draws=20_000)
    for column, bounds in zip(values.T, found, strict=True):
        expected = bootstrap(
            (column.numpy(),), lambda x, axis: x.mean(axis), method="percentile", n_resamples=20_000, random_state=1
        )
        assert bounds.tolist() == pytest.approx(list(expected.confidence_interval), abs=3e-3)


def test_p_is_that_of_all_flips():
    apart = sample(10, 2, seed=3) - 0.4
    flips = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=10)), dtype=torch.float64)
    expected = ((flips @ apart).abs() >= apart.sum(0).abs() - 1e-12).double().mean(0)
    torch.testing.assert_close(permutation(apart, seed=0, draws=20_000), expected, rtol=0, atol=0.02)


def test_p_is_scipys_paired_permutation_test():
    arm, other = sample(60, seed=1)[:, 0] + 0.06, sample(60, seed=2)[:, 0]
    expected = permutation_test(
        (arm.numpy(), other.numpy()),
        lambda a, b, axis: (a - b).mean(axis),
        permutation_type="samples",
        n_resamples=9999,
        random_state=0,
    ).pvalue
    assert difference(arm[:, None], other[:, None], seed=0, draws=9999).p.item() == pytest.approx(expected, abs=0.02)


def test_equal_arms_differ_by_nothing():
    values = sample(30, 2)
    found = difference(values, values.clone(), seed=0)
    assert found.mean.tolist() == found.relative.tolist() == [0, 0]
    assert found.p.tolist() == [1, 1]
    assert found.interval.tolist() == [[0, 0], [0, 0]]


def test_a_gain_is_relative_to_the_other_arm_and_undefined_over_nothing():
    arm, other = torch.tensor([[1.0, 1.0], [0.5, 0.0]]).double(), torch.tensor([[0.5, 0.0], [0.5, 0.0]]).double()
    found = difference(arm, other, seed=0)
    assert found.relative[0].item() == pytest.approx(0.5)
    assert found.relative.isnan().tolist() == [False, True]


def test_the_pairs_matter_and_not_the_batches_of_draws(monkeypatch):
    arm, other = sample(50, seed=1), sample(50, seed=1) + 0.01
    whole = difference(arm, other, seed=4, draws=300)
    assert whole.p.item() == pytest.approx(1 / 301)  # tiny but the same for every user
    assert difference(arm, other[torch.randperm(50)], seed=4, draws=300).p.item() > 0.1
    monkeypatch.setattr(significance, "AT_ONCE", 50 * 300)
    assert torch.equal(difference(arm, other, seed=4, draws=300).interval, whole.interval)


@settings(deadline=None)
@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=6))
def test_holm_is_the_step_down_rule(p):
    names = [str(i) for i in range(len(p))]
    found = holm({name: torch.tensor([value]) for name, value in zip(names, p, strict=True)})
    order, running = sorted(range(len(p)), key=lambda i: p[i]), 0.0
    for place, i in enumerate(order):
        running = max(running, min(1.0, p[i] * (len(p) - place)))
        assert found[names[i]].item() == pytest.approx(running, rel=1e-5)
    assert holm({}) == {}


def test_other_users_are_refused():
    with pytest.raises(InputError, match="compare the same users"):
        difference(sample(3), sample(4), seed=0)
