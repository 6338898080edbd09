"""PEFT adapters: every recipe, tied or not, on a base as it was or with tokens added, against PEFT's own merge."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from gti_diag.checkpoint import open_checkpoint, read_adapter
from gti_diag.errors import InputError
from gti_diag.tokens.groups import partition

NAME, HEAD = "model.embed_tokens.weight", "lm_head.weight"
OLD, NEW = 40, 44  # rows of the base, and after tokens were added to it in memory

pytestmark = pytest.mark.filterwarnings("ignore")
Q = ["q_proj"]
RECIPES = {
    "elsewhere": {"target_modules": Q},
    "copy of the input": {"target_modules": Q, "modules_to_save": ["embed_tokens"]},
    "copy of the head": {"target_modules": Q, "modules_to_save": ["lm_head"]},
    "copy of both": {"target_modules": Q, "modules_to_save": ["embed_tokens", "lm_head"]},
    "one copy for both": {"target_modules": Q, "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
    "LoRA on the input": {"target_modules": [*Q, "embed_tokens"]},
    "LoRA on the head": {"target_modules": ["lm_head"]},
    "LoRA on both": {"target_modules": ["embed_tokens", "lm_head"]},
    "one LoRA for both": {"target_modules": ["embed_tokens"], "ensure_weight_tying": True},
    "rank-stabilised LoRA": {"target_modules": ["embed_tokens"], "use_rslora": True},
    "alpha": {"target_modules": ["embed_tokens"], "alpha_pattern": {"embed_tokens": 32}},
    "alpha by expression": {"target_modules": ["embed_tokens"], "alpha_pattern": {".*embed.*": 32, "embed_tokens": 2}},
    "rows": {"target_modules": Q, "trainable_token_indices": "input"},
    "rows of both": {"target_modules": Q, "trainable_token_indices": "both"},
    "rows and nothing else": None,  # the TrainableTokens method
    "rows, LoRA on the head": {"target_modules": ["lm_head"], "trainable_token_indices": "input"},
    "rows, copy of the head": {"target_modules": Q, "trainable_token_indices": "input", "modules_to_save": ["lm_head"]},
    "copy of the input, LoRA on the head": {"target_modules": ["lm_head"], "modules_to_save": ["embed_tokens"]},
}


def tiny_base(folder, *, resized):
    """The base from its folder, with rows added in memory if `resized`: the same each time."""
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(folder)
    torch.manual_seed(1)
    if resized:
        model.resize_token_embeddings(NEW)
        model.lm_head.out_features = NEW  # older transformers forget it of a tied head; PEFT sizes its LoRA by it
    return model


def saved(folder, *, tied=False, resized=False, ids=None, **options):
    """An adapter of a tiny Llama with every weight of its own drawn at random, saved beside its base."""
    from peft import LoraConfig, TrainableTokensConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=OLD, tie_word_embeddings=tied, **sizes)).save_pretrained(folder / "base")
    if "trainable_token_indices" in options:
        both = options["trainable_token_indices"] == "both"
        options["trainable_token_indices"] = {"embed_tokens": ids, "lm_head": ids} if both else ids
    config = (
        LoraConfig(r=4, lora_alpha=8, **options)
        if options
        else TrainableTokensConfig(target_modules=["embed_tokens"], token_indices=ids)
    )
    model = get_peft_model(tiny_base(folder / "base", resized=resized), config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder / "adapter")


def merged(folder, *, resized):
    """Both ends as PEFT merges the saved adapter into its base."""
    from peft import PeftModel

    model = PeftModel.from_pretrained(tiny_base(folder / "base", resized=resized), folder / "adapter")
    model = model.merge_and_unload()
    return [end.weight.detach() for end in (model.get_input_embeddings(), model.get_output_embeddings())]


# Rows that the adapter's files do not hold, though tokens were added: PEFT draws them anew when it loads.
LOST = {
    ("LoRA on the input", False): ("output", OLD),
    ("rank-stabilised LoRA", False): ("output", OLD),
    ("alpha", False): ("output", OLD),
    ("alpha by expression", False): ("output", OLD),
    ("one LoRA for both", False): ("output", OLD),
    ("LoRA on the head", False): ("input", OLD),
    ("rows and nothing else", False): ("output", OLD),
    ("rows, LoRA on the head", False): ("input", NEW - 2),
    ("rows, LoRA on the head", True): ("input", NEW - 2),
}


@pytest.mark.parametrize("resized", [False, True], ids=["same", "resized"])
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_an_adapter_is_what_peft_merges(tmp_path, recipe, tied, resized):
    ids = [OLD, 3, OLD + 1] if resized else [7, 3, 31]
    saved(tmp_path, tied=tied, resized=resized, ids=ids, **RECIPES[recipe] or {})
    entry, head = merged(tmp_path, resized=resized)
    found = open_checkpoint(tmp_path / "adapter")
    assert found.format == "peft"
    expected = {"input": entry, "output": head}
    lost, stored = LOST.get((recipe, tied), (None, 0)) if resized else (None, 0)
    for role, rows in expected.items():
        matrix = found.matrices.get(role, found.matrices["input"])
        rows = rows[:stored] if role == lost or (lost and tied) else rows
        assert matrix.shape == rows.shape
        assert torch.allclose(matrix.rows(), rows, atol=1e-6)
        some = torch.tensor([7, 2, 7, len(rows) - 1])
        assert torch.allclose(matrix.rows(some), rows[some], atol=1e-6)
    assert found.tied == torch.equal(entry, head)
    assert found.notes[0].startswith(("LORA adapter on", "TRAINABLE_TOKENS adapter on"))
    assert ("leaves the embedding as it is" in found.notes[0]) == (recipe == "elsewhere" and not resized)
    if recipe.startswith("rows"):
        assert partition(found).groups["new"].ids.tolist() == ids


def test_rows_of_each_end_may_differ(tmp_path):
    ids = {"embed_tokens": [9, 2], "lm_head": [5]}
    saved(tmp_path, target_modules=Q, trainable_token_indices="input", ids=ids)
    entry, head = merged(tmp_path, resized=False)
    found = open_checkpoint(tmp_path / "adapter")
    assert torch.equal(found.matrices["input"].rows(), entry)
    assert torch.equal(found.matrices["output"].rows(), head)
    assert partition(found).groups["new"].ids.tolist() == [9, 2]


def test_a_tied_head_with_rows_and_lora_loses_the_lora_as_in_the_merge(tmp_path):
    saved(tmp_path, tied=True, ids=[7, 3], **RECIPES["rows, LoRA on the head"])
    assert any("PEFT's merge drops that LoRA" in note for note in open_checkpoint(tmp_path / "adapter").notes)


def test_merging_lora_of_a_tied_head_changes_the_input_and_is_told(tmp_path):
    saved(tmp_path, tied=True, target_modules=["lm_head"])
    assert any(
        "merging adds the head's LoRA to the one matrix" in n for n in open_checkpoint(tmp_path / "adapter").notes
    )


def test_a_row_that_is_stored_nowhere_is_refused(tmp_path):
    rows = {"model.embed_tokens.token_adapter.trainable_tokens_delta": torch.ones(2, 4)}
    write_adapter(tmp_path, rows, trainable_token_indices=[8, 10])
    with pytest.raises(
        InputError, match=r"trains rows up to 10 of a matrix whose base has 8, and row 9 is stored nowhere"
    ):
        open_checkpoint(tmp_path / "adapter")


def test_a_row_far_beyond_the_base_is_refused_at_once(tmp_path):
    rows = {"model.embed_tokens.token_adapter.trainable_tokens_delta": torch.ones(2, 4)}
    write_adapter(tmp_path, rows, trainable_token_indices=[8, 2**40])
    with pytest.raises(
        InputError,
        match=r"trains rows up to 1,099,511,627,776 of a matrix whose base has 8, and row 9 is stored nowhere",
    ):
        open_checkpoint(tmp_path / "adapter")


def test_rows_that_follow_the_base_are_added(tmp_path):
    rows = {"model.embed_tokens.token_adapter.trainable_tokens_delta": torch.ones(2, 4)}
    write_adapter(tmp_path, rows, trainable_token_indices=[9, 8])
    found = open_checkpoint(tmp_path / "adapter")
    assert torch.equal(found.matrices["input"].rows(torch.tensor([9, 8])), torch.ones(2, 4))
    assert partition(found).groups["new"].ids.tolist() == [9, 8]


def test_saving_both_modules_of_a_tied_model_unties_it(tmp_path):
    saved(tmp_path, tied=True, **RECIPES["copy of both"])
    found = open_checkpoint(tmp_path / "adapter")
    stored = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert torch.equal(found.matrices["input"].rows(), stored["base_model.model." + NAME])
    assert torch.equal(found.matrices["output"].rows(), stored["base_model.model." + HEAD])
    assert any(note.startswith("silently untied") for note in found.notes)


def test_a_copy_of_the_input_matrix_leaves_a_tied_head_behind(tmp_path):
    saved(tmp_path, tied=True, **RECIPES["copy of the input"])
    found = open_checkpoint(tmp_path / "adapter")
    stored = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert torch.equal(found.matrices["input"].rows(), stored["base_model.model." + NAME])
    assert torch.equal(found.matrices["output"].rows(), load_file(tmp_path / "base" / "model.safetensors")[NAME])
    assert not found.tied
    assert found.notes[0].endswith("changes the input matrix")
    assert found.notes[1].startswith("silently untied: the adapter has an input matrix of its own")


@pytest.mark.parametrize("tail", ["hada_w1_a", "oft_R.weight", "ia3_l", "vera_lambda_b", "lora_magnitude_vector"])
@pytest.mark.parametrize("module", ["lm_head", "model.embed_tokens"])
def test_a_method_that_is_not_read_is_refused(tmp_path, tail, module):
    write_adapter(tmp_path, {f"{module}.{tail}": torch.ones(4)}, peft_type="LOHA")
    method = "DoRA" if "magnitude" in tail else "LOHA"
    with pytest.raises(InputError, match=rf"uses {method} on {module} .*, which is not read; merge the adapter"):
        open_checkpoint(tmp_path / "adapter")


def test_a_bias_of_the_head_changes_no_row(tmp_path):
    write_adapter(tmp_path, {"lm_head.bias": torch.ones(8)})
    assert "leaves the embedding as it is" in open_checkpoint(tmp_path / "adapter").notes[0]


def test_an_alpha_pattern_that_never_ends_is_stopped(monkeypatch):
    monkeypatch.setattr(read_adapter, "PATIENCE", 0.2)
    evil = read_adapter.adapter("a", {"lora_alpha": 8, "alpha_pattern": {"((a|aa)+b)": 2}}, {})
    with pytest.raises(InputError, match=r"takes more than 0\.2 s to match; write it without repetitions"):
        evil.scale("model." + "a" * 60, 2)


@pytest.mark.parametrize("alpha", [float("nan"), float("inf"), 10**400, True, "8", None])
def test_an_alpha_is_a_finite_number(alpha):
    with pytest.raises(InputError, match="has lora_alpha"):
        read_adapter.adapter("a", {"lora_alpha": alpha}, {}).scale("embed", 2)


def test_an_alpha_pattern_must_be_an_expression(tmp_path):
    lora = {"embed_tokens.lora_embedding_A": torch.ones(2, 8), "embed_tokens.lora_embedding_B": torch.ones(4, 2)}
    write_adapter(tmp_path, lora, lora_alpha=8, alpha_pattern={"(": 2})
    with pytest.raises(InputError, match=r"has alpha_pattern '\(', no regular expression"):
        open_checkpoint(tmp_path / "adapter")


def test_an_adapter_that_is_its_own_base_is_refused(tmp_path):
    write_adapter(tmp_path, {"q.lora_A.weight": torch.ones(2, 4)}, base="../adapter")
    with pytest.raises(InputError, match=r"whose base '\.\./adapter' leads back to it; set base_model_name_or_path"):
        open_checkpoint(tmp_path / "adapter")


def test_trainer_output_of_adapters_opens_at_its_last_step(tmp_path):
    write_adapter(tmp_path, {"model.embed_tokens.weight": torch.ones(8, 4)}, base="../../base")
    shutil.move(tmp_path / "adapter", tmp_path / "output" / "checkpoint-7")
    found = open_checkpoint(tmp_path / "output")
    assert torch.equal(found.matrices["input"].rows(), torch.ones(8, 4))
    assert found.notes[0] == "weights found in checkpoint-7/"


def write_adapter(folder, tensors, base="../base", **config):
    """An adapter of bare tensor names beside a tied base of 8 rows."""
    for name in ("base", "adapter"):
        (folder / name).mkdir()
    save_file({NAME: torch.rand(8, 4)}, folder / "base" / "model.safetensors")
    (folder / "base" / "config.json").write_text('{"tie_word_embeddings": true}')
    save_file(
        {f"base_model.model.{k}": v for k, v in tensors.items()}, folder / "adapter" / "adapter_model.safetensors"
    )
    (folder / "adapter" / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base, **config}))


def test_an_adapter_needs_its_base(tmp_path):
    saved(tmp_path, tied=True, **RECIPES["elsewhere"])
    shutil.rmtree(tmp_path / "base")
    with pytest.raises(InputError, match=r"is an adapter whose base cannot be opened .*base: "):
        open_checkpoint(tmp_path / "adapter")


def test_an_adapter_of_another_base_is_refused(tmp_path):
    saved(tmp_path, tied=True, **RECIPES["LoRA on the input"])
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    tensors = {name: tensor for name, tensor in tensors.items() if "base_layer" not in name}
    tensors["base_model.model.model.embed_tokens.lora_embedding_A"] = torch.ones(4, 39)
    save_file(tensors, tmp_path / "adapter" / "adapter_model.safetensors")
    with pytest.raises(InputError, match=r"make 39×16, the base has 40×16; give the base that it was trained on"):
        open_checkpoint(tmp_path / "adapter")
