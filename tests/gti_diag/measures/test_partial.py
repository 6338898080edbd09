from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gti_diag.measures.partial import _partial, agreement
from gti_diag.measures.permute import pair_products, shuffles
from gti_diag.measures.rsa import pearson_rsa
from tests import references_rsa as literal


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def spaces(tokens: int, seed: int, shared: float = 0.7):
    generator = seeded(seed)
    x = torch.randn(tokens, 9, generator=generator, dtype=torch.float64)
    y = shared * x[:, :4] + torch.randn(tokens, 4, generator=generator, dtype=torch.float64)
    return x + 0.3, y, torch.randint(0, 40, (tokens,), generator=generator)


def levels_of(*sizes: int):
    return torch.cat([torch.full((size,), level) for level, size in enumerate(sizes, 1)])


@given(tokens=st.integers(12, 18), seed=st.integers(0, 10_000), apart=st.sampled_from([(), (1,), (1, 3)]))
@settings(max_examples=25, deadline=None)
def test_the_value_is_the_correlation_of_what_regression_over_pairs_leaves(tokens, seed, apart):
    x, y, counts = spaces(tokens, seed)
    levels = levels_of(4, 4, tokens - 8)
    for held in (None, counts):
        expected = literal.partial(x, y, held, levels.tolist(), apart)
        assert agreement(x, y, counts=held, levels=levels, apart=apart).value == pytest.approx(expected, abs=1e-9)


