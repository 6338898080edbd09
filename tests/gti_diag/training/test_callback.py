"""The callback in real Trainer runs: what it logs, when it warns and stops, adapters, and sharded rows."""

import json
import logging
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from gti_diag.errors import InputError
from gti_diag.training import live_rows, watch
from gti_diag.training.callback import EmbeddingGeometryCallback

CODES = [f"<a_{code}>" for code in range(8)]


@pytest.fixture
def parts(tiny_lm):
    """A tiny causal LM with eight code tokens, its tokenizer, and examples in which the codes occur."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tiny_lm("ckpt", new_tokens=CODES)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = [tokenizer(f"the lamp {code} is warm")["input_ids"][:6] for code in CODES]
    data = [{"input_ids": row, "labels": row} for row in ids]
    return AutoModelForCausalLM.from_pretrained(folder), tokenizer, data


def trainer(parts, tmp_path, callback, *, tracker=None, **settings):
    from transformers import Trainer, TrainingArguments

    model, tokenizer, data = parts
    arguments = {"max_steps": 4, "per_device_train_batch_size": 4, "logging_steps": 100, "save_strategy": "no",
                 "report_to": [], "disable_tqdm": True, "use_cpu": True} | settings  # fmt: skip
    made = Trainer(model, TrainingArguments(str(tmp_path / "out"), **arguments), train_dataset=data,
                   processing_class=tokenizer, callbacks=[callback])  # fmt: skip
    if tracker is not None:  # where trackers stand: before the user's callbacks
        made.callback_handler.callbacks.insert(1, tracker)
    return made


def new_rows(parts) -> list[int]:
    return parts[1].convert_tokens_to_ids(CODES)


def test_measures_reach_the_history_and_trackers_every_n_steps(parts, tmp_path):
    from transformers import TrainerCallback

    class Tracker(TrainerCallback):
        seen: list = []  # noqa: RUF012

        def on_log(self, args, state, control, logs=None, **kwargs):
            self.seen.append((state.global_step, {name for name in logs if name.startswith("geometry/")}))

    run = trainer(parts, tmp_path, EmbeddingGeometryCallback(every=2), tracker=Tracker())
    run.train()
    expected = {f"geometry/{name}" for name in watch.DEFAULT}
    logged = {line["step"]: line for line in run.state.log_history if "geometry/norm_mean" in line}
    assert list(logged) == [0, 2, 4]
    assert [(step, names) for step, names in Tracker.seen if names] == [(step, expected) for step in (0, 2, 4)]
    assert logged[0]["geometry/old_row_drift"] == 0 < logged[4]["geometry/old_row_drift"]


def test_values_are_those_of_the_checkpoint_itself(parts, tmp_path):
    from gti_diag.measures import geometry

    callback = EmbeddingGeometryCallback(measures=list(watch.MEASURES), every=1)
    run = trainer(parts, tmp_path, callback, max_steps=1)
    run.train()
    rows = parts[0].get_input_embeddings().weight.detach()
    new = new_rows(parts)
    assert callback.watch.ids.tolist() == new
    last = [line for line in run.state.log_history if "geometry/mean_cosine" in line][-1]
    assert last["geometry/mean_cosine"] == pytest.approx(geometry.mean_cosine(rows[new]), rel=1e-6)
    expected = geometry.dispersion(rows[new]) / geometry.dispersion(rows[callback.watch.old])
    assert last["geometry/dispersion_ratio"] == pytest.approx(expected, rel=1e-6)
    assert not set(callback.watch.old.tolist()) & set(new)


def test_agreement_with_each_reference_is_logged(parts, tmp_path):
    from safetensors.torch import save_file

    from gti_diag.measures.partial import agreement

    known = new_rows(parts)[::-1]  # in another order, and one of them is not listed
    listed, generator = known[:7], torch.Generator().manual_seed(0)
    references = {name: torch.randn(7, 5, generator=generator) for name in ("codebooks", "item_means")}
    counts, levels = [1, 2, 3, 5, 8, 13, 21], [1, 1, 1, 1, 2, 2, 2]
    for name, vectors in references.items():
        save_file({name: vectors}, tmp_path / f"{name}.safetensors")
    sidecar = {"schema": 1, "new_tokens": CODES[::-1][:7], "ids": listed, "counts": counts, "levels": levels}
    sidecar |= {name: f"{name}.safetensors" for name in references}
    (tmp_path / "gti.json").write_text(json.dumps(sidecar))
    run = trainer(parts, tmp_path, EmbeddingGeometryCallback(references=tmp_path, every=1), max_steps=1)
    run.train()
    rows = parts[0].get_input_embeddings().weight.detach()[listed]
    last = [line for line in run.state.log_history if "geometry/rsa" in line][-1]
    for name, vectors in (("rsa", references["item_means"]), ("rsa_codebooks", references["codebooks"])):
        held = {"counts": torch.tensor(counts), "levels": torch.tensor(levels)}
        assert last[f"geometry/{name}"] == pytest.approx(agreement(rows, vectors, **held).value, abs=1e-6)
        assert f"geometry/{name}_level_1" in last and f"geometry/{name}_level_2" not in last, "3 tokens have no RSA"
    other = EmbeddingGeometryCallback(new=[3, 4], references=tmp_path)
    with pytest.raises(InputError, match="no new token is among those of"):
        other.watch.begin(parts[0], parts[1])
    del sidecar["codebooks"], sidecar["item_means"]
    (tmp_path / "gti.json").write_text(json.dumps(sidecar))
    with pytest.raises(InputError, match=r"names no item_means and no codebooks"):
        EmbeddingGeometryCallback(references=tmp_path)


@pytest.mark.parametrize("action,steps", [("warn", 4), ("stop", 1), ("ignore", 4)])
def test_a_collapse_is_told_once_or_stops(parts, tmp_path, caplog, action, steps):
    weight = parts[0].get_input_embeddings().weight
    weight.data[new_rows(parts)] = weight.data.mean(0)
    run = trainer(parts, tmp_path, EmbeddingGeometryCallback(every=1, on_collapse=action), learning_rate=0.0)
    with caplog.at_level(logging.WARNING, logger="gti_diag.training.watch"):
        run.train()
    told = [record.getMessage() for record in caplog.records if "near enough one point" in record.getMessage()]
    assert run.state.global_step == steps
    assert len(told) == (action != "ignore")
    undefined = run.state.log_history[-2]
    assert "geometry/effective_rank_centred" not in undefined, "identical rows have no centred rank"


@pytest.mark.parametrize("frozen", [True, False])
def test_old_rows_that_move_although_frozen_stop_the_run(parts, tmp_path, caplog, frozen):
    """A gradient mask does not freeze: weight decay still shrinks the old rows."""
    model = parts[0]
    mask = torch.zeros(model.get_input_embeddings().weight.shape[0], 1)
    mask[new_rows(parts)] = 1
    model.get_input_embeddings().weight.register_hook(lambda gradient: gradient * mask)
    callback = EmbeddingGeometryCallback(every=1, on_drift="stop")
    decay = 0.0 if frozen else 0.5
    run = trainer(parts, tmp_path, callback, weight_decay=decay, learning_rate=1e-2)
    with caplog.at_level(logging.WARNING, logger="gti_diag.training.watch"):
        run.train()
    assert run.state.global_step == (4 if frozen else 1)
    assert any("does weight decay or momentum reach them" in r.getMessage() for r in caplog.records) is not frozen


def test_a_head_of_its_own_is_measured_too(tiny_lm, parts, tmp_path):
    from transformers import AutoModelForCausalLM

    untied = AutoModelForCausalLM.from_pretrained(tiny_lm("untied", tied=False, new_tokens=CODES))
    head = untied.get_output_embeddings().weight
    head.data[new_rows(parts)] = head.data.mean(0)
    run = trainer((untied, *parts[1:]), tmp_path, EmbeddingGeometryCallback(every=1), max_steps=1, learning_rate=0.0)
    run.train()
    last = [line for line in run.state.log_history if "geometry/norm_mean" in line][-1]
    assert last["geometry/output/dispersion_ratio"] < 1e-6 < 0.1 < last["geometry/dispersion_ratio"]


@pytest.mark.parametrize("settings", [{"trainable_token_indices": True}, {"target_modules": ["embed_tokens"]},
                                      {"modules_to_save": ["embed_tokens"]}])  # fmt: skip
def test_rows_are_those_the_model_uses_with_a_peft_adapter(parts, settings):
    import peft

    model, _, _ = parts
    new = torch.tensor(new_rows(parts))
    if "trainable_token_indices" in settings:
        settings = {"trainable_token_indices": {"embed_tokens": new.tolist()}}
    before = model.get_input_embeddings().weight.detach()[new].clone()
    wrapped = peft.get_peft_model(model, peft.LoraConfig(**{"target_modules": ["q_proj"], **settings}))
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if parameter.requires_grad and "embed" in name:
                parameter.add_(0.5)
    read = live_rows.readers(wrapped)["input"](new)
    assert read.shape == before.shape
    assert not torch.allclose(read, before)
    torch.testing.assert_close(read, wrapped.get_input_embeddings()(new))


def test_ids_come_from_a_pattern_from_code_tokens_or_as_given(parts):
    tokenizer, new = parts[1], new_rows(parts)
    rows = len(tokenizer)
    assert watch.new_ids(None, tokenizer, rows=rows).tolist() == new
    assert watch.new_ids("^<a_[01]>$", tokenizer, rows=rows).tolist() == new[:2]
    assert watch.new_ids(torch.tensor(new[::-1]), None, rows=rows).tolist() == new


@pytest.mark.parametrize(
    "new,message",
    [("<z_", "'<z_' matches no token"), ([10**6], "must be rows of the embedding"), ([], "must be rows")],
)
def test_no_new_rows_is_an_error(parts, new, message):
    with pytest.raises(InputError, match=message):
        watch.new_ids(new, parts[1], rows=400)


@pytest.mark.parametrize(
    "settings,message",
    [({"measures": ["rank"]}, "no measure 'rank': choose from dispersion_ratio"),
     ({"on_collapse": "raise"}, "on_collapse='raise': choose from ignore, warn, stop"),
     ({"every": 0}, "every=0: measure every 1 step")],
)  # fmt: skip
def test_settings_that_do_not_exist_are_refused_before_training(settings, message):
    with pytest.raises(InputError, match=message):
        EmbeddingGeometryCallback(**settings)


def test_ids_without_a_tokenizer_must_be_given():
    with pytest.raises(InputError, match="without a tokenizer they cannot be found"):
        watch.new_ids(None, None, rows=10)


def test_at_most_1024_rows_of_each_kind_are_read(parts, tmp_path, monkeypatch):
    monkeypatch.setattr(watch, "MOST_ROWS", 5)
    read = []
    monkeypatch.setattr(live_rows, "input_rows", lambda embedding, ids: read.append(len(ids)) or embedding(ids))
    trainer(parts, tmp_path, EmbeddingGeometryCallback(every=1), max_steps=1).train()
    assert read == [10, 10]


def test_a_model_inside_a_wrapper_is_found(parts):
    class Wrapper(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.module = inner

    assert live_rows.unwrapped(Wrapper(Wrapper(parts[0]))) is parts[0]


@pytest.mark.parametrize("action,steps", [("warn", 4), ("stop", 2)])
def test_lightning_logs_and_stops_alike(parts, tmp_path, action, steps):
    import lightning.pytorch as lightning
    from lightning.pytorch.loggers import Logger

    from gti_diag.training.lightning_callback import LightningEmbeddingGeometry

    class Module(lightning.LightningModule):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def training_step(self, batch, index):
            return self.model(input_ids=batch, labels=batch).loss

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.0)

    class Record(Logger):
        name, version, seen = "record", 0, []

        def log_metrics(self, metrics, step=None):
            self.seen.append((step, metrics.get("geometry/dispersion_ratio")))

        def log_hyperparams(self, *args, **kwargs):
            pass

    Record.seen = []
    model, tokenizer, data = parts
    weight = model.get_input_embeddings().weight
    weight.data[new_rows(parts)] = weight.data.mean(0)
    batches = torch.utils.data.DataLoader([torch.tensor(row["input_ids"]) for row in data], batch_size=2)
    callback = LightningEmbeddingGeometry(tokenizer=tokenizer, every=2, on_collapse=action)
    run = lightning.Trainer(max_steps=4, callbacks=[callback], logger=Record(), accelerator="cpu", enable_progress_bar=False,
                            enable_model_summary=False, enable_checkpointing=False, default_root_dir=tmp_path)  # fmt: skip
    run.fit(Module(model), batches)
    assert run.global_step == steps
    looks = [(step, ratio) for step, ratio in Record.seen if ratio is not None]
    assert [step for step, _ in looks] == list(range(0, steps + 1, 2))
    assert max(ratio for _, ratio in looks) < 1e-6


SHARDED = """
import sys
import torch
from torch import distributed, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.device_mesh import init_device_mesh
from gti_diag.training.live_rows import input_rows, matrix_rows

