"""The stage learns, moves nothing else, and equals the paper's Algorithm 1."""

import hashlib
import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from gti_diag.errors import InputError
from gti_diag.measures.partial import agreement
from gti_train.grounding.geometry import row_geometry
from gti_train.grounding.ground import GroundingConfig, ground
from gti_train.grounding.objective import SPLIT, Answers, answers
from gti_train.grounding.stage import ground_checkpoint
from gti_train.grounding.unfrozen import EveryParameter
from gti_train.loop.optim import schedule
from gti_train.loop.order import order
from gti_train.loop.trackers import Trackers
from gti_train.loop.training import LoopConfig, StepRecord, differentiated, evaluate
from gti_train.loop.watched import better
from gti_train.model.loading import load_language_model
from gti_train.model.matrices import matrices
from gti_train.model.new_rows import NewRows
from gti_train.model.prefixes import Prefixes
from gti_train.model.sidecar import read_sidecar
from gti_train.model.vocabulary import extend, extend_checkpoint
from tests.conftest import tiny_config

from .grounding_cases import CODES, EXAMPLES, encoded, extended, reference_gradients, reference_loss

CONFIG = GroundingConfig(steps=30, batch=4, learning_rate=5e-3, warmup=3)


def digest(model, without=()):
    """A hash of every weight but the rows `without`."""
    hashed = hashlib.sha256()
    for name, parameter in model.named_parameters():
        kept = parameter.data.clone()
        if any(parameter is weight for weight in matrices(model).values()):
            kept[list(without)] = 0
        hashed.update(name.encode() + kept.view(torch.uint8).numpy().tobytes())
    return hashed.hexdigest()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_only_new_rows_move_and_the_loss_falls(tiny_lm, tied, dtype):
    model, tokenizer, ids = extended(tiny_lm(tied=tied), dtype=dtype)
    before, old = digest(model, ids), {n: w.data[ids].clone() for n, w in matrices(model).items()}
    records = list(ground(model, tokenizer, EXAMPLES, CONFIG, ids=ids))
    assert digest(model, ids) == before
    assert [r.step for r in records] == list(range(1, 31))
    assert sum(r.loss for r in records[-5:]) < 0.95 * sum(r.loss for r in records[:5])
    for name, weight in matrices(model).items():
        assert (weight.data[ids] != old[name]).any(1).all()


@pytest.mark.parametrize("tied", [True, False])
def test_two_hundred_steps_are_algorithm_1(tiny_lm, tied):
    model, tokenizer, ids = extended(tiny_lm(tied=tied))
    config = GroundingConfig(steps=200, batch=4, learning_rate=1e-3, warmup=1, clip=1.0)
    twin, _, _ = extended(tiny_lm("twin", tied=tied))
    list(ground(model, tokenizer, EXAMPLES, config, ids=ids))

    twin.set_attn_implementation("eager")
    sequences, weights = encoded(tokenizer, ids), matrices(twin)
    optimizer = torch.optim.AdamW(weights.values(), lr=1e-3, weight_decay=0.0)
    batches = order(len(sequences), batch=4, seed=0)
    for _ in range(200):
        batch = [sequences[i] for i in next(batches)]
        gradients = reference_gradients(twin, ids, batch)
        for name, weight in weights.items():
            weight.grad = torch.zeros_like(weight)
            weight.grad[ids] = gradients[name] / sum(s.supervised for s in batch)
        torch.nn.utils.clip_grad_norm_(weights.values(), 1.0)
        optimizer.step()
    for name, weight in matrices(model).items():
        torch.testing.assert_close(weight.data[ids], weights[name].data[ids], rtol=0, atol=1e-4)


