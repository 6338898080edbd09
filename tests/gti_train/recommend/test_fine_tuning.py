"""Fine-tuning learns from answers alone, as a plain loop would, and leaves an ordinary checkpoint."""

import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from gti_diag.errors import InputError
from gti_train.loop.training import differentiated, evaluate
from gti_train.model.loading import load_language_model
from gti_train.model.sidecar import read_sidecar
from gti_train.model.tree_passes import ONE, Way
from gti_train.recommend.choices import CodeChoices
from gti_train.recommend.config import FineTuningConfig
from gti_train.recommend.decoding import decode
from gti_train.recommend.fine_tuning import fine_tune
from gti_train.recommend.learners import Adapters, EveryWeight, checkpoint_layers
from gti_train.recommend.objective import TreeAnswers, encode_families
from gti_train.recommend.prompts import NEXT, TASKS, TITLE, TO_CODE
from gti_train.recommend.stage import fine_tune_checkpoint, trie_of

from .fine_tuning_cases import extended, lessons, shop

CONFIG = FineTuningConfig(steps=6, batch=4, learning_rate=1e-3, warmup=1)
FLOAT = torch.float32


def prepared(tiny_lm, tmp_path, *, tasks=(NEXT,), codes=False, rank=0, count=12, weights=None, **options):
    """Learner and objective over the first families of each task, and the families."""
    folder = extended(tiny_lm(), tmp_path / "start")
    model, tokenizer = load_language_model(folder, dtype=FLOAT)
    ids, sids = read_sidecar(folder).ids, shop()[1]
    start = {"input": model.get_input_embeddings().weight.data[ids].clone()}
    learner = Adapters(model, ids, start=start, rank=rank, alpha=32, seed=0) if rank else EveryWeight(model, ids)
    trie = trie_of(sids, tokenizer, model.device)
    choices = CodeChoices(trie) if codes else None
    examples = [e for task in tasks for e in lessons([task]).families[:count]]
    places = {item: place for place, item in enumerate(sids.item_ids)}
    told = {"max_tokens": 500, "weights": weights or {}, "choices": choices, "places": places}
    families = encode_families(examples, tokenizer, **told)
    given = {"way": Way(ONE), "micro_tokens": 512, "compute": FLOAT, **options}
    return learner, TreeAnswers(learner, families, choices=choices, **given), families


def reference_loss(model, families):
    """Each example alone through the whole model, its answer tokens, its task's weight."""
    total = 0.0
    for family in families:
        for sequence in family.sequences:
            logits = model(input_ids=torch.tensor([sequence.ids])).logits[0]
            nll = F.cross_entropy(
                logits[sequence.answer - 1 : -1], torch.tensor(sequence.ids[sequence.answer :]), reduction="sum"
            )
            total = total + family.weight * nll
    return total


def gradients(objective, learner):
    loss = sum(differentiated(objective, range(len(objective.families)), learner.parameters, 1))
    found = [None if p.grad is None else p.grad.clone() for p in learner.parameters]
    for p in learner.parameters:
        p.grad = None
    return float(loss), found


def assert_close(one, two, within=2e-5):
    for a, b in zip(one, two, strict=True):
        assert float((a - b).norm() / b.norm().clamp(min=1e-6)) < within


def test_a_step_is_every_example_by_itself(tiny_lm, tmp_path):
    learner, objective, families = prepared(tiny_lm, tmp_path, tasks=TASKS, weights={NEXT: 2.0, TITLE: 0.5}, count=2)
    loss, found = gradients(objective, learner)
    learner.model.set_attn_implementation("eager")
    expected = reference_loss(learner.model, families)
    assert loss == pytest.approx(float(expected.detach()), rel=1e-5)
    assert_close(found, torch.autograd.grad(expected, learner.parameters))
    targets = sum(f.weight * sum(len(s.ids) - s.answer for s in f.sequences) for f in families)
    assert objective.supervised(range(len(families))) == pytest.approx(targets)


@pytest.mark.parametrize("change", [{"micro_tokens": 64}, {"micro_tokens": 4096}])
def test_packing_changes_nothing(tiny_lm, tmp_path, change):
    learner, objective, _ = prepared(tiny_lm, tmp_path)
    loss, found = gradients(objective, learner)
    objective.micro_tokens = change["micro_tokens"]
    other, again = gradients(objective, learner)
    assert other == pytest.approx(loss, rel=1e-5)
    assert_close(again, found)


def test_checkpointed_layers_give_the_same_gradients(tiny_lm, tmp_path):
    learner, objective, _ = prepared(tiny_lm, tmp_path)
    loss, found = gradients(objective, learner)
    checkpoint_layers(learner.model)
    again = gradients(objective, learner)
    assert again[0] == loss
    assert all(torch.equal(a, b) for a, b in zip(again[1], found, strict=True))


