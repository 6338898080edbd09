"""Starts of new rows: their statistics, their edge cases, their reproducibility."""

import pytest
import torch

from gti_diag.errors import InputError
from gti_diag.measures.geometry import dispersion, unique_rows
from gti_train.model import initialisers
from tests.conftest import vocabulary_like

TRAINED = vocabulary_like(2000, 24)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_mean_is_one_point():
    rows = initialisers.mean(TRAINED, 5)
    assert unique_rows(rows) == 1
    torch.testing.assert_close(rows[0].double(), TRAINED.double().mean(0), rtol=1e-6, atol=1e-8)


def test_random_spreads_as_the_trained_rows_do():
    rows = initialisers.random(TRAINED, 4000, generator=generator())
    centred = TRAINED.double() - TRAINED.double().mean(0)
    assert float(rows.std()) == pytest.approx(float(centred.square().mean().sqrt()), rel=0.02)
    assert unique_rows(rows) == 4000
    assert float(initialisers.random(TRAINED, 4000, generator=generator(), sigma=3.0).std()) == pytest.approx(
        3, rel=0.02
    )


def test_gaussian_has_the_trained_mean_and_covariance():
    rows = initialisers.gaussian(TRAINED, 60_000, generator=generator())
    torch.testing.assert_close(rows.mean(0), TRAINED.mean(0), rtol=0, atol=2e-3)
    torch.testing.assert_close(torch.cov(rows.T), torch.cov(TRAINED.T), rtol=0, atol=5e-4)


def test_the_library_default_is_a_collapse_in_disguise():
    rows = initialisers.gaussian(TRAINED, 1000, generator=generator(), share=1e-9)
    assert unique_rows(rows) == 1000
    assert float(dispersion(rows) / dispersion(TRAINED)) == pytest.approx(1e-9**0.5, rel=0.1)


@pytest.mark.parametrize("start", [initialisers.random, initialisers.gaussian])
def test_a_seed_is_a_start(start):
    first, again = (start(TRAINED, 7, generator=generator(3)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, start(TRAINED, 7, generator=generator(4)))


def test_description_is_the_mean_of_its_tokens_by_frequency():
    rows = initialisers.description(TRAINED, [[3], [3, 3, 9]])
    torch.testing.assert_close(rows[0], TRAINED[3])
    torch.testing.assert_close(rows[1], (2 * TRAINED[3] + TRAINED[9]) / 3)


def test_a_token_without_description_is_refused():
    with pytest.raises(InputError, match="number 1 has no description"):
        initialisers.description(TRAINED, [[3], []])


def test_codebook_finds_a_linear_map_and_keeps_the_mean():
    codes = torch.randn(200, 6, generator=generator())
    described = codes @ torch.randn(6, 24, generator=generator(1)) + 0.5
    rows = initialisers.codebook(codes, described, ridge=1e-9)
    torch.testing.assert_close(rows, described, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(initialisers.codebook(codes, described).mean(0), described.mean(0))


def test_identical_codes_give_the_mean_description():
    rows = initialisers.codebook(torch.ones(5, 3), TRAINED[:5])
    torch.testing.assert_close(rows, TRAINED[:5].mean(0).expand(5, -1))


def test_rescaled_rows_have_the_median_norm_and_their_own_direction():
    generator = torch.Generator().manual_seed(0)
    trained, rows = torch.randn(101, 8, generator=generator), 0.01 * torch.randn(5, 8, generator=generator)
    found = initialisers.rescaled(rows, trained)
    assert torch.allclose(found.norm(dim=1), trained.norm(dim=1).median().expand(5))
    assert torch.allclose(torch.cosine_similarity(found, rows), torch.ones(5))
    with pytest.raises(InputError, match="starts at zero"):
        initialisers.rescaled(torch.zeros(1, 8), trained)


def test_rows_spread_out_have_the_share_asked_for_and_lie_about_their_mean_as_before():
    rows = 5 + 0.01 * torch.randn(7, 24, generator=generator())
    found = initialisers.spread_out(rows, TRAINED, 0.5)
    assert dispersion(found) == pytest.approx(0.5 * dispersion(TRAINED), rel=1e-5)
    torch.testing.assert_close(found.mean(0), rows.mean(0))
    before, after = (matrix.double() - matrix.double().mean(0) for matrix in (rows, found))
    assert float(torch.cosine_similarity(before, after).min()) > 0.9999
    with pytest.raises(InputError, match="one point"):
        initialisers.spread_out(initialisers.mean(TRAINED, 3), TRAINED, 1.0)


def test_norm_text_rescales_any_start_and_other_norms_are_refused():
    from gti_train.model.vocabulary import start_rows

    matrix = torch.randn(50, 8, generator=torch.Generator().manual_seed(1))
    options = {
        "trained": torch.arange(40),
        "count": 2,
        "init": "description",
        "generator": torch.Generator(),
        "described": [[1, 2], [3]],
    }
    plain, text = (start_rows(matrix, **options, norm=norm) for norm in ("own", "text"))
    assert torch.allclose(torch.cosine_similarity(plain, text), torch.ones(2))
    assert torch.allclose(text.norm(dim=1), matrix[:40].norm(dim=1).median().expand(2))
    with pytest.raises(InputError, match="norm 'median' is unknown"):
        start_rows(matrix, **options, norm="median")
