"""The loss and gradient of the new rows are those of the whole model, for every family and every way."""

import pytest
import torch

from gti_train.grounding.ground import GroundingConfig
from gti_train.grounding.objective import Answers, answers
from gti_train.model.attention import NAME, use_constant_past
from gti_train.model.new_rows import NewRows
from gti_train.model.prefixes import Prefixes
from tests.gti_train.grounding.grounding_cases import encoded, extended, reference_gradients, reference_loss


@pytest.fixture(autouse=True)
def _attention(tiny_lm):
    use_constant_past(extended(tiny_lm("registers-the-attention"))[0])


FAMILIES = ["llama", "qwen3", "gemma", "gemma2", "gemma3_text", "gpt2", "opt", "cohere", "granite"]


def objective(model, rows, sequences, way, **limits):
    limits = {"overhead": 8, "limit": 64, "budget": 1 << 20, **limits}
    asked = [list(range(len(sequences)))] * 2
    prefixes = Prefixes(model, sequences, schedule=asked, **limits) if way == "split" else None
    return Answers(model, rows, sequences, way=way, pad=0, micro_tokens=64, prefixes=prefixes)


def loss_and_gradients(model, rows, sequences, way, **limits):
    for master in rows.masters.values():
        master.grad = None
    goal, loss = objective(model, rows, sequences, way, **limits), 0.0
    for part in (part() for part in goal.parts(range(len(sequences)))):
        part.backward()
        loss += float(part.detach())
    return loss, {name: master.grad.clone() for name, master in rows.masters.items()}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "way, attention", [("split", NAME), ("split", "eager"), ("split", "sdpa"), ("whole", NAME), ("exact", NAME)]
)
def test_loss_and_gradient_are_the_models_own(tiny_lm, family, tied, way, attention):
    if attention == "sdpa" and family.startswith("gemma2"):
        pytest.skip("a softcap inside attention has no fused form")
    model, tokenizer, ids = extended(tiny_lm(family=family, tied=tied))
    model.set_attn_implementation(attention)
    sequences = encoded(tokenizer, ids)
    model.config.sliding_window = 6  # shorter than any prompt, for the families that slide
    rows = NewRows(model, ids)
    loss, gradients = loss_and_gradients(model, rows, sequences, way)
    model.set_attn_implementation("eager")
    expected = reference_gradients(model, ids, sequences)
    assert loss == pytest.approx(float(reference_loss(model, sequences)), rel=2e-6)
    assert set(gradients) == set(expected) == ({"input"} if tied else {"input", "output"})
    for name, gradient in gradients.items():
        assert float((gradient - expected[name]).norm() / expected[name].norm()) < 1e-5


@pytest.mark.parametrize("direction", ["to-code", "code-to"])
def test_each_direction_alone(tiny_lm, direction):
    model, tokenizer, ids = extended(tiny_lm())
    half = slice(0, 5) if direction == "to-code" else slice(5, 10)
    sequences = encoded(tokenizer, ids)[half]
    _, gradients = loss_and_gradients(model, NewRows(model, ids), sequences, "split")
    expected = reference_gradients(model, ids, sequences)["input"]
    assert float((gradients["input"] - expected).norm() / expected.norm()) < 1e-5


@pytest.mark.parametrize("budget", [0, 40_000, 1 << 20])
def test_keeping_prefixes_changes_nothing(tiny_lm, budget):
    model, tokenizer, ids = extended(tiny_lm())
    sequences, rows = encoded(tokenizer, ids), NewRows(model, ids)
    goal = objective(model, rows, sequences, "split", budget=budget)
    first = [float(x.detach()) for x in (part() for part in goal.parts(range(10)))]
    assert [float(x.detach()) for x in (part() for part in goal.parts(range(10)))] == first
    kept = len(goal.prefixes.kept)
    assert kept == 0 if budget == 0 else kept > 0
    held = sum(p.states.numel() * 4 for p in goal.prefixes.kept.values())
    assert held <= budget


def test_the_shared_beginning_is_run_once(tiny_lm):
    model, tokenizer, ids = extended(tiny_lm())
    sequences = encoded(tokenizer, ids)[:5]
    prefixes = objective(model, NewRows(model, ids), sequences, "split").prefixes
    shared = prefixes.trunk.states.shape[-2]
    assert shared >= len("Which code is") // 3
    assert len({s.ids[:shared] for s in sequences}) == 1


def test_sequences_without_a_new_token_still_pull_on_the_new_rows(tiny_lm):
    from gti_train.grounding.prompts import Example

    model, tokenizer, ids = extended(tiny_lm())
    sequences = encoded(tokenizer, ids, [Example("Say what boils.", "a kettle", "plain", "1")])
    _, gradients = loss_and_gradients(model, NewRows(model, ids), sequences, "split")
    expected = reference_gradients(model, ids, sequences)["input"]
    assert float(expected.norm()) > 0
    torch.testing.assert_close(gradients["input"], expected, rtol=1e-4, atol=1e-7)


def test_padded_rows_stay_in_the_normaliser(tiny_lm):
    model, tokenizer, ids = extended(tiny_lm(family="qwen3", rows=512))
    assert model.get_input_embeddings().weight.shape[0] == 512
    sequences = encoded(tokenizer, ids)
    loss, _ = loss_and_gradients(model, NewRows(model, ids), sequences, "split")
    assert loss == pytest.approx(float(reference_loss(model, sequences)), rel=2e-6)


def test_an_unknown_head_takes_the_exact_path(tiny_lm, caplog):
    model, tokenizer, ids = extended(tiny_lm())
    sequences, rows = encoded(tokenizer, ids), NewRows(model, ids)
    config = GroundingConfig(steps=1)
    assert answers(model, rows, sequences, config, train_count=10, pad=0).way == "split"
    plain = model.lm_head.forward
    model.lm_head.forward = lambda hidden: plain(hidden) * 1.5
    assert answers(model, rows, sequences, config, train_count=10, pad=0).way == "exact"
    assert "none of the fast ways" in caplog.text


def test_a_model_without_a_cache_runs_whole_sequences(tiny_lm, monkeypatch):
    model, tokenizer, ids = extended(tiny_lm())
    plain = model.base_model.forward

    def forward(input_ids=None, attention_mask=None, inputs_embeds=None, use_cache=None):
        return plain(input_ids=input_ids, attention_mask=attention_mask, inputs_embeds=inputs_embeds)

    monkeypatch.setattr(model.base_model, "forward", forward)
    # the wrapper of the causal model passes more arguments than this backbone takes
    monkeypatch.setattr(type(model), "forward", lambda self, input_ids, attention_mask, use_cache: _Output(
        self.lm_head(forward(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state)
    ))  # fmt: skip
    goal = answers(model, NewRows(model, ids), encoded(tokenizer, ids), GroundingConfig(), train_count=10, pad=0)
    assert goal.way == "whole"


class _Output:
    def __init__(self, logits):
        self.logits = logits