@pytest.mark.parametrize("tied", [True, False])
def test_gradients_are_those_of_pefts_trainable_tokens(tiny_lm, tied):
    from peft import TrainableTokensConfig, get_peft_model

    model, tokenizer, ids = extended(tiny_lm(tied=tied))
    sequences, rows = encoded(tokenizer, ids), NewRows(model, ids)
    prefixes = Prefixes(model, sequences, schedule=[], budget=0, overhead=64, limit=1024)
    goal = Answers(model, rows, sequences, way="split", pad=2, micro_tokens=1024, prefixes=prefixes)
    list(differentiated(goal, range(10), list(rows.masters.values()), 1))
    targets = {"input": "embed_tokens"} if tied else {"input": "embed_tokens", "output": "lm_head"}
    peer = get_peft_model(model, TrainableTokensConfig(token_indices=ids, target_modules=list(targets.values())))
    reference_loss(peer, sequences).backward()
    trained = {name: p.grad for name, p in peer.named_parameters() if p.requires_grad}
    assert len(trained) == len(targets)
    for matrix, layer in targets.items():
        expected = next(gradient for name, gradient in trained.items() if layer in name)
        found = rows.masters[matrix].grad
        assert float((found - expected).norm() / expected.norm()) < 1e-5


@pytest.mark.slow
def test_gradient_on_a_real_model(smollm2):
    model, tokenizer = load_language_model(smollm2, dtype="float32")
    ids = extend(model, tokenizer, CODES)
    weight = matrices(model)["input"]
    weight.data[ids] += torch.randn(len(ids), weight.shape[1], generator=torch.Generator().manual_seed(0)) * 0.1
    sequences = encoded(tokenizer, ids, EXAMPLES[:2] + EXAMPLES[5:7])
    rows = NewRows(model, ids)
    prefixes = Prefixes(model, sequences, schedule=[], budget=0, overhead=64, limit=1024)
    goal = Answers(model, rows, sequences, way="split", pad=2, micro_tokens=1024, prefixes=prefixes)
    model.set_attn_implementation("eager")
    loss = sum(differentiated(goal, range(4), list(rows.masters.values()), 1))
    expected = reference_gradients(model, ids, sequences)["input"]
    assert float(loss) == pytest.approx(float(reference_loss(model, sequences)), rel=1e-5)
    assert float((rows.masters["input"].grad - expected).norm() / expected.norm()) < 1e-5


@pytest.mark.parametrize("cache", [0, 1 << 30])
def test_parts_side_by_side_are_the_same_step(tiny_lm, cache):
    def rows(threads):
        torch.set_num_threads(threads)
        model, tokenizer, ids = extended(tiny_lm(), dtype=torch.float32)
        list(ground(model, tokenizer, EXAMPLES, GroundingConfig(steps=12, batch=6, cache_bytes=cache), ids=ids))
        return matrices(model)["input"].data[ids].clone()

    before = torch.get_num_threads()
    try:
        one, two, again = rows(1), rows(2), rows(2)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(two, again)
    torch.testing.assert_close(one, two, rtol=0, atol=1e-5)


def test_small_steps_add_up_in_float32_masters(tiny_lm):
    # One step of 1e-5 is below what a bfloat16 entry of this size can show; a hundred are not.
    model, tokenizer, ids = extended(tiny_lm(), dtype=torch.bfloat16)
    before = matrices(model)["input"].data[ids].clone()
    config = GroundingConfig(steps=100, batch=10, learning_rate=1e-5, warmup=0)
    moved = []
    for _ in ground(model, tokenizer, EXAMPLES, config, ids=ids):
        moved.append(float((matrices(model)["input"].data[ids] != before).float().mean()))
    assert moved[0] < 0.2
    assert moved[-1] > 2 * moved[0]
    assert moved[-1] > 0.4


def test_a_step_does_not_depend_on_micro_batches_or_kept_prefixes(tiny_lm):
    losses = []
    for change in ({}, {"micro_tokens": 1}, {"cache_bytes": 0}):
        model, tokenizer, ids = extended(tiny_lm(f"m{len(losses)}"))
        config = GroundingConfig(steps=6, batch=8, **change)
        losses.append([r.loss for r in ground(model, tokenizer, EXAMPLES, config, ids=ids)])
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert losses[2] == pytest.approx(losses[0], rel=1e-5)


