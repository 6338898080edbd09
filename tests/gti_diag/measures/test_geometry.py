import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gti_diag.measures import geometry
from tests import references, strategies
from tests.conftest import vocabulary_like

ROW_MEASURES = [geometry.centroid, geometry.dispersion, geometry.median_dispersion]


@given(rows=strategies.rows(most=25))
def test_spread_and_cosines_are_their_literal_definitions(rows):
    literal = rows.numpy()
    assert geometry.dispersion(rows) == pytest.approx(references.dispersion(literal), rel=1e-9)
    assert geometry.median_dispersion(rows) == pytest.approx(references.median_dispersion(literal), rel=1e-9)
    assert geometry.mean_cosine(rows) == pytest.approx(references.mean_cosine(literal), abs=1e-9)
    centred = references.mean_cosine(literal - literal.mean(0))
    assert geometry.mean_cosine(rows, centred=True) == pytest.approx(centred, abs=1e-9)
    np.testing.assert_allclose(geometry.centroid(rows).numpy(), literal.mean(0), atol=1e-12)
    np.testing.assert_allclose(geometry.norms(rows).numpy(), np.linalg.norm(literal, axis=1), rtol=1e-12)


@given(rows=strategies.rows(), scale=st.floats(0.01, 100))
def test_rotation_scale_order_and_translation(rows, scale):
    turned = scale * (rows @ strategies.rotation(rows.shape[1])).flip(0)
    assert geometry.dispersion(turned) == pytest.approx(scale * geometry.dispersion(rows), rel=1e-9)
    assert geometry.dispersion(rows + 1) == pytest.approx(geometry.dispersion(rows), rel=1e-9)
    assert geometry.mean_cosine(turned) == pytest.approx(geometry.mean_cosine(rows), abs=1e-9)
    # n rows cannot all point apart: the mean of their cosines is at least −1/(n − 1).
    assert -1 / (len(rows) - 1) - 1e-9 <= geometry.mean_cosine(rows) <= 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("count", [1, 2, 1000, 9000])
def test_identical_rows_have_exactly_no_spread(dtype, count):
    rows = torch.randn(48, generator=torch.Generator().manual_seed(1)).to(dtype).expand(count, -1)
    assert geometry.dispersion(rows) == 0
    assert geometry.median_dispersion(rows) == 0
    assert geometry.unique_rows(rows) == 1
    if count > 1:
        assert geometry.mean_cosine(rows) == pytest.approx(1, abs=1e-12)
        with pytest.raises(ValueError, match="row 0 equals the centre"):
            geometry.mean_cosine(rows, centred=True)


def test_one_outlier_fools_the_mean_square_but_not_the_median():
    text = vocabulary_like(1024, 32)
    rows = text.mean(0).expand(1024, -1).clone()
    rows[17] += 100 * text.std()
    assert geometry.dispersion(rows) / geometry.dispersion(text) > 0.3
    assert geometry.median_dispersion(rows) == 0
    assert geometry.unique_rows(rows) == 2


def test_near_identical_rows_keep_their_cosines():
    """1 − cos is 1e-9 here: float32 cosines of these rows would be rounding noise."""
    rows = vocabulary_like(1, 64) + 3e-6 * vocabulary_like(200, 64, seed=1)
    exact = references.mean_cosine(rows.double().numpy())
    assert 1 - exact < 1e-8
    assert 1 - geometry.mean_cosine(rows) == pytest.approx(1 - exact, rel=1e-5)
    centred = rows.double().numpy() - rows.double().numpy().mean(0)
    assert geometry.mean_cosine(rows, centred=True) == pytest.approx(references.mean_cosine(centred), abs=1e-7)


# --- distinct rows


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@given(picks=st.lists(st.integers(0, 9), min_size=1, max_size=60))
def test_unique_rows_counts_what_a_set_counts(dtype, picks):
    rows = vocabulary_like(10, 16).to(dtype)[torch.tensor(picks)]
    assert geometry.unique_rows(rows) == len(set(picks))
    assert geometry.unique_rows(iter(rows.split(7))) == len(set(picks))


def test_unique_rows_compares_values_not_bits_and_one_place_is_enough():
    assert geometry.unique_rows(torch.tensor([[0.0, 1.0], [-0.0, 1.0]])) == 1
    one = torch.tensor([1.0, 2.0])
    assert geometry.unique_rows(torch.stack([one, torch.nextafter(one, one + 1)])) == 2
    assert geometry.unique_rows(torch.empty(0, 4)) == 0


# --- the precision floor


