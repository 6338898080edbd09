import math
from itertools import pairwise

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given
from hypothesis import strategies as st

from gti_diag.measures import geometry, spectra, tiles
from gti_diag.measures.spectra import moments, singular_values
from tests import references, strategies
from tests.conftest import vocabulary_like

NAMED = {
    "effective_rank": (spectra.effective_rank, references.entropy_rank),
    "energy_effective_rank": (spectra.energy_effective_rank, lambda s: references.entropy_rank([v**2 for v in s])),
    "rankme": (spectra.rankme, lambda s: references.rankme(s, 1e-7)),
    "participation_ratio": (spectra.participation_ratio, references.participation_ratio),
    "stable_rank": (spectra.stable_rank, references.stable_rank),
}


@pytest.mark.parametrize("name", NAMED)
@given(s=strategies.spectra())
def test_each_rank_is_its_literal_definition(name, s):
    ours, reference = NAMED[name]
    assert ours(s) == pytest.approx(reference(s.tolist()), rel=1e-10)


@pytest.mark.parametrize("name", sorted(set(NAMED) - {"rankme"}))
@given(s=strategies.spectra(), scale=st.sampled_from([1e-150, 1e-9, 3.0, 1e150]))
def test_ranks_ignore_scale_and_zeros_and_count_equal_values(name, s, scale):
    measure = NAMED[name][0]
    assert measure(s * scale) == pytest.approx(measure(s), rel=1e-9)
    assert measure(torch.cat([s, torch.zeros(4)])) == pytest.approx(measure(s), rel=1e-12)
    assert measure(torch.full((7,), scale, dtype=torch.float64)) == pytest.approx(7, rel=1e-12)


@given(s=strategies.spectra())
def test_the_order_of_the_ranks(s):
    """Theorems: powers concentrate a distribution, and Rényi entropies fall with their order (0, 1, 2, ∞)."""
    chain = [
        float((s > 0).sum()),
        spectra.effective_rank(s),
        spectra.energy_effective_rank(s),
        spectra.participation_ratio(s),
        spectra.stable_rank(s),
        1.0,
    ]
    for larger, smaller in pairwise(chain):
        assert larger >= smaller * (1 - 1e-12)


def test_a_tolerance_is_no_theorem():
    """Many values just below the tolerance: numerical rank 1, but an effective rank far above it."""
    s = torch.tensor([1.0] + [1e-4] * 999, dtype=torch.float64)
    assert spectra.numerical_rank(s, shape=(1024, 1000), dtype=torch.float32) == 1
    assert spectra.effective_rank(s) > 1.3


def test_the_five_effective_ranks_differ_on_a_decaying_spectrum():
    s = 1 / torch.arange(1, 101, dtype=torch.float64)
    values = [ours(s) for ours, _ in NAMED.values()]
    assert values == pytest.approx([39.6772, 4.8076, 39.6789, 2.4698, 1.635], abs=1e-4)


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize(
    ("s", "message"),
    [
        (torch.zeros(3), "all singular values are zero"),
        (torch.empty(0), "not a spectrum"),
        (torch.tensor([1.0, float("nan")]), "not a spectrum"),
        (torch.tensor([1.0, -1.0]), "not a spectrum"),
    ],
)
def test_ranks_refuse_what_has_none(name, s, message):
    with pytest.raises(ValueError, match=message):
        NAMED[name][0](s)


# --- singular values


@given(rows=strategies.rows(), centred=st.booleans(), tile=st.integers(1, 50))
def test_singular_values_are_those_of_the_svd(rows, centred, tile):
    expected = references.singular_values(rows.numpy(), centred)
    scale = float(np.abs(rows.numpy()).max()) * len(rows)
    for source in (rows, moments(rows), moments(rows.split(tile))):
        s = singular_values(source, centred=centred)
        assert s.shape == (min(rows.shape),)
        assert bool((s[:-1] >= s[1:]).all())
        np.testing.assert_allclose(s.numpy(), expected, rtol=1e-6, atol=1e-7 * scale)