def test_the_loss_over_codes_is_minus_the_logarithm_of_what_decoding_ranks_by(tiny_lm, tmp_path):
    learner, objective, families = prepared(tiny_lm, tmp_path, codes=True, count=3)
    trie, items = objective.choices.trie, len(shop()[1].item_ids)
    prompts = [list(s.ids[: s.answer]) for f in families for s in f.sequences]
    wanted = [item for f in families for item in f.items]
    ranked, scores = decode(learner.model, trie, prompts, items, exact=True)
    own = scores[ranked == torch.tensor(wanted)[:, None]]
    with torch.no_grad():
        found = sum(float(part()) for part in objective.parts(range(len(families))))
    assert found == pytest.approx(-float(own.sum()), rel=1e-4)
    assert objective.supervised(range(len(families))) == trie.levels * len(prompts)


def test_words_keep_the_whole_vocabulary_beside_codes(tiny_lm, tmp_path):
    learner, objective, families = prepared(tiny_lm, tmp_path, tasks=(TITLE,), codes=True, count=2)
    found = float(evaluate(objective, range(2), batch=2, device=learner.model.device))
    expected = float(reference_loss(learner.model, families).detach()) / objective.supervised(range(2))
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("codes", [False, True])
def test_adapters_learn_as_pefts_and_new_rows_as_the_models(tiny_lm, tmp_path, codes):
    learner, objective, families = prepared(tiny_lm, tmp_path, tasks=(NEXT, TO_CODE), rank=2, codes=codes, count=4)
    for parameter in learner.parameters[1:]:
        parameter.data += 0.02  # B starts at zero: nothing would reach A
    loss, found = gradients(objective, learner)
    assert all(g is not None for g in found)
    if codes:
        return
    weight = learner.model.get_input_embeddings().weight.requires_grad_(True)
    learner.model.set_attn_implementation("eager")
    expected = reference_loss(learner.model, families)
    assert loss == pytest.approx(float(expected.detach()), rel=1e-5)
    of_rows, *of_adapters = torch.autograd.grad(expected, [weight, *learner.parameters[1:]])
    assert_close(found, [of_rows[learner.rows.ids], *of_adapters])


def run(source, out, config=CONFIG, **options):
    options = {"lessons": lessons(count=12), "sids": shop()[1], "compute": "float32", **options}
    records = []
    fine_tune_checkpoint(source, out, config=config, progress=records.append, **options)
    return records


def test_checkpoint_in_checkpoint_out(tiny_lm, tmp_path):
    start = extended(tiny_lm(), tmp_path / "start")
    records = run(start, tmp_path / "sft", replace(CONFIG, steps=12, every=4, watch="recall@5", learning_rate=3e-3))
    assert [r.step for r in records] == list(range(1, 13))
    assert records[-1].loss < 0.8 * records[0].loss
    assert {"effective_rank", "dispersion_ratio", "rsa", "validation_loss", "recall@5"} <= set(records[3].evaluation)
    sidecar = read_sidecar(tmp_path / "sft")
    assert (sidecar.stage, sidecar.step, sidecar.parent) == ("sft", 12, str(start))
    before, after = (load_file(folder / "model.safetensors") for folder in (start, tmp_path / "sft"))
    assert before.keys() == after.keys()
    assert not any(torch.equal(before[name], after[name]) for name in before)
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "base") == ["sft", "start"]


def test_adapters_are_merged_into_an_ordinary_checkpoint(tiny_lm, tmp_path):
    start = extended(tiny_lm(), tmp_path / "start")
    records = run(start, tmp_path / "sft", replace(CONFIG, rank=2, learning_rate=1e-2, every=6))
    before, after = (load_file(folder / "model.safetensors") for folder in (start, tmp_path / "sft"))
    ids = read_sidecar(start).ids
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert {name.split(".")[-2] for name in moved} == {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "embed_tokens",
    }  # fmt: skip
    old = torch.ones(len(before["model.embed_tokens.weight"]), dtype=torch.bool)
    old[ids] = False
    assert torch.equal(before["model.embed_tokens.weight"][old], after["model.embed_tokens.weight"][old])
    # what was saved is what was trained: its loss is the last one measured
    model, tokenizer = load_language_model(tmp_path / "sft")
    families = encode_families(lessons().validation, tokenizer, max_tokens=500, weights={})
    tokens = sum(f.targets for f in families)
    assert float(reference_loss(model, families)) / tokens == pytest.approx(
        records[-1].evaluation["validation_loss"], rel=1e-4
    )


def test_the_type_of_a_checkpoint_is_kept_while_small_steps_add_up(tiny_lm, tmp_path):
    start = extended(tiny_lm(), tmp_path / "start")
    model, tokenizer = load_language_model(start, dtype="bfloat16")
    model.save_pretrained(tmp_path / "half")
    for name in ("gti.json", "codebooks.safetensors"):
        (tmp_path / "half" / name).write_bytes((start / name).read_bytes())
    tokenizer.save_pretrained(tmp_path / "half")
    run(tmp_path / "half", tmp_path / "sft", replace(CONFIG, steps=12, learning_rate=1e-4), compute="bfloat16")
    before, after = (load_file(tmp_path / n / "model.safetensors") for n in ("half", "sft"))
    name = "model.layers.0.mlp.up_proj.weight"
    assert after[name].dtype == torch.bfloat16
    assert float((before[name] != after[name]).float().mean()) > 0.2


