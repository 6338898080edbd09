"""Which tensor is the embedding: architecture families as data, tried in order.

A name matches when it equals the pattern or ends in "." + pattern, after wrapper prefixes are dropped; a pattern that
begins with "=" must be the whole name.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .records import Matrix


@dataclass(frozen=True)
class Layout:
    """Names of the input matrix and, where the family can store one, of the head."""

    family: str
    input: str
    output: tuple[str, ...]


LAYOUTS = (
    Layout("multimodal wrapper", "language_model.model.embed_tokens.weight",
           ("language_model.lm_head.weight", "lm_head.weight")),
    Layout("multimodal wrapper", "language_model.embed_tokens.weight", ("language_model.lm_head.weight", "lm_head.weight")),
    Layout("multimodal wrapper", "text_model.embed_tokens.weight", ("lm_head.weight",)),
    Layout("Llama, Qwen, Mistral, Gemma, Phi, MoE", "model.embed_tokens.weight", ("lm_head.weight", "=head.decoder.weight")),
    Layout("T5, mT5, BART", "shared.weight", ("lm_head.weight",)),
    Layout("byte latent transformer", "local_encoder.embed_tokens.weight", ("=lm_head.weight",)),
    Layout("OPT, Whisper", "decoder.embed_tokens.weight", ("lm_head.weight", "lm_head.out_proj.weight", "=proj_out.weight")),
    Layout("Llama without head", "=embed_tokens.weight", ("=lm_head.weight",)),
    Layout("GPT-2, GPT-J, Falcon", "wte.weight", ("lm_head.weight",)),
    Layout("GPT-NeoX", "gpt_neox.embed_in.weight", ("embed_out.weight", "lm_head.weight")),
    Layout("BLOOM, Falcon", "transformer.word_embeddings.weight", ("lm_head.weight",)),
    Layout("ModernBERT", "embeddings.tok_embeddings.weight", ("decoder.weight", "lm_head.weight")),
    Layout("BERT, RoBERTa, DistilBERT", "embeddings.word_embeddings.weight",
           ("cls.predictions.decoder.weight", "lm_head.decoder.weight", "vocab_projector.weight", "lm_head.weight", "=output.weight")),
    Layout("XLM", "transformer.embeddings.weight", ("pred_layer.proj.weight",)),
    Layout("Mamba", "backbone.embeddings.weight", ("lm_head.weight",)),
    Layout("Mamba", "backbone.embedding.weight", ("lm_head.weight",)),
    Layout("Mamba, RWKV, xLSTM, Nemotron-H", "embeddings.weight", ("lm_head.weight", "=head.weight")),
    Layout("Mamba, RWKV, xLSTM, Nemotron-H", "=embeddings.weight", ()),
    Layout("GPT", "tokens_embed.weight", ("lm_head.weight",)),
    Layout("CTRL", "transformer.w.weight", ("lm_head.weight",)),
    Layout("XLNet", "word_embedding.weight", ("=lm_loss.weight",)),
    Layout("CPM-Ant", "input_embedding.weight", ("lm_head.weight",)),
    Layout("GGUF", "token_embd.weight", ("output.weight",)),
    Layout("Llama original", "tok_embeddings.weight", ("output.weight",)),
    Layout("Llama without head", "embed_tokens.weight", ("lm_head.weight", "lm_head.decoder.weight")),
    Layout("GPT-NeoX without head", "embed_in.weight", ("embed_out.weight",)),
    Layout("BLOOM without head", "word_embeddings.weight", ("lm_head.weight",)),
    Layout("text encoder", "token_embedding.weight", ()),
    Layout("static embedding", "=embedding.weight", ()),
    Layout("static embedding", "=embeddings", ()),
)  # fmt: skip

# Wrappers that training tools put around a name, as whole components of it (`original_module` is none).
WRAPPER = re.compile(r"(?:(?<=\.)|^)(?:module|_orig_mod|_fsdp_wrapped_module|base_model\.model|_forward_module)\.")
# What quantisers store beside a weight: GPTQ, AWQ, MLX, bitsandbytes, compressed-tensors, scaled fp8.
QUANTISED = re.compile(
    r"(.+?)\.(?:qweight|scales|SCB|weight_scale\w*|scale_weight|weight_packed|weight\.(?:absmax|quant_\w+))"
)
VOCABULARY_WORDS = ("embed", "emb", "wte", "tok", "vocab", "item", "word")


def bare(name: str) -> str:
    """The tensor name without the wrappers that training tools put around it."""
    return WRAPPER.sub("", name)


def quantised(names: Iterable[str]) -> dict[str, str]:
    """Names of weights that are stored quantised, with the name of a tensor that tells so."""
    told = ((QUANTISED.fullmatch(name), name) for name in names)
    return {f"{match[1]}.weight": name for match, name in told if match is not None}


@dataclass(frozen=True)
class Found:
    """A layout that fits: full names of the input matrix, of the head (or None), and of other tensors like the input."""

    layout: Layout
    input: str
    output: str | None
    others: tuple[str, ...]


def find(names: Iterable[str]) -> Found | None:
    """The first layout whose input matrix is there; of several such tensors, the one with the shortest name."""
    by_bare = {bare(name): name for name in sorted(names)}

    def matches(pattern: str) -> list[str]:
        whole = pattern.removeprefix("=")
        ends = "." + whole if whole == pattern else "\0"
        return sorted((name for key, name in by_bare.items() if key == whole or key.endswith(ends)), key=len)

    for layout in LAYOUTS:
        inputs = matches(layout.input)
        if inputs:
            heads = [head for pattern in layout.output for head in matches(pattern)[:1]]
            return Found(layout, inputs[0], heads[0] if heads else None, tuple(inputs[1:]))
    return None


def candidates(tensors: Mapping[str, Matrix], sizes: Iterable[int]) -> list[Matrix]:
    """Matrices that might be an embedding, likeliest first.

    Ranked by: as many rows as one of `sizes` (config or tokenizer), a telling name, the number of rows.
    """
    wanted = set(sizes)

    def rank(matrix: Matrix) -> tuple[bool, bool, int]:
        telling = any(word in matrix.name.lower() for word in VOCABULARY_WORDS)
        return matrix.shape[0] in wanted, telling, matrix.shape[0]

    flat = [m for m in tensors.values() if len(m.shape) == 2 and m.shape[1] > 1 and m.shape[0] > 1]
    return sorted((m for m in flat if m.floating), key=rank, reverse=True)