def test_the_first_loss_is_the_models_own_mean_over_answer_tokens(tiny_lm):
    model, tokenizer, ids = extended(tiny_lm())
    sequences = encoded(tokenizer, ids)
    expected = float(reference_loss(model, sequences)) / sum(s.supervised for s in sequences)
    record = next(iter(ground(model, tokenizer, EXAMPLES, GroundingConfig(steps=1, batch=10), ids=ids)))
    assert record.loss == pytest.approx(expected, rel=1e-5)
    assert record.supervised == sum(s.supervised for s in sequences)


def test_evaluations_carry_geometry_and_held_out_loss(tiny_lm):
    model, tokenizer, ids = extended(tiny_lm())
    books = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    geometry = row_geometry(
        matrices(model)["input"].data[:300], references={"codebooks": books}, levels=[1] * 4 + [2] * 4
    )
    config = GroundingConfig(steps=7, batch=4, every=3)
    given = {"ids": ids, "held_out": EXAMPLES[4:5], "geometry": geometry}
    records = list(ground(model, tokenizer, EXAMPLES[:4], config, **given))
    assert [bool(r.evaluation) for r in records] == [False, False, True, False, False, True, True]
    names = {"effective_rank", "effective_rank_centred", "dispersion_ratio", "rsa", "rsa_level_1", "rsa_level_2"}
    assert set(records[2].evaluation) == {*names, "held_out_loss"}
    expected = geometry(matrices(model)["input"].data[ids])
    assert {n: records[-1].evaluation[n] for n in names} == pytest.approx(expected, abs=1e-6)


def test_undefined_geometry_is_left_out():
    values = row_geometry(torch.randn(9, 4), references={"codebooks": torch.randn(3, 2)}, levels=[1, 1, 1])(
        torch.ones(3, 4)
    )
    assert "rsa" not in values
    assert values["dispersion_ratio"] == 0


def test_agreement_is_with_item_means_first_and_holds_counts_constant():
    generator = torch.Generator().manual_seed(0)
    means, books = torch.randn(12, 5, generator=generator), torch.randn(12, 3, generator=generator)
    rows, counts = means + torch.randn(12, 5, generator=generator), list(range(12))
    means[11] = 0  # no item carries it
    levels = [1] * 6 + [2] * 6
    measure = row_geometry(
        torch.randn(9, 5), references={"codebooks": books, "item_means": means}, counts=counts, levels=levels
    )
    values = measure(rows)
    expected = {}
    for name, vectors, last in (("rsa", means, 11), ("rsa_codebooks", books, 12)):
        kept = {"": slice(0, last), "_level_1": slice(0, 6), "_level_2": slice(6, last)}
        for suffix, some in kept.items():
            held = {"counts": torch.tensor(counts)[some], "levels": torch.tensor(levels)[some]}
            expected[name + suffix] = agreement(rows[some], vectors[some], **held).value
    assert {name: values[name] for name in values if name.startswith("rsa")} == pytest.approx(expected, abs=1e-9)


def test_early_stop_leaves_the_best_rows(tiny_lm):
    model, tokenizer, ids = extended(tiny_lm())
    config = GroundingConfig(steps=400, batch=4, learning_rate=2e-2, every=5, patience=2)
    seen = []
    for record in ground(model, tokenizer, EXAMPLES[:8], config, ids=ids, held_out=EXAMPLES[8:]):
        if record.evaluation:
            seen.append((record.evaluation["held_out_loss"], matrices(model)["input"].data[ids].clone()))
    assert len(seen) < 80
    losses = [loss for loss, _ in seen]
    assert losses.index(min(losses)) == len(losses) - 3
    assert torch.equal(matrices(model)["input"].data[ids], seen[-3][1])