@given(rows=strategies.rows(), centred=st.booleans())
def test_singular_values_ignore_rotation_order_and_centred_ones_translation(rows, centred):
    s = singular_values(rows, centred=centred)
    scale = float(s.max())
    turned = rows.flip(0) @ strategies.rotation(rows.shape[1])
    torch.testing.assert_close(singular_values(turned, centred=centred), s, rtol=1e-6, atol=2e-7 * scale)
    moved = singular_values(rows + 5.0, centred=True)
    torch.testing.assert_close(moved, singular_values(rows, centred=True), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("centred", [False, True])
def test_agrees_with_scipy_on_a_vocabulary(dtype, centred):
    rows = vocabulary_like(3000, 128).to(dtype)
    exact = rows.double().numpy()
    expected = scipy.linalg.svdvals(exact - exact.mean(0) if centred else exact)
    np.testing.assert_allclose(singular_values(rows, centred=centred).numpy(), expected, rtol=1e-10)


@pytest.mark.parametrize("count", [60, 500])
@pytest.mark.parametrize("centred", [False, True])
def test_few_float64_rows_keep_their_rank_at_condition_1e8(count, centred):
    s = torch.logspace(0, -8, 50, dtype=torch.float64)
    rows = strategies.with_spectrum(s, count) + (3.0 if centred else 0.0)
    found = singular_values(rows, centred=centred)
    exact = rows.numpy() - rows.numpy().mean(0) if centred else rows.numpy()
    np.testing.assert_allclose(found.numpy(), scipy.linalg.svdvals(exact), rtol=1e-5)
    assert spectra.numerical_rank(found, shape=tuple(rows.shape), dtype=rows.dtype) == 50
    assert int((singular_values(moments(rows), centred=centred) > 0).sum()) < 50


def test_ill_conditioned_rows_keep_their_digits_down_to_the_noise():
    s = torch.logspace(0, -10, 64, dtype=torch.float64)
    found = singular_values(moments(strategies.with_spectrum(s, 500)))
    above = s > 1e-5
    torch.testing.assert_close(found[above], s[above], rtol=1e-5, atol=0)
    assert int((found == 0).sum()) > 0  # below 1.5e-8 · √trace: reported as zero, not as noise
    assert float(found[s < 1e-8].max()) < 1e-7


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("count", [1, 2, 37, 5000])
def test_identical_rows_are_one_direction_and_centred_exactly_nothing(dtype, count):
    row = torch.randn(48, generator=torch.Generator().manual_seed(3)).to(dtype)
    rows = row.expand(count, -1)
    for source in (rows, moments(rows.split(1000))):
        assert singular_values(source, centred=True).abs().max() == 0
        s = singular_values(source)
        assert s[0] == pytest.approx(math.sqrt(count) * float(row.double().norm()), rel=1e-12)
        assert spectra.effective_rank(s) == pytest.approx(1, abs=1e-12)
    with pytest.raises(ValueError, match="all singular values are zero"):
        spectra.effective_rank(singular_values(rows, centred=True))


def test_repeated_rows_have_the_rank_of_the_distinct_ones():
    rows = torch.randn(16, 256, generator=torch.Generator().manual_seed(0)).repeat(64, 1)
    assert spectra.numerical_rank(singular_values(rows), shape=tuple(rows.shape), dtype=torch.float32) == 16
    assert int((singular_values(moments(rows)) > 0).sum()) == 16
    assert int((singular_values(moments(rows), centred=True) > 0).sum()) == 15


def test_rows_that_hug_their_mean_keep_their_shape_in_float32():
    """Spread 3e-5 of the norm: a float32 Gram matrix minus n·μμᵀ has a negative trace here."""
    text = vocabulary_like(2000, 64)
    rows = text.mean(0) + 3e-5 * vocabulary_like(1024, 64, seed=1)
    exact = references.singular_values(rows.double().numpy(), centred=True)
    np.testing.assert_allclose(singular_values(rows, centred=True).numpy(), exact, rtol=1e-9)


def test_moments_count_and_average():
    rows = vocabulary_like(300, 16).double()
    found = moments(rows.split(70))
    assert found.count == 300
    torch.testing.assert_close(found.mean, rows.mean(0))
    torch.testing.assert_close(found.scatter(centred=False), rows.T @ rows)
    torch.testing.assert_close(found.scatter(centred=True) / 300, torch.cov(rows.T, correction=0))


@pytest.mark.parametrize("wide", [False, True])
def test_spectra_refuse_nothing_and_nan(wide):
    rows = torch.ones(3, 9) if wide else torch.ones(9, 3)
    with pytest.raises(ValueError, match="no rows"):
        singular_values(rows[:0])
    with pytest.raises(ValueError, match="no rows"):
        moments([])
    rows[1, 1] = float("nan")
    with pytest.raises(ValueError, match="NaN or infinity"):
        singular_values(rows)


# --- the rest of the family


def test_numerical_rank_is_numpys_in_float32_and_the_rounding_bound_in_16_bits():
    s = torch.tensor([10.0, 1.0, 1.1e-3, 1e-3, 0.0], dtype=torch.float64)
    assert spectra.numerical_rank(s, shape=(860, 5), dtype=torch.float32) == 3  # tolerance 1.025e-3
    rows = strategies.with_spectrum(s, 40).float()
    ours = spectra.numerical_rank(singular_values(rows), shape=(40, 5), dtype=torch.float32)
    assert ours == np.linalg.matrix_rank(rows.numpy()) == 4
    coarse = torch.tensor([1.0, 0.01, 0.003], dtype=torch.float64)
    assert spectra.numerical_rank(coarse, shape=(151936, 1024), dtype=torch.bfloat16) == 2  # tolerance 2⁻⁸
    assert spectra.numerical_rank(torch.zeros(4), shape=(9, 4), dtype=torch.float32) == 0


@given(rank=st.integers(1, 8), seed=st.integers(0, 100))
def test_rounding_low_rank_rows_to_bfloat16_does_not_raise_the_numerical_rank(rank, seed):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(60, rank, generator=generator) @ torch.randn(rank, 20, generator=generator)
    s = singular_values(rows.bfloat16())
    assert spectra.numerical_rank(s, shape=(60, 20), dtype=torch.bfloat16) <= rank


def test_condition_number_explained_variance_and_components():
    s = torch.tensor([10.0, 5.0, 1.0], dtype=torch.float64)
    assert spectra.condition_number(s) == 10
    assert spectra.explained_variance(s, 1) == pytest.approx(100 / 126)
    assert spectra.explained_variance(s, 3) == 1
    assert [spectra.components_for(s, share) for share in (0.6, 0.9, 0.99, 1.0)] == [1, 2, 2, 3]
    with pytest.raises(ValueError, match="1 of 4 singular values are zero"):
        spectra.condition_number(torch.tensor([10.0, 5.0, 1.0, 0.0]))
    with pytest.raises(ValueError, match="k = 0 components"):
        spectra.explained_variance(s, 0)
    with pytest.raises(ValueError, match="share = 0"):
        spectra.components_for(s, 0.0)


@given(s=strategies.spectra(), share=st.floats(0.01, 0.999))
def test_components_and_variance_invert_each_other(s, share):
    k = spectra.components_for(s, share)
    assert k == references.components_for(s.tolist(), share)
    assert spectra.explained_variance(s, k) >= share * (1 - 1e-12)


@given(alpha=st.floats(0.1, 4), scale=st.floats(0.01, 100))
def test_alpha_of_an_exact_power_law(alpha, scale):
    s = scale * torch.arange(1, 201, dtype=torch.float64) ** (-alpha / 2)
    fit = spectra.alpha_req(s)
    assert (fit.first, fit.last) == (11, 100)
    assert fit.exponent == pytest.approx(alpha, rel=1e-9)
    assert fit.r_squared == pytest.approx(1, abs=1e-9)


def test_alpha_is_the_least_squares_slope():
    s = singular_values(vocabulary_like(800, 64), centred=True)
    fit = spectra.alpha_req(s, fit=(5, 40))
    slope, _ = np.polyfit(np.log(np.arange(5, 41)), np.log(s.numpy()[4:40] ** 2), 1)
    assert fit.exponent == pytest.approx(-slope, rel=1e-9)
    assert 0.5 < fit.r_squared < 1
    with pytest.raises(ValueError, match="needs 3"):
        spectra.alpha_req(s, fit=(5, 6))
    with pytest.raises(ValueError, match="ranks 1 to 65 of 64"):
        spectra.alpha_req(s, fit=(1, 65))


def test_principal_axes_span_the_leading_directions():
    rows = vocabulary_like(500, 24).double()
    axes = spectra.principal_axes(moments(rows), 5)
    torch.testing.assert_close(axes.T @ axes, torch.eye(5, dtype=torch.float64))
    energies = ((rows - rows.mean(0)) @ axes).norm(dim=0)
    torch.testing.assert_close(energies, singular_values(rows, centred=True)[:5])
    with pytest.raises(ValueError, match="the rows span 1"):
        spectra.principal_axes(moments(torch.outer(torch.arange(4.0), torch.ones(6))), 2)


# --- rows drawn as transformers draws new rows


def test_moments_by_several_workers_are_those_of_the_svd(monkeypatch):
    rows = vocabulary_like(3000, 24).bfloat16()
    monkeypatch.setattr(tiles, "NUMBERS", 24 * 100)
    expected = torch.linalg.svdvals(rows.double() - rows.double().mean(0))
    for given_rows in (rows, rows.split(700)):
        found = moments(given_rows)
        torch.testing.assert_close(singular_values(found, centred=True), expected, rtol=1e-12, atol=0)
        assert found.scatter_trace(centred=True) == pytest.approx(float((expected**2).sum()), rel=1e-12)
        assert found.scatter_trace(centred=False) == pytest.approx(float((rows.double() ** 2).sum()), rel=1e-12)


def test_large_matrices_are_decomposed_in_place_with_the_same_result(monkeypatch):
    rows = vocabulary_like(200, 24)
    found = moments(rows)
    expected = singular_values(found, centred=True), spectra.principal_axes(found, 3)
    monkeypatch.setattr(spectra, "LARGE", 8)
    torch.testing.assert_close(singular_values(found, centred=True), expected[0])
    torch.testing.assert_close(spectra.principal_axes(found, 3).abs(), expected[1].abs())
    with pytest.raises(ValueError, match="the rows span"):
        spectra.principal_axes(moments(rows[:5]), 6)


@pytest.mark.parametrize("count,k", [(400, 3), (10, 3)])
def test_leading_axes_of_one_group_are_its_principal_axes(count, k):
    rows = vocabulary_like(count, 32)
    expected = torch.linalg.svd(rows.double() - rows.double().mean(0))[2][:k].T
    found = spectra.leading_axes([rows], k)
    torch.testing.assert_close(found.T @ found, torch.eye(k, dtype=torch.float64))
    torch.testing.assert_close((found * expected).sum(0).abs(), torch.ones(k, dtype=torch.float64), rtol=0, atol=1e-5)


def test_leading_axes_weigh_groups_alike_and_refuse_one_point():
    many, few = torch.zeros(1000, 8), torch.zeros(10, 8)
    many[::2, 0], few[::2, 1] = 1.0, 3.0
    assert spectra.leading_axes([many, few], 1)[1].abs() > 0.9
    with pytest.raises(ValueError, match="the rows span 0"):
        spectra.leading_axes([torch.ones(50, 8)], 1)


@pytest.fixture(scope="module")
def resized():
    """(text, new) after the real `resize_token_embeddings` with its default mean_resizing, by dtype."""
    from transformers import LlamaConfig, LlamaForCausalLM

    def make(dtype):
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=1500, hidden_size=128, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
        )
        model = LlamaForCausalLM(config)
        with torch.no_grad():
            model.get_input_embeddings().weight.copy_(vocabulary_like(1500, 128))
        model.to(dtype).resize_token_embeddings(1500 + 512)
        weight = model.get_input_embeddings().weight.detach()
        return weight[:1500], weight[1500:]

    return {dtype: make(dtype) for dtype in (torch.float32, torch.bfloat16)}


def test_mean_resizing_in_float32_has_the_vocabularys_shape_but_no_spread(resized):
    text, new = resized[torch.float32]
    text_shape, new_shape = (spectra.effective_rank(singular_values(x, centred=True)) for x in (text, new))
    assert new_shape == pytest.approx(text_shape, rel=0.1)  # what fools the tools that look at shape alone
    assert spectra.effective_rank(singular_values(new)) < 1.05
    assert geometry.unique_rows(new) == 512
    ratio = geometry.dispersion(new) / geometry.dispersion(text)
    assert ratio == pytest.approx(3.16e-5, rel=0.05)
    assert geometry.median_dispersion(new) / geometry.median_dispersion(text) == pytest.approx(3.16e-5, rel=0.1)
    assert geometry.dispersion(new) > geometry.precision_floor(new, torch.float32)


def test_mean_resizing_in_bfloat16_is_below_the_precision_floor(resized):
    text, new = resized[torch.bfloat16]
    assert geometry.dispersion(new) / geometry.dispersion(text) > 4e-5  # inflated by rounding
    assert geometry.dispersion(new) < geometry.precision_floor(new, torch.bfloat16)
    assert geometry.dispersion(text) > 100 * geometry.precision_floor(text, torch.bfloat16)
