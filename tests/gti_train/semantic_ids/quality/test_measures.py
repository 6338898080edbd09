"""Each measure of codes equals its literal reference, and chance looks like chance."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tests.strategies  # noqa: F401  no deadlines
from gti_train.semantic_ids.quality import agreement, usage
from gti_train.semantic_ids.quality.churn import churn
from gti_train.semantic_ids.quality.prefixes import depths

tables = st.integers(0, 10**6).map(lambda seed: np.random.default_rng(seed).integers(0, 3, (12, 3)))


@given(tables)
def test_prefixes_are_those_that_occur(codes):
    for depth in depths(codes):
        prefixes = [tuple(row[: depth.depth]) for row in codes.tolist()]
        assert sorted(depth.counts.tolist()) == sorted(prefixes.count(prefix) for prefix in set(prefixes))
        for one, other in combinations(range(12), 2):
            assert (depth.labels[one] == depth.labels[other]) == (prefixes[one] == prefixes[other])
        children = {prefix[:-1]: len({p for p in prefixes if p[:-1] == prefix[:-1]}) for prefix in prefixes}
        assert sorted(depth.fan_out.tolist()) == sorted(children.values())
        shown = usage.structure(depth)
        assert shown["alone"] == pytest.approx(sum(prefixes.count(prefix) == 1 for prefix in prefixes) / 12)


@given(st.lists(st.integers(0, 4), min_size=2, max_size=30))
def test_level_use_is_counted(codes):
    found = usage.level_use(np.array(codes), 5)
    shares = [codes.count(code) / len(codes) for code in set(codes)]
    pairs = list(combinations(codes, 2))
    assert found["used"] == len(set(codes)) and found["largest"] == max(map(codes.count, codes))
    assert found["perplexity"] == pytest.approx(np.prod([share**-share for share in shares]))
    assert found["overlap"] == pytest.approx(sum(a == b for a, b in pairs) / len(pairs))
    assert 1 - 1e-9 <= found["perplexity"] <= found["used"] + 1e-9


def test_few_items_cannot_reach_many_codes():
    random = np.random.default_rng(0)
    drawn = np.mean([len(set(random.integers(0, 64, 40).tolist())) for _ in range(400)])
    assert usage.level_use(np.zeros(40, dtype=int), 64)["reachable"] == pytest.approx(drawn, rel=0.02)


def test_even_levels_carry_their_sizes():
    levels = [usage.level_use(np.arange(32) % 8, 8), usage.level_use(np.arange(32) % 4, 4)]
    found = usage.capacity(levels)
    assert found["bits"] == pytest.approx(found["bits_of_the_sizes"]) == 5


@given(tables, st.integers(0, 10**6))
def test_shares_of_the_code_space_are_fair_on_average(codes, seed):
    popularity = np.random.default_rng(seed).integers(0, 50, 12)
    for depth in depths(codes):
        shares = usage.popular_shares(depth, popularity)
        sizes = {"head": 2, "middle": 4, "tail": 6}
        assert sum(shares[name] * size for name, size in sizes.items()) == pytest.approx(12)


def test_crowded_popular_items_have_little_space():
    codes, popularity = np.array([[0]] * 6 + [[1], [2], [3], [4]]), np.array([9] * 6 + [0] * 4)
    shares = usage.popular_shares(next(depths(codes)), popularity)
    assert shares["head"] == pytest.approx((2 / 6 / 5) * 10 / 2) and shares["tail"] > 1


@given(st.integers(0, 10**6))
def test_coherence_is_the_mean_cosine_to_the_others(seed):
    random = np.random.default_rng(seed)
    vectors, labels = agreement.directions(random.normal(size=(14, 3))), random.integers(0, 4, 14)
    means = []
    for row in range(14):
        others = [
            float(vectors[row] @ vectors[other]) for other in range(14) if other != row and labels[other] == labels[row]
        ]
        if others:
            means.append(np.mean(others))
    assert agreement.coherence(vectors, labels) == pytest.approx(np.mean(means))


def test_items_that_are_alone_have_no_coherence():
    assert agreement.coherence(np.eye(3), np.arange(3)) is None
    with pytest.raises(ValueError, match="equals the mean"):
        agreement.directions(np.ones((3, 2)))


def test_next_choices_stay_inside_a_history_and_skip_repeats():
    starts, rows = np.array([0, 3, 3, 5]), np.array([4, 4, 1, 2, 0])
    first, second = agreement.next_pairs(starts, rows)
    assert list(zip(first.tolist(), second.tolist(), strict=True)) == [(4, 1), (2, 0)]
    assert agreement.together((first, second), np.array([7, 6, 7, 5, 5])) == 0.5
    assert agreement.together(agreement.next_pairs(np.array([0]), np.array([], dtype=int)), np.zeros(0)) is None


def test_a_level_that_says_nothing_new_does_not_pass_for_one_that_does():
    random = np.random.default_rng(0)
    centres = random.normal(size=(6, 5)) * 5
    first = np.repeat(np.arange(6), 40)
    vectors = agreement.directions(centres[first] + random.normal(size=(240, 5)))
    codes = np.stack([first, random.integers(0, 4, 240)], axis=1)
    found = [
        agreement.against_chance(lambda labels: agreement.coherence(vectors, labels), depth, seed=1)
        for depth in depths(codes)
    ]
    assert found[0]["p_value"] == 0.01 and found[0]["value"] > found[0]["interval"][1]
    assert found[1]["value"] > 0.5 and found[1]["p_value"] > 0.01  # near only because of level 1


@settings(max_examples=15)
@given(tables, tables)
def test_churn_counts_items_and_pairs(one, other):
    for entry in churn(one, other):
        depth = entry["depth"]
        left, right = ([tuple(row[:depth]) for row in codes.tolist()] for codes in (one, other))
        assert entry["kept"] == pytest.approx(np.mean([a == b for a, b in zip(left, right, strict=True)]))
        pairs = [{(i, j) for i, j in combinations(range(12), 2) if side[i] == side[j]} for side in (left, right)]
        union = pairs[0] | pairs[1]
        assert entry["pairs_kept"] == (pytest.approx(len(pairs[0] & pairs[1]) / len(union)) if union else None)


def test_renumbered_codes_keep_their_pairs():
    codes = np.random.default_rng(1).integers(0, 4, (30, 2))
    entry = churn(codes, 3 - codes)[0]
    assert entry["kept"] == 0 and entry["pairs_kept"] == 1
    with pytest.raises(ValueError, match="30 items in one mapping, 2"):
        churn(codes, codes[:2])
