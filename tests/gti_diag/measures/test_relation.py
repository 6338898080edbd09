import math

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given
from hypothesis import strategies as st

from gti_diag.measures import relation, spectra
from tests import references, strategies
from tests.conftest import vocabulary_like


def orthonormal(dim, rank, seed):
    return strategies.rotation(dim, seed)[:, :rank]


# --- places and norms


def test_centroid_distance_is_in_the_other_groups_spread():
    text = vocabulary_like(500, 16)
    mean, spread = text.double().mean(0), references.dispersion(text.double().numpy())
    offset = torch.zeros(16, dtype=torch.float64)
    offset[3] = 2.5 * spread
    found = relation.centroid_distance(text.double() + offset, mean=mean, dispersion=spread)
    assert found == pytest.approx(2.5)
    assert relation.centroid_distance(text, mean=mean, dispersion=spread) == pytest.approx(0, abs=1e-9)
    with pytest.raises(ValueError, match="needs both positive"):
        relation.centroid_distance(text, mean=mean, dispersion=0.0)


@given(shift=st.floats(-3, 3), scale=st.floats(0.1, 10))
def test_norm_shift_ignores_units(shift, scale):
    norms = np.linspace(1, 2, 50)
    found = relation.norm_shift(
        float(np.mean(scale * (norms + shift))), mean=float(np.mean(scale * norms)), std=float(np.std(scale * norms))
    )
    assert found == pytest.approx(shift / np.std(norms), abs=1e-9)


def test_norm_shift_needs_a_unit():
    with pytest.raises(ValueError, match="norms are all equal"):
        relation.norm_shift(1.0, mean=2.0, std=0.0)


# --- subspaces


