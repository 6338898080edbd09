"""Which matrices are the ends of a model: encoders without a head, and files that hold vectors alone."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from gti_diag.checkpoint import open_base, open_checkpoint
from gti_diag.errors import InputError
from gti_diag.tokens.groups import partition

SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


@pytest.mark.parametrize("headed", [False, True], ids=["BertModel", "BertForMaskedLM"])
def test_a_model_has_a_head_only_if_its_architecture_has_one(tmp_path, headed):
    from transformers import BertConfig, BertForMaskedLM, BertModel

    made = (BertForMaskedLM if headed else BertModel)(BertConfig(vocab_size=60, **SIZES))
    made.resize_token_embeddings(64)
    made.save_pretrained(tmp_path)
    found = open_checkpoint(tmp_path)
    assert set(found.matrices) == {"input"}
    assert found.tied is (True if headed else None)
    assert not any("tied" in note for note in found.notes)


@pytest.mark.filterwarnings("ignore")
def test_an_adapter_of_an_encoder_invents_no_head(tmp_path):
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import BertConfig, BertModel

    BertModel(BertConfig(vocab_size=60, **SIZES)).save_pretrained(tmp_path / "base")

    def base():
        torch.manual_seed(0)
        model = BertModel.from_pretrained(tmp_path / "base")
        model.resize_token_embeddings(64)
        return model

    model = get_peft_model(base(), LoraConfig(target_modules=["query"], modules_to_save=["word_embeddings"]))
    with torch.no_grad():
        model.get_input_embeddings().weight.add_(1)
    model.save_pretrained(tmp_path / "adapter")
    merged = PeftModel.from_pretrained(base(), tmp_path / "adapter").merge_and_unload()
    found = open_checkpoint(tmp_path / "adapter")
    assert set(found.matrices) == {"input"}
    assert torch.equal(found.matrices["input"].rows(), merged.get_input_embeddings().weight.detach())
    assert not any("tied" in note for note in found.notes)


def test_one_vector_is_one_new_row(tmp_path):
    vector = torch.rand(12)
    torch.save({"<cat-toy>": vector}, tmp_path / "learned_embeds.bin")
    save_file({"emb": vector[None]}, tmp_path / "one.safetensors")
    np.save(tmp_path / "plain.npy", vector.numpy())
    for file, name in (("learned_embeds.bin", "<cat-toy>"), ("one.safetensors", "emb"), ("plain.npy", "plain")):
        found = open_checkpoint(tmp_path / file)
        assert torch.equal(found.matrices["input"].rows(), vector[None]), file
        new = partition(found).groups["new"]
        assert (new.tokens, new.numbers) == ((name,), (0,))
    assert partition(found).rule == "no gti.json; the file holds one vector and nothing else"


def test_vectors_of_several_tokens_are_rows_under_their_names(tmp_path):
    vectors = {f"<style-{n}>": torch.rand(12) for n in range(3)}
    torch.save(vectors, tmp_path / "learned_embeds.bin")
    found = open_checkpoint(tmp_path / "learned_embeds.bin")
    assert torch.equal(
        found.matrices["input"].rows(torch.tensor([2, 0])), torch.stack([vectors["<style-2>"], vectors["<style-0>"]])
    )
    assert partition(found).groups["new"].tokens == tuple(vectors)


def test_the_vectors_of_one_inverted_token(tmp_path):
    """As the first web interface of Stable Diffusion saves them."""
    rows = torch.rand(4, 12)
    saved = {"string_to_token": {"*": torch.tensor(265)}, "string_to_param": {"*": rows}, "name": "x", "step": 9}
    torch.save(saved, tmp_path / "x.pt")
    found = open_checkpoint(tmp_path / "x.pt")
    assert torch.equal(found.matrices["input"].rows(), rows)
    assert partition(found).groups["new"].tokens == ("* 1", "* 2", "* 3", "* 4")


def test_several_vectors_under_one_tokens_name(tmp_path):
    """As diffusers saves a token of several vectors."""
    rows = torch.rand(3, 12)
    save_file({"<cat-toy>": rows}, tmp_path / "learned_embeds.safetensors")
    found = open_checkpoint(tmp_path / "learned_embeds.safetensors")
    assert torch.equal(found.matrices["input"].rows(), rows)
    assert partition(found).groups["new"].tokens == ("<cat-toy> 1", "<cat-toy> 2", "<cat-toy> 3")


def test_vectors_of_different_widths_are_no_matrix(tmp_path):
    save_file({"norm.weight": torch.ones(4), "bias": torch.ones(8)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="holds no floating-point matrix"):
        open_checkpoint(tmp_path)


def test_a_base_is_read_by_the_same_tensor_name_where_it_has_it(tmp_path):
    for name, rows in (("base", 6), ("ours", 8)):
        (tmp_path / name).mkdir()
        save_file(
            {"items.a": torch.rand(rows, 4), "items.b": torch.rand(rows, 4)}, tmp_path / name / "model.safetensors"
        )
    (tmp_path / "known").mkdir()
    save_file({"model.embed_tokens.weight": torch.rand(6, 4)}, tmp_path / "known" / "model.safetensors")
    assert open_base(tmp_path / "base", tensor="items.b").matrices["input"].name == "items.b"
    assert open_base(tmp_path / "known", tensor="items.b").matrices["input"].name == "model.embed_tokens.weight"
    with pytest.raises(InputError, match=r"candidates: items\.a 6×4, items\.b 6×4"):
        open_base(tmp_path / "base", tensor="nothing")


def test_a_gguf_encoder_has_no_head(tmp_path):
    from gguf import GGUFWriter

    for family, tied in (("bert", None), ("llama", True)):
        writer = GGUFWriter(tmp_path / f"{family}.gguf", family)
        writer.add_tensor("token_embd.weight", np.random.rand(8, 4).astype(np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        assert open_checkpoint(tmp_path / f"{family}.gguf").tied is tied


def test_the_config_alone_says_what_no_architecture_says(tmp_path):
    save_file({"model.embed_tokens.weight": torch.rand(8, 4)}, tmp_path / "model.safetensors")
    for said in (True, False):
        (tmp_path / "config.json").write_text(json.dumps({"tie_word_embeddings": said}))
        assert open_checkpoint(tmp_path).tied is said


@pytest.mark.parametrize("shared", [False, True], ids=["a vector each", "shared vectors"])
@pytest.mark.parametrize("weighted", [False, True])
def test_model2vec_gives_a_token_the_vector_that_its_library_gives(tmp_path, tiny_tokenizer, shared, weighted):
    from model2vec import StaticModel

    count = len(tiny_tokenizer)
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(count // 4 if shared else count, 12)).astype(np.float32)
    mapping = generator.integers(0, len(vectors), count) if shared else None
    weights = generator.random(count).astype(np.float32) if weighted else None
    model = StaticModel(
        vectors, tiny_tokenizer.backend_tokenizer, config={"normalize": False}, weights=weights, token_mapping=mapping
    )
    model.save_pretrained(str(tmp_path))
    found = open_checkpoint(tmp_path)
    matrix = found.matrices["input"]
    assert matrix.shape == (count, 12) and found.vocabulary.size == count
    for id in (0, 7, count - 1):
        expected = model._encode_helper([id]).sum(0) if hasattr(model, "_encode_helper") else row_of(model, id)
        assert np.allclose(matrix.rows(torch.tensor([id]))[0].numpy(), expected, atol=1e-6)


def row_of(model, id):
    row = model.embedding[id if model.token_mapping is None else model.token_mapping[id]]
    return row if model.weights is None else row * model.weights[id]


def test_a_mapping_to_vectors_that_are_not_there_is_damage(tmp_path):
    save_file({"embeddings": torch.rand(4, 3), "mapping": torch.tensor([0, 4])}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="has 4 vectors, which its mapping or its weights do not fit"):
        open_checkpoint(tmp_path)


WORD_VECTORS = {
    "w.vec": b"2 3\nthe 0.1 0.2 0.3\nof 0.4 0.5 0.6\n",
    "w2v.bin": b"2 3\nthe " + np.ones(3, np.float32).tobytes() + b"of " + np.ones(3, np.float32).tobytes(),
    "glove.txt": b"the 0.418 0.24968 -0.41242 0.1217 0.34527 -0.044457 -0.49688 -0.17862 -6.6023e-04\n",
}


@pytest.mark.parametrize(
    "file, how", [("w.vec", "binary=False"), ("w2v.bin", "binary=True"), ("glove.txt", "no_header=True")]
)
def test_word_vectors_are_told_how_to_convert(tmp_path, file, how):
    (tmp_path / file).write_bytes(WORD_VECTORS[file])
    with pytest.raises(InputError, match=rf"{file}: holds word vectors, .*load_word2vec_format\('{file}', {how}\)"):
        open_checkpoint(tmp_path / file)
