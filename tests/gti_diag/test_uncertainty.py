import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gti_diag.uncertainty import bootstrap_interval, null_band, percentile_interval, permutation_p_value
from tests import references_rsa as literal


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


values = st.integers(-20, 20).map(lambda v: v / 4)


@given(observed=values, null=st.lists(values, min_size=1, max_size=40))
def test_permutation_p_value_is_literal_and_bounded(observed, null):
    found = permutation_p_value(observed, torch.tensor(null))
    assert found == pytest.approx(literal.permutation_p_value(observed, null))
    assert 1 / (1 + len(null)) <= found <= 1
    mirrored = permutation_p_value(-observed, -torch.tensor(null), alternative="less")
    assert mirrored == found
    both = permutation_p_value(observed, torch.tensor(null), alternative="two-sided")
    assert both == min(1.0, 2 * min(found, permutation_p_value(observed, torch.tensor(null), alternative="less")))


def test_two_sided_doubles_the_smaller_tail_and_is_not_the_absolute_value_convention():
    null = [0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3]  # a null that does not lie around 0
    assert permutation_p_value(-0.4, torch.tensor(null), alternative="two-sided") == pytest.approx(0.2)
    assert literal.two_sided_by_absolute_value(-0.4, null) == 1.0  # scikit-bio sees nothing unusual


def test_permutation_p_value_counts_rounding_as_a_tie():
    assert permutation_p_value(0.3, torch.tensor([0.1 + 0.2, 0.3 - 1e-17, 0.0], dtype=torch.float64)) == 0.75


@pytest.mark.parametrize(
    "observed,null,said", [(0.0, [], "empty"), (float("nan"), [0.0], "finite"), (0.0, [float("inf")], "finite")]
)
def test_permutation_p_value_refuses(observed, null, said):
    with pytest.raises(ValueError, match=said):
        permutation_p_value(observed, torch.tensor(null))


def test_percentile_interval_interpolates_and_refuses():
    assert percentile_interval(torch.arange(101.0), confidence=0.9) == pytest.approx((5, 95))
    with pytest.raises(ValueError, match="between 0 and 1"):
        percentile_interval(torch.arange(3.0), confidence=95.0)
    with pytest.raises(ValueError, match="at least two samples"):
        percentile_interval(torch.tensor([1.0]), confidence=0.9)
    with pytest.raises(ValueError, match="all finite"):
        percentile_interval(torch.tensor([1.0, float("nan")]), confidence=0.9)


def test_bootstrap_interval_of_a_mean_has_its_known_width_and_coverage():
    inside = 0
    for seed in range(200):
        sample = torch.randn(60, generator=seeded(seed), dtype=torch.float64)
        low, high = bootstrap_interval(
            lambda ids, sample=sample: sample[ids].mean().item(),
            60,
            samples=200,
            confidence=0.9,
            generator=seeded(seed),
        )
        inside += low <= 0 <= high
    assert (
        165 <= inside <= 192
    )  # 180 expected; 4 standard deviations of the coin, and percentile's known slight narrowness


def test_bootstrap_interval_refuses_one_token():
    with pytest.raises(ValueError, match="at least two"):
        bootstrap_interval(lambda ids: 0.0, 1, generator=seeded())


def test_null_band_encloses_ordinary_groups_of_the_same_size():
    population = torch.arange(1000.0)
    band = null_band(lambda ids: population[ids].mean().item(), 1000, size=50, samples=400, generator=seeded())
    assert band.low < 499.5 < band.high
    assert band.median == pytest.approx(499.5, abs=8)
    expected = 2 * 1.96 * (1000 / 12**0.5) / 50**0.5 * (950 / 999) ** 0.5  # of a mean without replacement
    assert band.high - band.low == pytest.approx(expected, rel=0.12)
    whole = null_band(lambda ids: population[ids].sum().item(), 1000, size=1000, samples=3, generator=seeded())
    assert whole.low == whole.median == whole.high == population.sum()


def test_null_band_repeats_with_the_seed_and_refuses_too_large_a_group():
    def band(seed):
        return null_band(lambda ids: ids.double().mean().item(), 100, size=5, samples=9, generator=seeded(seed))

    assert band(1) == band(1) != band(2)
    with pytest.raises(ValueError, match="cannot draw 11 of 10"):
        null_band(lambda ids: 0.0, 10, size=11, generator=seeded())
