import contextlib
import io

import numpy as np
import pytest
import skdim
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from IsoScore.IsoScore import IsoScore

from gti_diag.measures import dimension, spectra
from tests import references, strategies
from tests.conftest import vocabulary_like


def plane(count, intrinsic, ambient, seed=0):
    """Rows that fill an `intrinsic`-dimensional cube, turned into `ambient` dimensions."""
    flat = torch.rand(count, intrinsic, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return flat @ strategies.rotation(ambient, seed)[:intrinsic]


def isoscore(rows):
    return dimension.isoscore(spectra.singular_values(rows, centred=True), rows.shape[1])


# --- IsoScore


@given(rows=strategies.rows(least=3))
def test_isoscore_is_the_papers_algorithm(rows):
    assert isoscore(rows) == pytest.approx(references.isoscore(rows.numpy()), abs=1e-8)


@pytest.mark.parametrize("count", [30, 2000], ids=["fewer rows than dimensions", "more"])
def test_isoscore_agrees_with_its_authors_package(count):
    rows = vocabulary_like(count, 64).double()
    with contextlib.redirect_stderr(io.StringIO()):
        theirs = float(IsoScore(rows.numpy()))
    assert isoscore(rows) == pytest.approx(theirs, abs=1e-6)


@given(rows=strategies.rows(least=3), scale=st.floats(0.01, 100))
def test_isoscore_ignores_scale_rotation_and_translation_and_stays_in_range(rows, scale):
    moved = scale * (rows @ strategies.rotation(rows.shape[1])) + 2
    assert isoscore(moved) == pytest.approx(isoscore(rows), abs=1e-6)
    assert -1e-12 <= isoscore(rows) <= 1 + 1e-12


def test_isoscore_extremes_and_refusals():
    assert dimension.isoscore(torch.ones(6), 6) == pytest.approx(1)
    assert dimension.isoscore(torch.tensor([3.0]), 6) == 0
    with pytest.raises(ValueError, match="no isotropy is defined"):
        isoscore(torch.ones(5, 4))
    with pytest.raises(ValueError, match="dim = 2 for 3 singular values"):
        dimension.isoscore(torch.ones(3), 2)


# --- uniformity


@given(rows=strategies.rows(most=20), temperature=st.floats(0.1, 4))
def test_uniformity_is_literal_and_ignores_row_lengths(rows, temperature):
    expected = references.uniformity(rows.numpy(), temperature)
    assert dimension.uniformity(rows, temperature=temperature) == pytest.approx(expected, abs=1e-5)
    longer = rows * torch.arange(1, len(rows) + 1)[:, None]
    assert dimension.uniformity(longer, temperature=temperature) == pytest.approx(expected, abs=1e-5)


def test_uniformity_over_several_tiles(monkeypatch):
    rows = vocabulary_like(50, 8)
    whole = dimension.uniformity(rows)
    monkeypatch.setattr(dimension, "TILE_ROWS", 16)
    assert dimension.uniformity(rows) == pytest.approx(whole, abs=1e-6)
    assert whole == pytest.approx(references.uniformity(rows.double().numpy(), 2), abs=1e-5)


def test_uniformity_extremes_and_refusals():
    assert dimension.uniformity(torch.ones(9, 4)) == pytest.approx(0, abs=1e-6)
    many = torch.randn(2000, 512, generator=torch.Generator().manual_seed(0))
    assert dimension.uniformity(many) == pytest.approx(-4, abs=0.05)
    with pytest.raises(ValueError, match="1 rows: uniformity needs at least two"):
        dimension.uniformity(torch.ones(1, 4))
    with pytest.raises(ValueError, match="row 2 is all zeros"):
        dimension.uniformity(torch.tensor([[1.0, 0], [0, 1], [0, 0]]))


# --- TwoNN


@settings(max_examples=25)
@given(rows=strategies.rows(least=10), scale=st.sampled_from([1e-20, 1e-3, 1e6]))
def test_two_nn_is_literal_and_ignores_scale(rows, scale):
    expected = references.two_nn(rows.numpy())
    assert dimension.two_nn(rows) == pytest.approx(expected, rel=1e-8)
    assert dimension.two_nn(rows * scale) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize(("intrinsic", "ambient"), [(2, 10), (5, 40), (12, 64)])
def test_two_nn_finds_the_dimension_and_agrees_with_scikit_dimension(intrinsic, ambient):
    rows = plane(1500, intrinsic, ambient)
    found = dimension.two_nn(rows)
    assert found == pytest.approx(intrinsic, rel=0.2)
    assert found == pytest.approx(skdim.id.TwoNN().fit_transform(rows.numpy()), rel=1e-6)


def test_two_nn_is_blind_to_spread_even_in_float32():
    text = plane(800, 6, 32)
    hugging = (text.mean(0) + 1e-4 * text).float()
    assert dimension.two_nn(hugging) == pytest.approx(dimension.two_nn(hugging.double()), rel=1e-6)
    assert dimension.two_nn(hugging) == pytest.approx(dimension.two_nn(text), rel=0.02)


def test_two_nn_refuses_duplicates_and_too_few():
    rows = plane(30, 3, 5)
    rows[9] = rows[4]
    with pytest.raises(ValueError, match="row 4 has an exact duplicate"):
        dimension.two_nn(rows)
    with pytest.raises(ValueError, match="3 of 3 rows kept"):
        dimension.two_nn(rows[:3], discard=0.0)
    with pytest.raises(ValueError, match="equally far everywhere"):
        dimension.two_nn(torch.eye(20))


# --- neighbours and hubs


@settings(max_examples=25)
@given(rows=strategies.rows(least=8), k=st.integers(1, 6))
def test_nearest_others_are_the_sorted_distances(rows, k):
    distance, index = dimension.nearest_others(rows, k=k)
    assert index.tolist() == references.neighbours(rows.numpy(), k)
    literal = [[np.linalg.norm(rows[i] - rows[j]) for j in row] for i, row in enumerate(index)]
    np.testing.assert_allclose(distance.numpy(), literal, rtol=1e-9)


def test_nearest_others_across_tiles(monkeypatch):
    rows = vocabulary_like(70, 8)
    monkeypatch.setattr(dimension, "TILE_ROWS", 16)
    assert dimension.nearest_others(rows, k=3)[1].tolist() == references.neighbours(rows.double().numpy(), 3)
    with pytest.raises(ValueError, match="k = 70 nearest of 69 other rows"):
        dimension.nearest_others(rows, k=70)


@settings(max_examples=25)
@given(rows=strategies.rows(least=12), k=st.integers(1, 5))
def test_hubness_is_literal(rows, k):
    try:
        expected = references.hubness(rows.numpy(), k)
    except ZeroDivisionError:
        with pytest.raises(ValueError, match="hubness is undefined"):
            dimension.hubness(rows, k=k)
        return
    assert dimension.hubness(rows, k=k) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_hubs_appear_in_high_dimension_and_a_ring_has_none():
    generator = torch.Generator().manual_seed(0)
    flat, deep = torch.randn(1000, 2, generator=generator), torch.randn(1000, 200, generator=generator)
    assert dimension.hubness(deep) > dimension.hubness(flat) + 1
    angle = torch.arange(12) * torch.pi / 6
    with pytest.raises(ValueError, match="hubness is undefined"):
        dimension.hubness(torch.stack([angle.cos(), angle.sin()], 1).double().round(decimals=6), k=2)


# --- near-duplicates


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_near_duplicates_differ_by_a_last_place(dtype):
    rows = vocabulary_like(200, 32).to(dtype)
    assert dimension.near_duplicates(rows, dtype) == 0
    rows[10] = rows[3]
    rows[11] = rows[4]
    rows[11, :8] *= 1 + torch.finfo(dtype).eps
    assert dimension.near_duplicates(rows, dtype) == 4


def test_mean_resized_rows_in_bfloat16_are_all_near_duplicates():
    text = vocabulary_like(2000, 128)
    new = (text.mean(0) + 3.16e-5 * vocabulary_like(300, 128, seed=1)).bfloat16()
    assert len({tuple(row) for row in new.float().tolist()}) > 1
    assert dimension.near_duplicates(new, torch.bfloat16) == 300
    assert dimension.near_duplicates(new, torch.float32) < 300
    with pytest.raises(ValueError, match="1 row: twins need at least two"):
        dimension.near_duplicates(new[:1], torch.bfloat16)


@pytest.mark.parametrize("spread", [1e-3, 3e-3, 5e-3, 1e-2])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_near_duplicates_are_those_of_all_pairs(spread, dtype):
    generator = torch.Generator().manual_seed(0)
    middle = torch.randn(48, generator=generator)
    rows = (middle + spread * torch.randn(400, 48, generator=generator)).to(dtype)
    wide = rows.double()
    gaps = torch.cdist(wide, wide, compute_mode="donot_use_mm_for_euclid_dist").fill_diagonal_(torch.inf)
    _, exponent = torch.frexp(wide)
    resolution = torch.finfo(dtype).eps * torch.linalg.vector_norm(2.0 ** (exponent - 1).double(), dim=1)
    assert dimension.near_duplicates(rows, dtype) == int((gaps.amin(1) <= resolution).sum())


def test_a_search_made_once_serves_all_measures_of_neighbourhoods():
    rows = vocabulary_like(300, 16)
    near = dimension.nearest_others(rows, k=10)
    assert dimension.two_nn(rows, near=near) == dimension.two_nn(rows)
    assert dimension.hubness(rows, near=near) == dimension.hubness(rows)
    with pytest.raises(ValueError, match="2 neighbours of each row: hubness needs 10"):
        dimension.hubness(rows, near=dimension.nearest_others(rows, k=2))


def test_hubness_refuses_ties_that_the_order_of_the_rows_would_decide():
    rows = vocabulary_like(16, 12).repeat(8, 1)  # the 7 copies of a row are equally near
    with pytest.raises(ValueError, match="128 rows have neighbours 4 and 5 equally far"):
        dimension.hubness(rows, k=4)
    few = vocabulary_like(200, 12)
    few[:2] = few[2]
    assert dimension.hubness(few, k=4) > 0