@given(seed=st.integers(0, 30), rank=st.integers(1, 12))
def test_subspace_energy_is_the_share_inside_and_isotropic_rows_meet_chance(seed, rank):
    axes = orthonormal(12, rank, seed)
    rows = torch.randn(4000, 12, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = relation.subspace_energy(rows, axes, mean=torch.zeros(12))
    literal = sum((float(row @ axis)) ** 2 for row in rows[:50] for axis in axes.T) / float((rows[:50] ** 2).sum())
    assert relation.subspace_energy(rows[:50], axes, mean=torch.zeros(12)).share == pytest.approx(literal)
    assert found.chance == rank / 12
    assert found.share == pytest.approx(found.chance, abs=0.03)


def test_subspace_energy_extremes():
    axes, rest = strategies.rotation(10).split([4, 6], dim=1)
    mean = torch.randn(10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    inside, outside = mean + torch.ones(3, 4).double() @ axes.T, mean + torch.ones(3, 6).double() @ rest.T
    assert relation.subspace_energy(inside, axes, mean=mean).share == pytest.approx(1)
    assert relation.subspace_energy(outside, axes, mean=mean).share == pytest.approx(0, abs=1e-12)
    with pytest.raises(ValueError, match="every row equals the mean"):
        relation.subspace_energy(mean.expand(3, -1), axes, mean=mean)


@given(seed=st.integers(0, 30), first=st.integers(1, 5), second=st.integers(1, 5))
def test_principal_angles_agree_with_scipy_and_commute(seed, first, second):
    a, b = orthonormal(9, first, seed), orthonormal(9, second, seed + 100)
    found = relation.principal_angles(a, b)
    expected = np.sort(scipy.linalg.subspace_angles(a.numpy(), b.numpy()))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-7)  # scipy takes 3e-8 for 0
    torch.testing.assert_close(relation.principal_angles(b, a), found, atol=1e-9, rtol=0)


def test_principal_angles_keep_tiny_angles_and_refuse_skewed_axes():
    tiny = 1e-9
    a = torch.eye(3, dtype=torch.float64)[:, :1]
    b = torch.tensor([[math.cos(tiny)], [math.sin(tiny)], [0.0]], dtype=torch.float64)
    assert float(relation.principal_angles(a, b)) == pytest.approx(tiny, rel=1e-6)  # arccos alone gives 0
    with pytest.raises(ValueError, match="second subspace are not orthonormal"):
        relation.principal_angles(a, 2 * b)


# --- Mahalanobis


@given(rows=strategies.rows(least=30, most=60, widest=6), seed=st.integers(0, 20))
def test_mahalanobis_is_literal_and_affine_invariant(rows, seed):
    mean, covariance = rows.mean(0), torch.cov(rows.T, correction=0)
    queries = rows[:5] + 1
    found = relation.mahalanobis(queries, mean=mean, covariance=covariance)
    literal = references.mahalanobis(queries.numpy(), mean.numpy(), covariance.numpy())
    np.testing.assert_allclose(found.numpy(), literal, rtol=1e-6)
    own = relation.mahalanobis(rows, mean=mean, covariance=covariance)
    assert float((own**2).mean()) == pytest.approx(rows.shape[1], rel=1e-6)
    mixing = strategies.rotation(rows.shape[1], seed) * torch.logspace(-1, 1, rows.shape[1], dtype=torch.float64)
    mixed = relation.mahalanobis(queries @ mixing, mean=mean @ mixing, covariance=mixing.T @ covariance @ mixing)
    np.testing.assert_allclose(mixed.numpy(), found.numpy(), rtol=1e-5)


def test_mahalanobis_takes_text_moments_and_refuses_singular_ones():
    text = vocabulary_like(400, 24)
    found = spectra.moments(text)
    distances = relation.mahalanobis(text, mean=found.mean, covariance=found.scatter(centred=True) / found.count)
    assert float((distances**2).mean()) == pytest.approx(24)
    covariance = found.scatter(centred=True) / found.count
    in_place = relation.mahalanobis(text, mean=found.mean, covariance=covariance, overwrite=True)
    torch.testing.assert_close(in_place, distances)
    few = spectra.moments(text[:20])
    with pytest.raises(ValueError, match="covariance is singular"):
        relation.mahalanobis(text, mean=few.mean, covariance=few.scatter(centred=True) / 20)


# --- cosines between groups


def test_cross_cosines_and_their_mean():
    x, y = vocabulary_like(30, 8), vocabulary_like(9000, 8, seed=1).bfloat16()
    literal = [[references.cosine(a, b) for b in y[:20].double().numpy()] for a in x.double().numpy()]
    np.testing.assert_allclose(relation.cross_cosine(x, y[:20]).numpy(), literal, atol=1e-12)
    assert relation.mean_cross_cosine(x, y[:20]) == pytest.approx(np.mean(literal), abs=1e-12)
    whole = float(relation.cross_cosine(x, y).mean())
    assert relation.mean_cross_cosine(x, y) == pytest.approx(whole, abs=1e-12)
    with pytest.raises(ValueError, match="row 2 is all zeros"):
        relation.cross_cosine(x, torch.diag(torch.tensor([1.0, 1, 0, 1, 1, 1, 1, 1])))
    with pytest.raises(ValueError, match="0 rows: a sum of directions"):
        relation.mean_cross_cosine(x[:0], x)


# --- nearest


@pytest.fixture(params=[False, True], ids=["float32", "bfloat16"])
def path(request, monkeypatch):
    """Both searches, on any processor."""
    monkeypatch.setattr(relation, "_multiplies_bfloat16", lambda device: request.param)
    monkeypatch.setattr(relation, "TILE_NUMBERS", 2048)
    monkeypatch.setattr(relation, "QUERY_ROWS", 16)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("hug", [1.0, 0.01], ids=["spread", "crowded"])
def test_nearest_is_the_sorted_cosine(path, dtype, hug):
    """Crowded candidates differ by less than bfloat16 resolves: those queries must be searched again."""
    text = (vocabulary_like(1, 32) + hug * vocabulary_like(700, 32, seed=1)).to(dtype)
    queries = vocabulary_like(50, 32, seed=2)
    exact = relation.cross_cosine(queries, text).sort(dim=1, descending=True)
    for candidates in (text, list(text.split(150))):
        found = relation.nearest(queries, candidates, k=7)
        torch.testing.assert_close(found.cosine, exact.values[:, :7], atol=3e-7, rtol=0)
        assert float((found.index == exact.indices[:, :7]).double().mean()) > 0.99
        own = relation.cross_cosine(queries, text).gather(1, found.index)
        torch.testing.assert_close(found.cosine, own, atol=3e-7, rtol=0)


def test_narrow_rows_are_scored_some_at_a_time(monkeypatch):
    scored = []
    merge = relation._merge
    monkeypatch.setattr(
        relation, "_merge", lambda *parts, keys, **rest: (scored.append(len(keys)), merge(*parts, keys=keys, **rest))
    )
    relation.nearest(torch.rand(3, 2), torch.rand(relation.TILE_ROWS + 5, 2), k=1)
    assert sorted(set(scored)) == [5, relation.TILE_ROWS]


def test_nearest_finds_itself_and_never_a_dead_row(path):
    text = vocabulary_like(40, 16)
    text[[0, 39]] = 0
    found = relation.nearest(text[1:39], text, k=38)
    assert found.index[:, 0].tolist() == list(range(1, 39))
    assert set(found.index.flatten().tolist()) == set(range(1, 39))
    assert found.cosine[:, 0].tolist() == pytest.approx([1.0] * 38, abs=1e-6)
    with pytest.raises(ValueError, match="k = 39 nearest among 38 candidates"):
        relation.nearest(text[1:3], text, k=39)


def test_nearest_refuses_what_it_cannot_search(path):
    text = vocabulary_like(40, 16)
    with pytest.raises(ValueError, match="one-shot iterator"):
        relation.nearest(text, iter(text.split(7)), k=3)
    with pytest.raises(ValueError, match="k = 0 nearest"):
        relation.nearest(text, text, k=0)
    with pytest.raises(ValueError, match="row 0 is all zeros"):
        relation.nearest(torch.zeros(1, 16), text, k=1)


# --- drift


def test_drift_says_which_rows_moved_and_how_far():
    old = vocabulary_like(9000, 8).bfloat16()
    old[5] = 0
    new = old.clone()
    new[[7, 8999]] *= 2
    new[8] *= -1
    found = relation.drift(old, new)
    assert found.moved.tolist() == [7, 8, 8999]
    assert found.relative[[5, 6, 7, 8]].tolist() == pytest.approx([0, 0, 1, 2])
    assert found.distance[7] == pytest.approx(float(old[7].double().norm()))
    assert found.cosine[[6, 7, 8]].tolist() == pytest.approx([1, 1, -1])
    assert math.isnan(found.cosine[5])
    new[5] = 1
    assert relation.drift(old, new).relative[5] == math.inf


def test_drift_of_one_place_in_bfloat16_is_seen_and_shapes_must_match():
    old = torch.ones(3, 4, dtype=torch.bfloat16)
    new = old.clone()
    new[1, 2] = 1.0078125
    assert relation.drift(old, new).moved.tolist() == [1]
    with pytest.raises(ValueError, match=r"drift of \(3, 4\) against \(2, 4\)"):
        relation.drift(old, new[:2])
