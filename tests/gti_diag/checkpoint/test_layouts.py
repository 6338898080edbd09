"""Every architecture of the table in docs/formats.md: what the layouts find is what transformers says it is."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from gti_diag.checkpoint import layouts, open_checkpoint
from gti_diag.errors import InputError

ROWS, DIM = 104, 16
SIZES = {
    "vocab_size": ROWS, "hidden_size": DIM, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip
MIXTURE = {"num_experts": 2, "num_local_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16}
GPT = {"vocab_size": ROWS, "n_embd": DIM, "n_layer": 1, "n_head": 2, "n_positions": 64, "rotary_dim": 4}
T5 = {
    "vocab_size": ROWS,
    "d_model": DIM,
    "d_kv": 8,
    "d_ff": 32,
    "num_layers": 1,
    "num_decoder_layers": 1,
    "num_heads": 2,
}
BART = {"vocab_size": ROWS, "d_model": DIM, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
        "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "max_position_embeddings": 64}  # fmt: skip
OPT = {"ffn_dim": 32, "word_embed_proj_dim": DIM}
VISION = {"hidden_size": DIM, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 8,
          "patch_size": 4}  # fmt: skip

# (model type, automatic class, sizes)
CASES = [
    *((family, "AutoModelForCausalLM", SIZES) for family in ("llama", "qwen2", "qwen3", "mistral", "gemma", "gemma2", "phi", "phi3")),
    *((family, "AutoModelForCausalLM", {**SIZES, **MIXTURE}) for family in ("mixtral", "qwen3_moe")),
    ("gpt2", "AutoModelForCausalLM", GPT),
    ("gptj", "AutoModelForCausalLM", GPT),
    ("gpt_neox", "AutoModelForCausalLM", SIZES),
    ("opt", "AutoModelForCausalLM", {**SIZES, **OPT}),
    ("bloom", "AutoModelForCausalLM", {**SIZES, "n_layer": 1, "n_head": 2}),
    ("falcon", "AutoModelForCausalLM", {**GPT, "hidden_size": DIM, "num_hidden_layers": 1, "num_attention_heads": 2}),
    ("mamba", "AutoModelForCausalLM", {**SIZES, "state_size": 4}),
    ("bert", "AutoModelForMaskedLM", SIZES),
    ("bert", "AutoModel", SIZES),
    ("roberta", "AutoModelForMaskedLM", SIZES),
    ("distilbert", "AutoModelForMaskedLM", {"vocab_size": ROWS, "dim": DIM, "hidden_dim": 32, "n_layers": 1, "n_heads": 2}),
    ("modernbert", "AutoModelForMaskedLM", {**SIZES, "num_hidden_layers": 2, "global_attn_every_n_layers": 2}),
    ("t5", "AutoModelForSeq2SeqLM", T5),
    ("mt5", "AutoModelForSeq2SeqLM", T5),
    ("bart", "AutoModelForSeq2SeqLM", BART),
    ("whisper", "AutoModelForSpeechSeq2Seq", {**BART, "num_mel_bins": 4, "max_target_positions": 64, "pad_token_id": 0}),
    ("rwkv", "AutoModelForCausalLM", {**SIZES, "num_hidden_layers": 2, "attention_hidden_size": DIM, "context_length": 16}),
    ("xlnet", "AutoModelForCausalLM", {"vocab_size": ROWS, "d_model": DIM, "n_layer": 1, "n_head": 2, "d_inner": 32}),
    ("openai-gpt", "AutoModelForCausalLM", GPT),
    ("ctrl", "AutoModelForCausalLM", {**GPT, "dff": 32}),
    ("esm", "AutoModelForMaskedLM", {**SIZES, "mask_token_id": 3}),
    ("rwkv", "AutoModel", {**SIZES, "num_hidden_layers": 2, "attention_hidden_size": DIM, "context_length": 16}),
    ("llama", "AutoModel", SIZES),
    ("gpt2", "AutoModel", GPT),
    ("bloom", "AutoModel", {**SIZES, "n_layer": 1, "n_head": 2}),
]  # fmt: skip


def saved(folder, family, auto, sizes, tied):
    import transformers

    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(family, **{**sizes, "tie_word_embeddings": tied})
    model = getattr(transformers, auto).from_config(config)
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("family, auto, sizes", CASES, ids=[f"{c[0]}-{c[1]}" for c in CASES])
def test_the_layout_finds_what_transformers_uses(tmp_path, family, auto, sizes, tied):
    model = saved(tmp_path, family, auto, sizes, tied)
    found = open_checkpoint(tmp_path)
    assert torch.equal(found.matrices["input"].rows(), model.get_input_embeddings().weight)
    head = model.get_output_embeddings()
    if head is None or head.weight is model.get_input_embeddings().weight:
        assert "output" not in found.matrices or found.tied
    else:
        assert torch.equal(found.matrices["output"].rows(), head.weight)
        assert found.tied is False
    assert not any("unknown layout" in note or "silently" in note for note in found.notes)


def test_a_multimodal_wrapper_keeps_its_language_model_inside(tmp_path):
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    config = LlavaConfig(
        text_config={"model_type": "llama", **SIZES}, vision_config={"model_type": "clip_vision_model", **VISION},
        image_token_index=3,
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config)
    model.save_pretrained(tmp_path)
    found = open_checkpoint(tmp_path)
    assert torch.equal(found.matrices["input"].rows(), model.get_input_embeddings().weight)
    assert found.layout == "multimodal wrapper"


@pytest.mark.parametrize("layout", layouts.LAYOUTS, ids=lambda layout: layout.input)
@pytest.mark.parametrize("wrapper", ["", "module.", "_orig_mod.", "base_model.model."])
def test_every_row_of_the_table_is_found_under_wrappers(layout, wrapper):
    names = [wrapper + name.removeprefix("=") for name in (layout.input, *layout.output[:1], "layers.0.mlp.weight")]
    found = layouts.find(names)
    assert found.input == names[0]
    assert (found.output == names[1]) if layout.output else found.output is None


def test_two_embeddings_are_told(tmp_path):
    tensors = {"talker.model.embed_tokens.weight": torch.rand(9, 4), "model.embed_tokens.weight": torch.rand(9, 4)}
    save_file(tensors, tmp_path / "model.safetensors")
    found = open_checkpoint(tmp_path)
    assert found.matrices["input"].name == "model.embed_tokens.weight"
    assert found.notes == (
        "took 'model.embed_tokens.weight'; talker.model.embed_tokens.weight would fit too (choose with --tensor)",
    )
    chosen = open_checkpoint(tmp_path, tensor="talker.model.embed_tokens.weight")
    assert torch.equal(chosen.matrices["input"].rows(), tensors["talker.model.embed_tokens.weight"])


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]
)
@pytest.mark.parametrize("ending", ["safetensors", "bin"])
def test_every_dtype_is_read_as_stored(tmp_path, dtype, ending):
    rows = torch.randn(40, 6).to(dtype)
    tensors = {"model.embed_tokens.weight": rows}
    if ending == "bin":
        torch.save(tensors, tmp_path / "pytorch_model.bin")
    else:
        save_file(tensors, tmp_path / "model.safetensors")
    matrix = open_checkpoint(tmp_path).matrices["input"]
    assert matrix.dtype == dtype
    ids = torch.tensor([3, 39, 0])
    assert torch.equal(matrix.rows(ids).view(torch.uint8), rows[ids].view(torch.uint8))


def test_a_head_of_another_size_is_told(tmp_path):
    saved(tmp_path, "llama", "AutoModelForCausalLM", SIZES, False)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["lm_head.weight"] = tensors["lm_head.weight"][:-4].clone()
    save_file(tensors, tmp_path / "model.safetensors")
    found = open_checkpoint(tmp_path)
    assert found.tied is False
    assert found.notes == ("the head has shape (100, 16), the input matrix (104, 16)",)


def test_new_rows_alone_can_untie(tmp_path):
    """Training only the input rows of added tokens leaves a head that differs in those rows and nowhere else."""
    saved(tmp_path, "llama", "AutoModelForCausalLM", {**SIZES, "vocab_size": 3000}, False)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    tensors["lm_head.weight"][1501] += 1
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<a_1>": 1501}))
    assert open_checkpoint(tmp_path).tied is False


EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@pytest.mark.parametrize(
    "beside", ["qweight", "scales", "SCB", "weight_scale_inv", "weight_packed", "weight.absmax", "weight.quant_map"]
)
def test_a_quantised_embedding_is_refused(tmp_path, beside):
    name = f"model.embed_tokens.{beside}"
    tensors = {HEAD: torch.rand(9, 4), name: torch.ones(9)}
    if beside not in ("qweight", "weight_packed"):
        tensors[EMBED] = torch.ones(9, 4, dtype=torch.int8)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=rf"stores '{EMBED}' quantised \(by '{name}' beside it\), which is not read"):
        open_checkpoint(tmp_path)
    assert open_checkpoint(tmp_path, tensor=HEAD).matrices["input"].name == HEAD


def test_a_quantised_head_is_left_out_and_told(tmp_path):
    save_file({EMBED: torch.rand(9, 4), "lm_head.qweight": torch.ones(9)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"tie_word_embeddings": false, "architectures": ["XForCausalLM"]}')
    found = open_checkpoint(tmp_path)
    assert (set(found.matrices), found.tied) == ({"input"}, False)
    assert found.notes == ("left out the head 'lm_head.weight', which is stored quantised",)
