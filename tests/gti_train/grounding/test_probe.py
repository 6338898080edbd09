"""Asking the model: definitions, what is asked, and going on where a run was."""

import math

import pytest
import torch

from gti_diag.errors import InputError
from gti_train.catalogue.world import product_world
from gti_train.grounding import probe as asking
from gti_train.grounding import probe_records
from gti_train.model.loading import load_language_model
from gti_train.model.sequences import prompt_ids
from gti_train.semantic_ids.making import semantic_ids


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
    assert probe_records.wilson(0, 10) == (0.0, pytest.approx(0.2775, abs=1e-4))
    low, high = probe_records.wilson(8, 10)
    assert (low, high) == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))
    with pytest.raises(ValueError, match="0 attempts"):
        probe_records.wilson(0, 0)


@pytest.fixture
def model(tiny_lm):
    return load_language_model(tiny_lm("probed"))


def test_a_token_with_the_row_of_another_is_no_thing_of_its_own(model):
    lm, tokenizer = model
    weight = lm.get_input_embeddings().weight.data
    weight[300] = weight[301]
    weight[302] = 0
    asked = asking.Asked([300, 301, 302, 60], [1, 1, 1, 2], descriptions={60: "a red kettle", 301: "a tent"})
    twin, same, dead, other = asking.probe(lm, tokenizer, asked, batch=3)
    assert twin["own"] == [0, 2] and twin["siblings"] == [0, 2]
    assert twin["nearest"] == twin["sibling"] == tokenizer.convert_ids_to_tokens(301)
    assert same["described"] == [0, 1], "a token of the same row is as likely"
    assert other["described"] is None and twin["described"] is None and twin["repeat"][1] == 3
    assert other["siblings"] is None and other["sibling"] is None, "no other token of its level is asked about"
    assert twin["geometry"] == {
        "expected": "crowded",
        "norm": pytest.approx(twin["geometry"]["norm"]),
        "nearest": 0,
        "sibling": 0,
    }
    assert dead["geometry"]["expected"] == "dead" and dead["geometry"]["norm"] == 0
    spread = (weight[weight.any(1)] - weight[weight.any(1)].mean(0)).square().sum(1).mean().sqrt()
    near = tokenizer.convert_tokens_to_ids(other["nearest"])
    assert other["geometry"]["nearest"] == pytest.approx(float((weight[60] - weight[near]).norm() / spread), rel=1e-5)
    parts = probe_records.by_expectation([twin, dead, other])
    assert {name: count for name, (count, _) in parts.items()} == {"distinct": 1, "crowded": 1, "dead": 1}
    assert parts["crowded"][1]["own"]["value"] == 0 and parts["distinct"][1]["described"] is None


def test_answers_do_not_depend_on_what_was_asked_before(model):
    lm, tokenizer = model
    asked = asking.Asked([300, 301, 60, 61], [1, 1, 2, 2], descriptions={301: "a tent"})
    whole = list(asking.probe(lm, tokenizer, asked, batch=4))
    parts = [*asking.probe(lm, tokenizer, asked, only=[300]), *asking.probe(lm, tokenizer, asked, only=[301, 60, 61])]
    keys = ("id", "nearest", "sibling", "repeat", "own", "siblings", "described")
    assert [[record[key] for key in keys] for record in whole] == [[record[key] for key in keys] for record in parts]


def test_grounding_prompts_lead_up_to_the_token(tiny_lm):
    catalogue = product_world(items=12, users=2, seed=0)
    sids = semantic_ids(catalogue, encoder="lsa", dimensions=4, sizes=(2, 2), seed=0)
    lm, tokenizer = load_language_model(tiny_lm("coded", new_tokens=sids.tokens))
    ids = tokenizer.convert_tokens_to_ids(sids.tokens)
    prompts = asking.grounding_prompts(catalogue, sids, tokenizer, ids)
    item = catalogue.items[0]
    first, second = (tokenizer.convert_tokens_to_ids(code) for code in sids.of(item.id)[:2])
    asked = prompt_ids(f"Which code does our catalogue give to the item called “{item.title}”?", tokenizer)
    assert prompts[first][0] == asked and prompts[second][0] == [*asked, first]
    assert max(len(several) for several in prompts.values()) == 3
    lm.forward = lambda input_ids, use_cache: type("Out", (), {"logits": torch.eye(len(tokenizer))[first].expand(*input_ids.shape, -1)})  # fmt: skip
    made = asking.Asked(ids, sids.levels, prompts={first: prompts[first], second: prompts[second]})
    told = {record["id"]: record["answered"] for record in asking.probe(lm, tokenizer, made)}
    assert told[first] == [3, 3] and told[second] == [0, len(prompts[second])]


def test_repeating_is_seen(model):
    lm, tokenizer = model
    answer = torch.full((len(lm.get_input_embeddings().weight),), 0.0)
    answer[60] = 50.0
    lm.forward = lambda input_ids, use_cache: type("Out", (), {"logits": answer.expand(*input_ids.shape, -1)})
    found = asking.probe(lm, tokenizer, asking.Asked([60, 61], [0, 0]))
    assert [record["repeat"] for record in found] == [[3, 3], [0, 3]]


def test_a_run_goes_on_where_it_was(tmp_path):
    made, file = [], tmp_path / "a.jsonl"

    def make(left):
        made.append(list(left))
        yield from ({"id": id} for id in left)

    probe_records.probed(file, "run", [3, 4], make)
    with file.open("a") as lines:
        lines.write('{"id": 5, "tok')  # killed while it wrote
    assert probe_records.probed(file, "run", [3, 4, 5], make) == [{"id": 3}, {"id": 4}, {"id": 5}]
    assert made == [[3, 4], [5]] and len(file.read_text().splitlines()) == 4
    with pytest.raises(InputError, match="answers of another model, or about other tokens"):
        probe_records.probed(file, "another", [3], make)
    file.write_text("[]\n")
    with pytest.raises(InputError, match="no records of a probe"):
        probe_records.probed(file, "run", [3], make)
