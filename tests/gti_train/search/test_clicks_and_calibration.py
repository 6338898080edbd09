"""Simulated clicks follow the model they are drawn from, the teacher gets it back, calibration keeps the order of scores."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gti_diag.errors import InputError
from gti_train.search.calibration import calibrate, order
from gti_train.search.clicks import ClickModel, engagement_teacher, propensities, simulate, standardised

GRADES = torch.tensor([[4, 2, 0, 1], [0, 3, 1, 2]])
POPULARITY = torch.tensor([1.0, 3.0, 2.0, 0.0])
RANKED = torch.tensor([[2, 0, 1, 3], [1, 0, 3, 2]])
MODEL = ClickModel()


def attraction():
    spread = (POPULARITY - POPULARITY.mean()) / POPULARITY.std()
    return MODEL.attracted(GRADES, spread.expand(2, 4))


def test_clicks_and_applications_come_as_often_as_the_model_says():
    log = simulate(RANKED, GRADES, POPULARITY, MODEL, sessions=20_000, seed=0)
    rates = torch.stack([log.done[log.queries == q].mean(0) for q in range(2)])
    attracted = attraction().gather(1, RANKED)
    expected = attracted * torch.tensor([1, 1 / 2, 1 / 3, 1 / 4])
    torch.testing.assert_close(rates[..., 0], expected, atol=0.015, rtol=0)
    torch.testing.assert_close(rates[..., 1], expected * attracted, atol=0.015, rtol=0)


def test_a_random_order_gives_the_propensities_and_they_take_the_positions_out_of_the_teacher():
    looked = propensities(simulate(RANKED, GRADES, POPULARITY, MODEL, sessions=20_000, seed=1, shuffle=True))
    torch.testing.assert_close(looked, MODEL.examined(4), atol=0.03, rtol=0)
    features = attraction().logit()[..., None]
    log = simulate(RANKED, GRADES, POPULARITY, MODEL, sessions=20_000, seed=2)
    found = engagement_teacher(log, features, looked)(features.view(8, 1)).view(2, 4, 2)
    torch.testing.assert_close(found[..., 0], attraction(), atol=0.04, rtol=0)
    biased = engagement_teacher(log, features, torch.ones(4))(features.view(8, 1)).view(2, 4, 2)
    assert float((biased[..., 0] - attraction()).abs().mean()) > 3 * float((found[..., 0] - attraction()).abs().mean())


def test_refusals():
    with pytest.raises(InputError, match="grade 5 has no attraction"):
        MODEL.attracted(torch.tensor([5]), torch.zeros(1))
    log = simulate(RANKED, GRADES, POPULARITY, ClickModel(attraction=(1e-9,) * 5), sessions=1, seed=0)
    with pytest.raises(InputError, match="no click on the first rank"):
        propensities(log)
    with pytest.raises(InputError, match="nobody took the action 'click'"):
        engagement_teacher(log, torch.zeros(2, 4, 1), torch.ones(4))
    with pytest.raises(InputError, match="0 scores"):
        calibrate(torch.zeros(0), torch.zeros(0).long(), torch.zeros(0))


def test_features_are_standardised():
    found = standardised([POPULARITY, GRADES[0].float()])
    torch.testing.assert_close(found.mean(0), torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(found.std(0), torch.ones(2))


def test_the_same_score_is_clicked_less_further_down_and_probabilities_are_rates():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(40_000, generator=generator)
    positions = torch.randint(1, 8, (40_000,), generator=generator)
    clicked = (torch.rand(40_000, generator=generator) < scores.sigmoid() / positions).float()
    found = calibrate(scores, positions, clicked)
    at = torch.tensor([-1.0, 0.0, 1.0])
    for position in (1, 2):
        torch.testing.assert_close(found(at, position=position).float(), at.sigmoid() / position, atol=0.05, rtol=0)
    assert bool((found(at, position=7) < found(at, position=2)).all())


@given(st.lists(st.integers(-3, 3), min_size=6, max_size=6), st.integers(0, 100))
def test_a_plateau_never_reorders_what_the_scores_order(values, seed):
    scores = torch.tensor([values], dtype=torch.float32)
    clicked = torch.rand(6, generator=torch.Generator().manual_seed(seed)).round()
    fit = calibrate(scores[0], torch.ones(6).long(), clicked)
    found = order(fit(scores, position=1), scores)
    assert scores.gather(1, found)[0].tolist() == sorted(scores[0].tolist(), reverse=True)


def test_sorting_by_the_probability_alone_would_reorder():
    scores = torch.tensor([[1.0, 3.0, 2.0]])
    flat = calibrate(scores[0], torch.ones(3).long(), torch.tensor([1.0, 0.0, 1.0]))(scores, position=1)
    assert len(set(flat[0].tolist())) < 3 and flat.argsort(dim=1, descending=True, stable=True).tolist() != [[1, 2, 0]]
    assert order(flat, scores).tolist() == [[1, 2, 0]]
