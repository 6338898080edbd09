"""Rows beside an adapter, its base where the named one cannot be had, and files that git left pointers for."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import gti_diag
from gti_diag.checkpoint import open_checkpoint
from gti_diag.errors import InputError
from gti_diag.tokens.groups import partition
from tests.gti_diag.checkpoint.test_adapters import NAME, write_adapter

LORA = {"layers.0.q_proj.lora_A.weight": torch.ones(2, 4)}


def base_rows(folder):
    return open_checkpoint(folder / "base").matrices["input"].rows()


def test_rows_of_added_tokens_beside_an_adapter_follow_the_base(tmp_path):
    write_adapter(tmp_path, LORA)
    added = {"input_embeddings": torch.rand(3, 4), "output_embeddings": torch.rand(3, 4)}
    save_file(added, tmp_path / "adapter" / "new_embeddings.safetensors")
    found = open_checkpoint(tmp_path / "adapter")
    assert torch.equal(found.matrices["input"].rows(), torch.cat([base_rows(tmp_path), added["input_embeddings"]]))
    assert partition(found).groups["new"].numbers == (8, 9, 10)
    assert found.notes[0].endswith("adds 3 rows of new_embeddings.safetensors")


@pytest.mark.filterwarnings("ignore")
def test_prompt_vectors_are_new_rows_against_the_text_of_the_base(tmp_path, tiny_lm):
    from peft import PromptTuningConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tiny_lm("base")
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=6)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(folder), config)
    model.save_pretrained(tmp_path / "adapter")
    prompt = model.get_prompt_embedding_to_save("default")
    found = open_checkpoint(tmp_path / "adapter")
    rows = open_checkpoint(folder).matrices["input"].shape[0]
    new = partition(found).groups["new"]
    assert new.numbers == tuple(range(rows, rows + 6))
    assert new.tokens == tuple(f"prompt {n}" for n in range(1, 7))
    assert torch.equal(found.matrices["input"].rows(new.ids), prompt)
    measured = gti_diag.diagnose(found)["matrices"]["input"]["groups"]
    assert measured["new"]["count"] == 6 and measured["text"]["count"] > 100


def test_keys_and_values_of_prefix_tuning_are_no_rows(tmp_path):
    write_adapter(tmp_path, {"prompt_embeddings": torch.rand(3, 16)}, peft_type="PREFIX_TUNING")
    with pytest.raises(InputError, match=r"no rows of 4 numbers as the base's; prefix tuning's keys and values"):
        open_checkpoint(tmp_path / "adapter")


def test_new_embeddings_of_an_unknown_name_are_refused(tmp_path):
    write_adapter(tmp_path, LORA)
    save_file({"x": torch.rand(3, 4)}, tmp_path / "adapter" / "new_embeddings.safetensors")
    with pytest.raises(InputError, match=r"new_embeddings\.safetensors: holds no 'input_embeddings', only x"):
        open_checkpoint(tmp_path / "adapter")


def test_a_given_base_stands_in_for_one_that_cannot_be_had(tmp_path):
    write_adapter(tmp_path, {"model.embed_tokens.weight": torch.ones(8, 4)}, base="someone/gone")
    with pytest.raises(InputError, match=r"whose base cannot be opened .*; give it with --base"):
        open_checkpoint(tmp_path / "adapter")
    base = open_checkpoint(tmp_path / "base")
    found = open_checkpoint(tmp_path / "adapter", base=base)
    assert torch.equal(found.matrices["input"].rows(), torch.ones(8, 4))
    assert any("someone/gone cannot be opened: read on" in note for note in found.notes)
    config = tmp_path / "adapter" / "adapter_config.json"
    config.write_text("{}")
    assert any("names no base: read on" in note for note in open_checkpoint(tmp_path / "adapter", base=base).notes)


def test_a_hub_id_may_lack_an_owner(tmp_path, monkeypatch):
    """From the hub's own cache, as it lies on disk."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--gpt2" / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (tmp_path / "models--gpt2" / "refs").mkdir()
    (tmp_path / "models--gpt2" / "refs" / "main").write_text("a" * 40)
    save_file({"wte.weight": torch.rand(8, 4)}, snapshot / "model.safetensors")
    assert open_checkpoint("gpt2").matrices["input"].shape == (8, 4)
    write_adapter(tmp_path, {"wte.weight": torch.ones(8, 4)}, base="gpt2")
    assert torch.equal(open_checkpoint(tmp_path / "adapter").matrices["input"].rows(), torch.ones(8, 4))
    with pytest.raises(
        InputError, match=r"t5-small: is no local path, and the hub does not give it \(HF_HUB_OFFLINE is set"
    ):
        open_checkpoint("t5-small")
    with pytest.raises(InputError, match=r"model\.safetensors: does not exist"):
        open_checkpoint("model.safetensors")


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "a" * 64 + "\nsize 269060552\n"


@pytest.mark.parametrize(
    "file",
    ["model.safetensors", "pytorch_model.bin", "model.pt", "last.ckpt", "m.gguf", "a.npy", "a.npz", ".metadata",
     "model.safetensors.index.json", "adapter_model.safetensors"],
)  # fmt: skip
def test_a_git_lfs_pointer_is_named(tmp_path, file):
    (tmp_path / file).write_text(POINTER)
    if file.startswith("adapter"):
        (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "x"}))
    with pytest.raises(InputError, match=rf"{file}: is a Git LFS pointer, not the file; run git lfs pull"):
        open_checkpoint(tmp_path)


def test_a_pointer_behind_an_index_or_in_place_of_a_tokenizer(tmp_path):
    shard = "model-00001-of-00001.safetensors"
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {NAME: shard}}))
    (tmp_path / shard).write_text(POINTER)
    with pytest.raises(InputError, match="is a Git LFS pointer"):
        open_checkpoint(tmp_path)
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    np.save(tmp_path / "a.npy", np.ones((8, 4), np.float32))
    (tmp_path / "tokenizer.json").write_text(POINTER)
    found = open_checkpoint(tmp_path)
    assert found.vocabulary is None
    assert "is a Git LFS pointer" in found.notes[0]