def test_patience_needs_something_to_watch(tiny_lm):
    model, tokenizer, ids = extended(tiny_lm())
    for change in ({"every": 5}, {"watch": "rsa", "every": 5}, {"every": 0}):
        with pytest.raises(InputError, match="which is not measured: set every"):
            next(ground(model, tokenizer, EXAMPLES, GroundingConfig(patience=1, **change), ids=ids))


@pytest.mark.parametrize("change, message", [
    ({"watch": "banana"}, "'banana' cannot be watched: use one of held_out_loss, rsa"),
    ({"learning_rate": -1.0}, "learning rate is -1.0: give a finite number"),
    ({"learning_rate": float("nan")}, "learning rate is nan"),
    ({"schedule": "steep"}, "schedule 'steep' is unknown"),
])  # fmt: skip
def test_settings_are_refused_before_anything_is_loaded(change, message):
    with pytest.raises(InputError, match=message):
        GroundingConfig(**change)


def test_patience_on_rsa_needs_a_reference(tiny_lm, tmp_path):
    extend_checkpoint(tiny_lm(), tmp_path / "mean", tokens=CODES)
    config = GroundingConfig(steps=2, every=1, patience=1, watch="rsa")
    with pytest.raises(InputError, match=r"patience watches rsa, but .*mean has no reference"):
        ground_checkpoint(tmp_path / "mean", tmp_path / "gti", examples=EXAMPLES, config=config)


@pytest.mark.parametrize("rates", [(1e38, 0.0), (0.0, 1e38)])
def test_a_run_that_leaves_the_numbers_is_refused(tiny_lm, tmp_path, rates):
    extend_checkpoint(tiny_lm(), tmp_path / "mean", tokens=CODES)
    config = GroundingConfig(steps=1, learning_rate=rates[0], warmup=0)
    then = LoopConfig(steps=2, learning_rate=rates[1], warmup=0)
    with pytest.raises(InputError, match=r"is (nan|inf) at step \d, the run has diverged: lower the learning rate"):
        ground_checkpoint(tmp_path / "mean", tmp_path / "gti", examples=EXAMPLES, config=config, then=then)
    assert not (tmp_path / "gti").exists()


def test_a_held_out_loss_that_is_no_number_is_refused(tiny_lm):
    model, tokenizer, ids = extended(tiny_lm())
    config = GroundingConfig(steps=2, learning_rate=1e38, warmup=0, every=1)
    with pytest.raises(InputError, match=r"held-out loss is (nan|inf) at step 1"):
        list(ground(model, tokenizer, EXAMPLES[:8], config, ids=ids, held_out=EXAMPLES[8:]))


def test_a_value_that_is_no_number_is_not_an_improvement():
    record = StepRecord(2, 1.0, 1.0, 1e-3, 1, 0.1, {"held_out_loss": float("nan")})
    best = {"value": 3.0, "step": 1, "stale": 0, "rows": []}
    assert better(best, record, [], watch="held_out_loss") == best
    assert row_geometry(torch.randn(9, 4))(torch.full((3, 4), float("nan"))) == {}


def test_sequences_are_no_longer_than_the_positions_of_the_model(tiny_lm):
    model, tokenizer, ids = extended(tiny_lm())
    model.config.max_position_embeddings = 8
    with pytest.raises(InputError, match="tokens, 8 is the most"):
        next(ground(model, tokenizer, EXAMPLES, CONFIG, ids=ids))


MOE = {"num_experts_per_tok": 2, "moe_intermediate_size": 32}
LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "head_dim": 8}
UNUSUAL = {
    # family: what its config needs, and the way that remains
    "gpt_oss": ({"num_local_experts": 4, **MOE}, "split"),  # attention sinks
    "deepseek_v3": ({"n_routed_experts": 4, "n_group": 1, "topk_group": 1, "num_key_value_heads": 4, **MOE, **LATENT}, "whole"),
    "lfm2": ({"layer_types": ["conv", "full_attention"]}, "whole"),  # a state that is no key and value
    "llama4_text": ({"num_local_experts": 2, "interleave_moe_layer_step": 1, **MOE}, "exact"),
}  # fmt: skip