distributed.init_process_group("gloo", init_method=f"file://{sys.argv[1]}", rank=int(sys.argv[2]), world_size=2)
torch.manual_seed(0)
embedding = nn.Embedding(11, 3)  # 11 rows over 2 processes: 6 and 5
whole = embedding.weight.detach().clone()
ids = torch.tensor([10, 0, 5, 6, 5])
model = nn.Sequential(embedding, nn.Linear(3, 3))
fully_shard(model, mesh=init_device_mesh("cpu", (distributed.get_world_size(),)))
assert type(embedding.weight).__name__ == "DTensor"
assert embedding.weight.to_local().shape[0] < 11
assert torch.equal(input_rows(embedding, ids), whole[ids])
assert torch.equal(matrix_rows(embedding.weight, ids), whole[ids])
print("equal", flush=True)
distributed.destroy_process_group()
"""


def test_rows_of_a_matrix_sharded_by_fsdp_are_gathered_exactly(tmp_path):
    script = tmp_path / "sharded.py"
    script.write_text(SHARDED)
    running = [
        subprocess.Popen(
            [sys.executable, str(script), str(tmp_path / "store"), rank], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for rank in "01"
    ]  # fmt: skip
    printed = [process.communicate(timeout=120)[0] for process in running]
    assert all("equal" in text for text in printed), "\n".join(printed)
