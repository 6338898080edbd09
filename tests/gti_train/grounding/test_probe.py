"""Asking the model: definitions, what is asked, and going on where a run was."""

import math

import pytest
import torch

from gti_diag.errors import InputError
from gti_train.grounding import probe as asking
from gti_train.model.loading import load_language_model


def test_the_divergence_is_its_definition():
    p, q = (torch.randn(3, 7, generator=torch.Generator().manual_seed(seed)).log_softmax(-1) for seed in (0, 1))
    mean = (p.exp() + q.exp()) / 2
    expected = [0.5 * sum(float(a[i] * (a[i] / m[i]).log() + b[i] * (b[i] / m[i]).log()) for i in range(7))
                for a, b, m in zip(p.exp(), q.exp(), mean, strict=True)]  # fmt: skip
    assert asking.divergence(p, q).tolist() == pytest.approx(expected, abs=1e-6)
    assert float(asking.divergence(p, p).abs().max()) < 1e-6
    far = torch.tensor([[0.0, -200.0]]), torch.tensor([[-200.0, 0.0]])
    assert float(asking.divergence(*far)) == pytest.approx(math.log(2))


def test_rates_have_wilson_intervals():
    assert asking.wilson(0, 10) == (0.0, pytest.approx(0.2775, abs=1e-4))
    low, high = asking.wilson(8, 10)
    assert (low, high) == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))
    with pytest.raises(ValueError, match="0 attempts"):
        asking.wilson(0, 0)


@pytest.fixture
def model(tiny_lm):
    return load_language_model(tiny_lm("probed"))


def test_a_token_with_the_row_of_another_is_no_thing_of_its_own(model):
    lm, tokenizer = model
    lm.get_input_embeddings().weight.data[300] = lm.get_input_embeddings().weight.data[301]
    records = list(asking.probe(lm, tokenizer, [300, 301, 60], descriptions={60: "a red kettle"}, batch=2))
    twin, _, other = records
    assert (
        twin["own"] == [0, 2] and twin["siblings"] == [0, 2] and twin["nearest"] == tokenizer.convert_ids_to_tokens(301)
    )
    assert other["described"][1] == 1 and twin["described"] is None and twin["repeat"][1] == 3
    found = asking.rates(records)
    assert found["repeat"]["attempts"] == 9 and found["described"]["attempts"] == 1


def test_repeating_is_seen(model):
    lm, tokenizer = model
    answer = torch.full((len(lm.get_input_embeddings().weight),), 0.0)
    answer[60] = 50.0
    lm.forward = lambda input_ids, use_cache: type("Out", (), {"logits": answer.expand(*input_ids.shape, -1)})
    assert [record["repeat"] for record in asking.probe(lm, tokenizer, [60, 61])] == [[3, 3], [0, 3]]


def test_a_run_goes_on_where_it_was(tmp_path):
    made = []

    def make(left):
        made.append(list(left))
        yield from ({"id": id} for id in left)

    asking.probed(tmp_path / "a.jsonl", [3, 4], make)
    assert asking.probed(tmp_path / "a.jsonl", [3, 4, 5], make) == [{"id": 3}, {"id": 4}, {"id": 5}]
    assert made == [[3, 4], [5]]
    (tmp_path / "a.jsonl").write_text("[]\n")
    with pytest.raises(InputError, match="no records of a probe"):
        asking.probed(tmp_path / "a.jsonl", [3], make)