@given(tokens=st.integers(5, 20), seed=st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_one_level_without_counts_is_plain_rsa_of_centred_rows(tokens, seed):
    x, y, _ = spaces(tokens, seed)
    expected = pearson_rsa(x - x.mean(0), y - y.mean(0))
    assert agreement(x, y).value == pytest.approx(expected, abs=1e-9)
    moved = agreement(3 * x + 100, 2 * y - 7)
    assert moved.value == pytest.approx(expected, abs=1e-9)
    assert agreement(y, x).value == pytest.approx(expected, abs=1e-9)


def test_equal_counts_hold_nothing():
    x, y, _ = spaces(20, 1)
    held = agreement(x, y, counts=torch.full((20,), 7))
    assert len(held.held) == 0 and held.value == agreement(x, y).value


def test_two_spaces_that_agree_on_counts_alone_agree_no_longer_when_these_are_held():
    raw, held = [], []
    for seed in range(30):
        generator = seeded(seed)
        counts = (torch.rand(60, generator=generator, dtype=torch.float64) * 5).exp().round()
        shared = 0.3 * counts.log1p()[:, None]
        x, y = (torch.randn(60, 16, generator=generator, dtype=torch.float64) + shared for _ in range(2))
        raw.append(agreement(x, y).permutation_test(99, generator=generator).p_value)
        held.append(agreement(x, y, counts=counts).permutation_test(99, generator=generator).p_value)
    assert np.median(raw) == 0.01 and sum(p <= 0.05 for p in held) <= 4


def test_a_direction_that_a_level_shares_does_not_count():
    generator = seeded(4)
    levels = levels_of(20, 20)
    offset = 5 * torch.eye(16, dtype=torch.float64)[levels]
    x, y = (torch.randn(40, 16, generator=generator, dtype=torch.float64) + offset for _ in range(2))
    assert pearson_rsa(x, y) > 0.7
    assert abs(agreement(x, y, levels=levels).value) < 0.1


def test_shuffles_stay_within_levels_and_leave_levels_apart_alone():
    x, y, _ = spaces(30, 2)
    levels = levels_of(10, 10, 10)[torch.randperm(30, generator=seeded())]
    found = agreement(x, y, levels=levels, apart=(2,))
    fixed = (levels == 2).nonzero()[:, 0]
    orders = shuffles(found._labels(), 50, seeded())
    assert torch.equal(levels[orders], levels.expand(50, -1))
    assert torch.equal(orders[:, fixed], fixed.expand(50, -1))
    assert len({tuple(order) for order in orders.tolist()}) == 50
    assert not bool(found.first[fixed[:, None], fixed].any())


@given(seed=st.integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_the_null_is_the_value_on_residuals_in_another_order(seed):
    x, y, counts = spaces(14, seed)
    found = agreement(x, y, counts=counts)
    orders = shuffles(found._labels(), 5, seeded(seed))
    products = pair_products(torch.cat([found.first[None], found.held]), found.second, orders)
    for value, order in zip(_partial(products).tolist(), orders, strict=True):
        moved = found.second[order][:, order]
        pairs = list(combinations(range(14), 2))
        covariates = literal.covariates(counts.tolist(), pairs)
        left = literal.residuals([moved[i, j].item() for i, j in pairs], covariates)
        fixed = [found.first[i, j].item() for i, j in pairs]
        assert value == pytest.approx(np.corrcoef(fixed, left)[0, 1], abs=1e-9)


def test_structure_on_one_level_is_no_structure_beyond_it():
    levels = levels_of(24, 24)
    shuffled = []
    for seed in range(40):
        x, y, _ = spaces(48, seed, shared=3.0)
        y[24:] = torch.randn(24, 4, generator=seeded(seed), dtype=torch.float64)
        beyond = agreement(x, y, levels=levels, apart=(1,)).permutation_test(99, generator=seeded(seed))
        assert agreement(x, y, levels=levels).permutation_test(99, generator=seeded(seed)).p_value <= 0.05
        shuffled.append(beyond.p_value)
    assert 0.3 < np.mean(shuffled) < 0.7 and min(shuffled) < 0.2


def test_arrangements_that_differ_are_counted_by_the_shuffles_that_match_as_well():
    clusters = torch.eye(2, dtype=torch.float64).repeat_interleave(4, 0)
    rows = clusters @ torch.randn(2, 6, generator=seeded(), dtype=torch.float64)
    found = agreement(rows, clusters)
    test = found.permutation_test(1999, generator=seeded(1))
    assert found.value == pytest.approx(1)
    assert test.arrangements == pytest.approx(35, rel=0.3) and test.p_value == pytest.approx(1 / 35, rel=0.3)
    x, y, _ = spaces(12, 0)
    assert agreement(x, y).permutation_test(199, generator=seeded()).arrangements == float("inf")


def test_intervals_cover_the_value_of_the_population():
    whole = spaces(1500, 5)
    truth = agreement(whole[0], whole[1], counts=whole[2]).value
    covered = 0
    for seed in range(40):
        some = torch.randperm(1500, generator=seeded(seed))[:40]
        found = agreement(whole[0][some], whole[1][some], counts=whole[2][some])
        low, high = found.interval(200, generator=seeded(seed))
        covered += low <= truth <= high
    assert covered >= 34


@pytest.mark.parametrize(
    "change,match",
    [
        (lambda x, y, c: agreement(x[:3], y[:3]), "at least 4"),
        (lambda x, y, c: agreement(x, y, counts=c[:5]), "5 counts for 20 tokens"),
        (lambda x, y, c: agreement(x, y, levels=c[:5]), "5 levels for 20 tokens"),
        (lambda x, y, c: agreement(x, y, counts=-c - 1), "finite, 0 or more"),
        (lambda x, y, c: agreement(torch.eye(20).double(), y), "nothing is left to compare"),
        (lambda x, y, c: agreement(torch.ones(20, 3).double(), y), "one point"),
        (lambda x, y, c: agreement(x, y).permutation_test(0, generator=seeded()), "at least one permutation"),
        (lambda x, y, c: agreement(x, y).interval(1, generator=seeded()), "at least 2"),
        (
            lambda x, y, c: agreement(torch.tensor([[6.0, 5], [4, 5], [5, 6], [5, 4], [5, 5]]).double(), y[:5]),
            "row 4 of x lies on the mean of its level",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_known_is_refused(change, match):
    with pytest.raises(ValueError, match=match):
        change(*spaces(20, 0))