@pytest.mark.parametrize("family", UNUSUAL)
def test_unusual_models_are_grounded_by_a_way_that_fits(tiny_lm, tiny_tokenizer, family):
    _, tokenizer = load_language_model(tiny_lm())
    changes, way = UNUSUAL[family]
    config = tiny_config(family, len(tokenizer), False, **changes)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).float().eval()
    ids = extend(model, tokenizer, CODES)
    sequences, own = encoded(tokenizer, ids), model.config._attn_implementation
    expected = float(reference_loss(model, sequences)) / sum(s.supervised for s in sequences)
    goal = answers(model, NewRows(model, ids), sequences, CONFIG, train_count=10, pad=2)
    assert goal.way == way
    found = evaluate(goal, range(10), batch=10, device=model.device)
    assert found == pytest.approx(expected, rel=1e-5)
    assert (model.config._attn_implementation == own) == (family in ("gpt_oss", "llama4_text"))


def objective(tiny_lm, family):
    """The objective of a tiny random model of a family."""
    _, tokenizer = load_language_model(tiny_lm())
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(tiny_config(family, len(tokenizer), False)).float().eval()
    ids = extend(model, tokenizer, CODES)
    return answers(model, NewRows(model, ids), encoded(tokenizer, ids), CONFIG, train_count=10, pad=2)


@pytest.mark.parametrize("family", sorted(SPLIT - {"gpt_oss"}))
def test_families_that_are_known_run_their_prompts_once(tiny_lm, family, caplog):
    assert objective(tiny_lm, family).way == "split"
    assert "the fast way" not in caplog.text


def test_a_known_family_that_takes_a_slower_way_says_so(tiny_lm, monkeypatch, caplog):
    monkeypatch.setattr("gti_train.model.caches.NAMES", ("a name of tomorrow",))
    assert objective(tiny_lm, "llama").way == "whole"
    assert "LlamaForCausalLM is known to run prompts once (the fast way) but does not with transformers" in caplog.text
    caplog.clear()
    monkeypatch.setattr("gti_train.grounding.objective.SPLIT", set())
    assert objective(tiny_lm, "llama").way == "whole"
    assert not caplog.records


def test_an_evaluation_is_summed_where_the_processes_can_add_it_up(monkeypatch):
    class Nothing:
        side_by_side = False
        supervised = len
        parts = staticmethod(lambda indices: [])

    seen = []
    monkeypatch.setattr("gti_train.loop.training.total", lambda loss: seen.append(loss.device) or torch.zeros(()))
    evaluate(Nothing, [0], batch=1, device=torch.device("meta"))
    assert seen == [torch.device("meta")]


def test_the_loss_of_the_second_phase_is_the_models_own(tiny_lm):
    model, tokenizer, ids = extended(tiny_lm(family="gemma2"))
    sequences = encoded(tokenizer, ids)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gti_train.grounding.unfrozen.best_dtype", lambda device: torch.float32)
        found = sum(float(part()) for part in EveryParameter(model, sequences, pad=2).parts(range(10)))
    assert found == pytest.approx(float(reference_loss(model, sequences)), rel=1e-5)


def test_trackers_are_accelerates_own(tmp_path):
    from accelerate.tracking import GeneralTracker

    class Kept(GeneralTracker):
        name, requires_logging_directory = "kept", False
        tracker, main_process_only = None, True

        def __init__(self):
            super().__init__()
            self.seen = []

        def store_init_configuration(self, values):
            self.seen.append(values)

        def log(self, values, step=None, **_):
            self.seen.append((step, values))

    kept = Kept()
    trackers = Trackers([kept], folder=tmp_path, config={"steps": 3, "skipped": None})
    trackers.log(StepRecord(2, 0.5, 1.0, 1e-3, 9, 0.1, {"rsa": 0.25}))
    trackers.close()
    assert kept.seen[0] == {"steps": 3}
    step, values = kept.seen[1]
    assert (step, values["loss"], values["rsa"]) == (2, 0.5, 0.25)
    with pytest.raises(InputError, match="tracker 'nowhere' is not installed"):
        Trackers(["nowhere"], folder=tmp_path, config={})


