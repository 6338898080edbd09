"""Pruning: least squares and its costs against the definition, influence against a loop, and a plain checkpoint at the end."""

from itertools import combinations

import pytest
import torch

from gti_diag.errors import InputError
from gti_train.model.loading import load_language_model
from gti_train.search.pruning import layers, neurons
from gti_train.search.pruning.neurons import addition_gains, choose_neurons, grown, refit, removal_costs, shrunk

SEQUENCES = [[5, 6, 7, 8, 9], [10, 11, 12], [13, 14, 15, 16]]


def activations(seed, tokens=40, count=8, dim=3):
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(count, count, generator=generator, dtype=torch.float64)
    x = torch.randn(tokens, count, generator=generator, dtype=torch.float64) @ mixing
    return x, torch.randn(count, dim, generator=generator, dtype=torch.float64)


def error(x, outward, kept):
    """‖X W − X_S Ŵ‖² from the definition."""
    part = x[:, list(kept)]
    fitted = torch.linalg.lstsq(part, x @ outward).solution
    return float((x @ outward - part @ fitted).square().sum())


@pytest.mark.parametrize("seed", range(3))
def test_refitting_is_least_squares_and_the_costs_are_what_one_neuron_changes(seed):
    x, outward = activations(seed)
    gram, kept = x.T @ x, torch.tensor([0, 2, 3, 5, 6])
    fit = refit(gram, outward, kept)
    assert fit.error == pytest.approx(error(x, outward, kept.tolist()), rel=1e-6)
    for place, cost in enumerate(removal_costs(fit).tolist()):
        fewer = [n for i, n in enumerate(kept.tolist()) if i != place]
        assert fit.error + cost == pytest.approx(error(x, outward, fewer), rel=1e-6)
    others = torch.tensor([1, 4, 7])
    for other, gain in zip(others.tolist(), addition_gains(gram, gram @ outward, fit, others).tolist(), strict=True):
        assert fit.error - gain == pytest.approx(error(x, outward, [*kept.tolist(), other]), rel=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_updates_are_what_fitting_anew_gives(seed):
    x, outward = activations(seed)
    gram = x.T @ x
    fewer = shrunk(refit(gram, outward, torch.tensor([0, 2, 3, 5, 6, 7])), 3)
    for found in (fewer, grown(gram, gram @ outward, fewer, torch.tensor([4, 1]))):
        anew = refit(gram, outward, found.kept)
        torch.testing.assert_close(found.inverse, anew.inverse)
        torch.testing.assert_close(found.weights, anew.weights)
        assert found.error == pytest.approx(anew.error, rel=1e-9) == error(x, outward, found.kept.tolist())


@pytest.mark.parametrize("seed", range(4))
def test_the_choice_is_near_the_best_of_all_and_exchanges_only_help(seed, monkeypatch):
    x, outward = activations(seed)
    fit = choose_neurons(x.T @ x, outward, 4)
    monkeypatch.setattr(neurons, "EXCHANGES", 0)
    shrunk_only = choose_neurons(x.T @ x, outward, 4)
    best = min(error(x, outward, chosen) for chosen in combinations(range(8), 4))
    assert len(set(fit.kept.tolist())) == 4 and fit.error == pytest.approx(error(x, outward, fit.kept.tolist()))
    assert best * (1 - 1e-9) <= fit.error <= 1.5 * best and fit.error <= shrunk_only.error


def test_rounds_and_exchanges_beat_one_cut_by_the_costs():
    found = []
    for seed in range(12):
        x, outward = activations(seed)
        one_round = shrunk(refit(x.T @ x, outward, torch.arange(8)), 3)
        found.append(choose_neurons(x.T @ x, outward, 3).error / one_round.error)
    assert max(found) <= 1 + 1e-9 and min(found) < 0.9


def test_keeping_all_neurons_changes_nothing():
    x, outward = activations(0)
    fit = choose_neurons(x.T @ x, outward, 8)
    torch.testing.assert_close(fit.weights, outward)
    with pytest.raises(InputError, match="9 neurons to keep of 8"):
        choose_neurons(x.T @ x, outward, 9)


@pytest.fixture
def model(tiny_lm):
    return load_language_model(tiny_lm(), dtype=torch.float32)[0]


def test_influence_is_one_minus_the_mean_cosine_over_real_positions(model):
    found = layers.block_influence(model, SEQUENCES)
    cosines = [[], []]
    for ids in SEQUENCES:  # one at a time: no padding
        hidden = model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states
        for place in range(2):
            leaving = hidden[place + 1] if place == 0 else _before_norm(model, hidden[place])
            cosines[place] += torch.cosine_similarity(hidden[place][0], leaving[0], dim=-1).tolist()
    expected = [1 - sum(values) / len(values) for values in cosines]
    assert found.tolist() == pytest.approx(expected, abs=1e-5)


def _before_norm(model, entering):
    """What the last layer gives, which the library hands out after the final norm only."""
    length = torch.arange(entering.shape[1])[None]
    rotary = model.model.rotary_emb(entering, length)
    return model.model.layers[-1](entering, position_embeddings=rotary)


def test_a_dropped_layer_is_one_that_is_passed_over_and_the_checkpoint_stays_plain(model, tmp_path):
    ids = torch.tensor([SEQUENCES[0]])
    expected = model.lm_head(model.model.norm(_before_norm(model, model.get_input_embeddings()(ids))))
    layers.drop_layers(model, layers.least_influential(torch.tensor([0.1, 0.7]), 1))
    torch.testing.assert_close(model(input_ids=ids, use_cache=True).logits, expected)
    model.save_pretrained(tmp_path / "out")
    again = load_language_model_folder(tmp_path / "out")
    assert again.config.num_hidden_layers == 1
    torch.testing.assert_close(again(input_ids=ids).logits, expected)
    with pytest.raises(InputError, match="1 layers to drop and the model has 1"):
        layers.least_influential(torch.tensor([0.1]), 1)


def load_language_model_folder(folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def test_neurons_that_never_fire_go_at_no_cost_and_the_checkpoint_stays_plain(model, tmp_path):
    for mlp in neurons.gated_mlps(model):
        mlp.up_proj.weight.data[::4] = 0
    ids = torch.tensor([SEQUENCES[0]])
    expected = model(input_ids=ids).logits
    shares = neurons.drop_neurons(model, neurons.activation_grams(model, SEQUENCES), 48)
    assert max(shares) < 0.02 and model.config.intermediate_size == 48
    torch.testing.assert_close(model(input_ids=ids).logits, expected, atol=0.02, rtol=0.02)
    model.save_pretrained(tmp_path / "out")
    torch.testing.assert_close(
        load_language_model_folder(tmp_path / "out")(input_ids=ids).logits, model(input_ids=ids).logits
    )


def test_a_model_without_gated_mlps_is_refused(tiny_lm):
    model = load_language_model(tiny_lm(family="gpt2"), dtype=torch.float32)[0]
    with pytest.raises(InputError, match="0 gated MLPs"):
        neurons.gated_mlps(model)
