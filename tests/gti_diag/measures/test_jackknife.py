import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gti_diag.measures.jackknife import jackknife_interval, leave_one_out_pearson
from gti_diag.measures.rsa import pearson_rsa, rsa_interval


def spaces(tokens: int, seed: int, shared: float = 0.7):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(tokens, 9, generator=generator, dtype=torch.float64)
    return x + 0.3, shared * x[:, :4] + torch.randn(tokens, 4, generator=generator, dtype=torch.float64)


@given(tokens=st.integers(4, 30), seed=st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_each_value_is_the_rsa_without_that_token(tokens, seed):
    x, y = spaces(tokens, seed)
    kept = [torch.arange(tokens) != i for i in range(tokens)]
    assert leave_one_out_pearson(x, y).tolist() == pytest.approx([pearson_rsa(x[k], y[k]) for k in kept], abs=1e-9)


def test_the_interval_agrees_with_redrawing_tokens_and_is_not_narrower():
    x, y = spaces(600, 1)
    low, high = jackknife_interval(x, y)
    other = rsa_interval(x, y, samples=400, generator=torch.Generator().manual_seed(0))
    assert low < pearson_rsa(x, y) < high
    assert (high - low) == pytest.approx(other[1] - other[0], rel=0.25)


def test_unrelated_spaces_cover_zero_about_as_often_as_claimed():
    trials = [jackknife_interval(*spaces(120, seed, shared=0.0)) for seed in range(100)]
    assert sum(low <= 0 <= high for low, high in trials) >= 95


def test_a_wider_confidence_gives_a_wider_interval_and_nonsense_is_refused():
    x, y = spaces(40, 3)
    narrow, wide = jackknife_interval(x, y, confidence=0.8), jackknife_interval(x, y, confidence=0.99)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]
    with pytest.raises(ValueError, match="it must lie between 0 and 1"):
        jackknife_interval(x, y, confidence=1.0)
    with pytest.raises(ValueError, match="at least 4"):
        jackknife_interval(x[:3], y[:3])
    with pytest.raises(ValueError, match="equally dissimilar"):
        leave_one_out_pearson(torch.eye(8, dtype=torch.float64), y[:8])