def test_checkpoint_in_checkpoint_out(tiny_lm, tmp_path):
    base = tiny_lm()
    extend_checkpoint(base, tmp_path / "mean", tokens=CODES, codebooks=torch.randn(8, 3))
    steps = []
    config = GroundingConfig(steps=6, batch=4, every=3)
    ground_checkpoint(
        tmp_path / "mean", tmp_path / "gti", examples=EXAMPLES, config=config, progress=lambda r: steps.append(r.step)
    )
    assert steps == [1, 2, 3, 4, 5, 6]
    sidecar = read_sidecar(tmp_path / "gti")
    assert (sidecar.init, sidecar.stage, sidecar.step) == ("gti", "ground", 6)
    assert sidecar.codebooks == "codebooks.safetensors"
    assert sidecar.parent == str(tmp_path / "mean")
    lines = [json.loads(line) for line in (tmp_path / "gti" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == steps
    assert lines[2]["effective_rank"] >= 1
    start, _ = load_language_model(tmp_path / "mean")
    result, _ = load_language_model(tmp_path / "gti")
    assert digest(result, sidecar.ids) == digest(start, sidecar.ids)
    assert digest(result) != digest(start)
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "base") == ["gti", "mean"]


@pytest.mark.parametrize("tied, rows", [(True, None), (False, 416)])
def test_a_float32_checkpoint_survives_computing_in_bfloat16(tiny_lm, tmp_path, monkeypatch, tied, rows):
    monkeypatch.setattr("gti_train.grounding.stage.best_dtype", lambda device: torch.bfloat16)
    extend_checkpoint(tiny_lm(tied=tied, rows=rows), tmp_path / "mean", tokens=CODES, init="gaussian")
    config = GroundingConfig(steps=3, batch=4, learning_rate=1e-5, warmup=0)
    ids = ground_checkpoint(tmp_path / "mean", tmp_path / "gti", examples=EXAMPLES, config=config).ids
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("mean", "gti"))
    assert before.keys() == after.keys()
    for name, old in before.items():
        new = after[name]
        assert new.dtype == torch.float32
        if "embed_tokens" in name or "lm_head" in name:
            assert 0 < (new[ids] - old[ids]).abs().max() < 4e-5  # three small steps, and no rounding to bfloat16
            old[ids] = new[ids]
        assert torch.equal(old, new), name


def test_no_two_models_are_held_at_once(tiny_lm, tmp_path, monkeypatch):
    import weakref

    extend_checkpoint(tiny_lm(), tmp_path / "mean", tokens=CODES)
    loaded, alive = [], []

    def load(*place, **options):
        alive.append(sum(model() is not None for model in loaded))
        model, tokenizer = load_language_model(*place, **options)
        loaded.append(weakref.ref(model))
        return model, tokenizer

    for place in ("grounding.stage", "model.loading"):
        monkeypatch.setattr(f"gti_train.{place}.load_language_model", load)
    given = {"config": GroundingConfig(steps=1, every=1), "then": LoopConfig(steps=1), "compute": "bfloat16"}
    ground_checkpoint(tmp_path / "mean", tmp_path / "gti", examples=EXAMPLES, **given)
    assert alive == [0, 0, 0]


def test_the_second_phase_starts_from_unrounded_weights(tiny_lm, tmp_path, monkeypatch):
    monkeypatch.setattr("gti_train.grounding.stage.best_dtype", lambda device: torch.bfloat16)
    extend_checkpoint(tiny_lm(), tmp_path / "mean", tokens=CODES, init="gaussian")
    phases = [GroundingConfig(steps=1, learning_rate=1e-5, warmup=0), LoopConfig(steps=1, learning_rate=1e-6, warmup=0)]
    ground_checkpoint(tmp_path / "mean", tmp_path / "gti", examples=EXAMPLES, config=phases[0], then=phases[1])
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("mean", "gti"))
    assert all((after[name] - old).abs().max() < 2e-5 for name, old in before.items())
    assert all(new.dtype == torch.float32 for new in after.values())