def test_a_run_that_was_stopped_goes_on_bit_for_bit(tiny_lm, tmp_path):
    start = extended(tiny_lm(), tmp_path / "start")
    config = replace(CONFIG, every=3, patience=9)
    whole = run(start, tmp_path / "whole", config)

    class Killed(Exception):
        pass

    def stop(record):
        if record.step == 5:
            raise Killed

    with pytest.raises(Killed):
        fine_tune_checkpoint(
            start, tmp_path / "sft", lessons=lessons(count=12), sids=shop()[1], config=config, compute="float32",
            progress=stop, save_every=2,
        )  # fmt: skip
    rest = run(start, tmp_path / "sft", config, save_every=2)
    assert [r.step for r in rest] == [5, 6]
    assert rest[-1].loss == whole[-1].loss and rest[-1].evaluation == whole[-1].evaluation
    one, two = (load_file(tmp_path / n / "model.safetensors") for n in ("whole", "sft"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    lines = [json.loads(line)["step"] for line in (tmp_path / "sft" / "metrics.jsonl").read_text().splitlines()]
    assert lines == list(range(1, 7))


def test_early_stop_leaves_the_best_weights(tiny_lm, tmp_path):
    start = extended(tiny_lm(), tmp_path / "start")
    config = replace(CONFIG, steps=200, batch=12, learning_rate=2e-2, every=2, patience=2, schedule="constant")
    records = run(start, tmp_path / "sft", config)
    losses = [r.evaluation["validation_loss"] for r in records if r.evaluation]
    assert len(records) < 200 and losses.index(min(losses)) == len(losses) - 3
    model, tokenizer = load_language_model(tmp_path / "sft")
    families = encode_families(lessons().validation, tokenizer, max_tokens=500, weights={})
    found = float(reference_loss(model, families)) / sum(f.targets for f in families)
    assert found == pytest.approx(min(losses), rel=1e-4)


@pytest.mark.parametrize("change, message", [
    ({"loss": "banana"}, "loss 'banana' is unknown: use one of vocabulary, codes"),
    ({"watch": "recall@0"}, "'recall@0' cannot be watched: use validation_loss, or recall@K"),
    ({"learning_rate": -1.0}, "learning rate is -1.0"),
])  # fmt: skip
def test_settings_are_refused_before_anything_is_loaded(change, message):
    with pytest.raises(InputError, match=message):
        FineTuningConfig(**change)


def test_bad_input_is_refused(tiny_lm, tmp_path):
    base = tiny_lm()
    with pytest.raises(InputError, match="gti-train extend"):
        run(base, tmp_path / "sft")
    start = extended(base, tmp_path / "start")
    with pytest.raises(InputError, match="no examples to fine-tune on"):
        run(start, tmp_path / "sft", lessons=lessons(count=0))
    with pytest.raises(InputError, match="patience watches 'validation_loss', which is not measured"):
        run(start, tmp_path / "sft", replace(CONFIG, patience=2))
    other = replace(shop()[1], codebooks=(torch.zeros(9, 8), torch.zeros(5, 8)))
    with pytest.raises(InputError, match=r"'<a_6>' is no token of this checkpoint \(\d+ are not\)"):
        run(start, tmp_path / "sft", sids=other)
    assert not (tmp_path / "sft").exists()


def test_an_unknown_head_trains_every_weight_only(tiny_lm, tmp_path):
    with pytest.raises(InputError, match="the head of this model is not known"):
        prepared(tiny_lm, tmp_path, rank=2, way=Way(ONE, own_head=True))
    learner, objective, families = prepared(tiny_lm, tmp_path, way=Way(ONE, own_head=True), count=2)
    with torch.no_grad():
        found = sum(float(part()) for part in objective.parts(range(2)))
    assert found == pytest.approx(float(reference_loss(learner.model, families).detach()), rel=1e-5)


def test_a_model_without_layers_cannot_be_checkpointed():
    class Plain(torch.nn.Module):
        pass

    with pytest.raises(InputError, match="Plain does not say what its layers are"):
        checkpoint_layers(Plain())


def test_nothing_is_trained_before_it_is_asked_for(tiny_lm, tmp_path):
    learner, _, families = prepared(tiny_lm, tmp_path)
    before = [p.detach().clone() for p in learner.parameters]
    fine_tune(learner, families, CONFIG, compute=FLOAT)
    assert all(torch.equal(a, b) for a, b in zip(before, learner.parameters, strict=True))