@pytest.mark.parametrize(
    ("dtype", "ulp"), [(torch.float32, 2.0**-23), (torch.bfloat16, 2.0**-7), (torch.float16, 2.0**-10)]
)
def test_the_floor_is_half_an_ulp_of_the_mean(dtype, ulp):
    rows = torch.full((3, 16), 1.5)
    assert geometry.precision_floor(rows, dtype) == pytest.approx(0.5 * ulp * 4)
    assert geometry.precision_floor(rows * 4, dtype) == pytest.approx(0.5 * ulp * 4 * 4)
    assert geometry.precision_floor(rows * 0, dtype) > 0  # the spacing of subnormal numbers


@given(seed=st.integers(0, 50), spread=st.floats(1e-9, 1e-4))
def test_rounding_alone_stays_below_the_floor_and_real_spread_above(seed, spread):
    generator = torch.Generator().manual_seed(seed)
    point = torch.randn(64, generator=generator, dtype=torch.float64)
    noise = torch.randn(300, 64, generator=generator, dtype=torch.float64)
    hugging = (point * (1 + spread * noise)).bfloat16()
    assert geometry.dispersion(hugging) <= geometry.precision_floor(hugging, torch.bfloat16)
    apart = (point * (1 + 0.1 * noise)).bfloat16()
    assert geometry.dispersion(apart) > 5 * geometry.precision_floor(apart, torch.bfloat16)


# --- cosines


def test_cosine_matrix_is_symmetric_with_ones_and_exact():
    rows = vocabulary_like(30, 8)
    found = geometry.cosine_matrix(rows)
    literal = [[references.cosine(x, y) for y in rows.double().numpy()] for x in rows.double().numpy()]
    np.testing.assert_allclose(found.numpy(), literal, atol=1e-12)
    assert torch.equal(found, found.T)
    assert bool((found.diagonal() == 1).all())


@given(seed=st.integers(0, 50), blocks=st.integers(1, 4))
def test_block_means_are_means_over_pairs(seed, blocks):
    rows = vocabulary_like(21, 6, seed=seed)
    labels = torch.arange(21) % blocks
    found = geometry.block_mean_cosine(rows, labels)
    for a in range(blocks):
        for b in range(blocks):
            literal = references.block_mean_cosine(rows.double().numpy(), labels.tolist(), a, b)
            assert float(found[a, b]) == pytest.approx(literal, abs=1e-9)
    centre = geometry.centroid(rows)
    about = geometry.block_mean_cosine(rows, labels, centre=centre)
    torch.testing.assert_close(about, geometry.block_mean_cosine(rows.double() - centre, labels), rtol=0, atol=1e-12)


def test_one_block_is_the_mean_cosine_and_a_lone_row_has_none():
    rows = vocabulary_like(9, 6)
    whole = geometry.block_mean_cosine(rows, torch.zeros(9, dtype=torch.long))
    assert whole.item() == pytest.approx(geometry.mean_cosine(rows))
    assert bool(geometry.block_mean_cosine(rows[:1], torch.tensor([0])).isnan().all())


def test_directions_of_centred_rows_have_length_one():
    rows = vocabulary_like(9000, 8).bfloat16()
    units = geometry.directions(rows, centre=geometry.centroid(rows))
    assert units.dtype == torch.float32
    torch.testing.assert_close(units.norm(dim=1), torch.ones(9000))


# --- refusals


@pytest.mark.parametrize("measure", ROW_MEASURES)
def test_no_rows_have_no_spread(measure):
    with pytest.raises(ValueError, match=r"0 rows: .* needs at least 1"):
        measure(torch.empty(0, 4))


def test_cosines_refuse_zero_rows_by_their_number_and_single_rows():
    rows = vocabulary_like(8200, 4)
    rows[8195] = 0
    blocks = torch.zeros(8200, dtype=torch.long)
    for measure in (geometry.mean_cosine, geometry.directions, lambda x: geometry.block_mean_cosine(x, blocks)):
        with pytest.raises(ValueError, match="row 8195 is all zeros"):
            measure(rows)
    with pytest.raises(ValueError, match="row 3 is all zeros"):
        geometry.cosine_matrix(rows[8192:])
    with pytest.raises(ValueError, match="1 rows: mean cosine needs at least 2"):
        geometry.mean_cosine(rows[:1])


def test_block_numbers_are_checked():
    rows = vocabulary_like(4, 4)
    with pytest.raises(ValueError, match="3 block numbers for 4 rows"):
        geometry.block_mean_cosine(rows, torch.tensor([0, 0, 1]))
    with pytest.raises(ValueError, match="block 1 has no rows"):
        geometry.block_mean_cosine(rows, torch.tensor([0, 0, 2, 2]))


def test_no_measure_writes_to_its_rows():
    rows = vocabulary_like(20, 6).double()
    kept = rows.clone()
    geometry.mean_cosine(rows)
    geometry.directions(rows)
    geometry.cosine_matrix(rows)
    geometry.block_mean_cosine(rows, torch.arange(20) % 2)
    geometry.median_dispersion(rows)
    assert torch.equal(rows, kept)