def test_a_folder_beside_the_result_that_is_not_ours_is_kept(tiny_lm, tmp_path):
    extend_checkpoint(tiny_lm(), tmp_path / "mean", tokens=CODES)
    (tmp_path / "gti.state").mkdir()
    (tmp_path / "gti.state" / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match=r"thesis\.tex is no state of gti-train"):
        ground_checkpoint(tmp_path / "mean", tmp_path / "gti", examples=EXAMPLES, config=CONFIG)
    assert (tmp_path / "gti.state" / "thesis.tex").read_text() == "years of work"


def test_what_trackers_write_stays(tiny_lm, tmp_path, monkeypatch):
    class Files(Trackers):
        def __init__(self, names, *, folder, config):
            super().__init__((), folder=folder, config=config)
            folder.mkdir()
            (folder / "events").touch()

    monkeypatch.setattr("gti_train.grounding.stage.Trackers", Files)
    extend_checkpoint(tiny_lm(), tmp_path / "mean", tokens=CODES)
    config = GroundingConfig(steps=1)
    ground_checkpoint(tmp_path / "mean", tmp_path / "gti", examples=EXAMPLES, config=config, track=["files"])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base", "gti", "gti.logs", "mean"]
    assert (tmp_path / "gti.logs" / "events").is_file()


def test_the_second_phase_moves_every_parameter(tiny_lm, tmp_path):
    extend_checkpoint(tiny_lm(), tmp_path / "mean", tokens=CODES, dtype="float32")
    phases = [GroundingConfig(steps=2, batch=10), LoopConfig(steps=12, batch=10, learning_rate=3e-3, warmup=2)]
    records = []
    ground_checkpoint(
        tmp_path / "mean", tmp_path / "gti", examples=EXAMPLES, config=phases[0], then=phases[1], dtype="float32",
        progress=records.append,
    )  # fmt: skip
    assert [r.step for r in records] == list(range(1, 15))
    assert records[-1].loss < 0.8 * records[2].loss
    start, end = (load_language_model(tmp_path / n, dtype="float32")[0] for n in ("mean", "gti"))
    assert not any(torch.equal(a, b) for a, b in zip(start.parameters(), end.parameters(), strict=True))


def test_bad_input_is_refused_before_anything_is_written(tiny_lm, tmp_path, monkeypatch):
    base = tiny_lm()
    with pytest.raises(InputError, match="gti-train extend"):
        ground_checkpoint(base, tmp_path / "out", examples=EXAMPLES, config=CONFIG)
    extend_checkpoint(base, tmp_path / "mean", tokens=CODES)
    with pytest.raises(InputError, match="no examples to ground on"):
        ground_checkpoint(tmp_path / "mean", tmp_path / "out", examples=[], config=CONFIG)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="is there and no checkpoint of gti-train"):
        ground_checkpoint(tmp_path / "mean", tmp_path / "file", examples=EXAMPLES, config=CONFIG)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="is there and no checkpoint of gti-train"):
        ground_checkpoint("mean", ".", examples=EXAMPLES, config=CONFIG)
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "file").read_text() == "mine"


def test_schedules():
    factors = {shape: [schedule(s, steps=10, warmup=4, shape=shape) for s in range(1, 11)] for shape in
               ("constant", "linear", "cosine")}  # fmt: skip
    assert factors["constant"] == [0.25, 0.5, 0.75] + [1.0] * 7
    for shape in ("linear", "cosine"):
        assert factors[shape][3] == pytest.approx(1)
        assert factors[shape][4:] == sorted(factors[shape][4:], reverse=True)
        assert 0 < factors[shape][-1] < 0.2
    with pytest.raises(InputError, match="schedule 'steep' is unknown"):
        schedule(9, steps=10, warmup=0, shape="steep")
