"""Near zero and giant rows, by the gap between norms."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gti_diag.measures import norm_gap

NORMS = torch.linspace(0.8, 2.0, 500, dtype=torch.float64)


def literal(norms):
    """The definition, loops and all."""
    ordered = sorted(float(norm) for norm in norms if norm > 0)
    middle, quarter = ordered[len(ordered) // 2], ordered[len(ordered) // 4]
    least = min(math.log(100), max(math.log(4), 4 * math.log(middle / quarter)))
    found = None
    for place in range(len(ordered) // 2):
        if math.log(ordered[place + 1] / ordered[place]) >= least:
            found = (ordered[place], ordered[place + 1], place + 1)
    return found


@given(st.lists(st.floats(1e-20, 0.5), max_size=40))
def test_the_gap_is_the_definition(short):
    norms = torch.cat([NORMS, torch.tensor(short, dtype=torch.float64)])
    found = norm_gap.low_gap(norms)
    expected = literal(norms)
    assert (found is None) == (expected is None)
    if found is not None:
        assert (found.low, found.high) == pytest.approx(expected[:2]) and found.beyond == expected[2]


@given(st.floats(1e-6, 1e6))
def test_no_scale_matters(scale):
    norms = torch.cat([NORMS, torch.tensor([1e-3, 1e-17], dtype=torch.float64)])
    assert norm_gap.low_gap(norms * scale).beyond == norm_gap.low_gap(norms).beyond == 2


def test_equal_norms_have_no_gap_and_one_short_row_makes_one():
    assert norm_gap.low_gap(torch.full((300,), 1.031)) is None
    assert norm_gap.low_gap(torch.cat([torch.full((300,), 1.031), torch.tensor([0.1])])).beyond == 1


def test_zeros_are_left_out_and_few_norms_have_no_distribution():
    assert norm_gap.low_gap(torch.cat([NORMS, torch.zeros(3)])) is None
    assert norm_gap.low_gap(torch.tensor([1.0, 1e-9])) is None


def test_giants_are_the_mirror_image():
    norms = torch.cat([NORMS, torch.tensor([40.0, 55.0])])
    found = norm_gap.high_gap(norms)
    assert (found.low, found.high, found.beyond) == (pytest.approx(2.0), pytest.approx(40.0), 2)
    assert norm_gap.high_gap(NORMS) is None


@pytest.mark.parametrize("wrong", [-1.0, math.nan, math.inf])
def test_a_norm_that_is_none_is_refused(wrong):
    with pytest.raises(ValueError, match="negative, NaN or infinite"):
        norm_gap.low_gap(torch.tensor([1.0, wrong]))
