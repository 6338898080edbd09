"""A small tree of items behind tiny real models, and the literal scores of all items."""

import torch
from transformers import AutoModelForCausalLM

from gti_train.recommend.trie import Trie
from tests.conftest import tiny_config, vocabulary_like

ROWS, ITEMS = 300, 60
LEVELS = (4, 5, 6)
GENERATOR = torch.Generator().manual_seed(0)
CODES = torch.stack([torch.randint(0, size, (ITEMS,), generator=GENERATOR) for size in LEVELS], 1)
TOKENS = [torch.arange(200 + 10 * level, 200 + 10 * level + size) for level, size in enumerate(LEVELS)]
# Two tokens that all begin with, then histories of different length; the last is longer than the models' windows.
PROMPTS = [[7, 8, *torch.randint(3, 200, (n,), generator=GENERATOR).tolist()] for n in (9, 5, 14, 5)]

EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 32}
LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "head_dim": 8}
WINDOW = {"sliding_window": 6}
CHANGES = {
    "mistral": WINDOW,
    "gemma2": WINDOW,
    "gemma3_text": WINDOW,
    "gpt_oss": {"num_local_experts": 4, **EXPERTS},  # attention sinks
    "deepseek_v3": {
        "n_routed_experts": 4,
        "n_group": 1,
        "topk_group": 1,
        "num_key_value_heads": 4,
        **EXPERTS,
        **LATENT,
    },
    "lfm2": {"layer_types": ["conv", "full_attention"]},  # a state that is no key and value
    "llama4_text": {"num_local_experts": 2, "interleave_moe_layer_step": 1, **EXPERTS},
}


def tiny(family="llama", *, tied=True, dtype=torch.float32):
    """A model with random weights whose vocabulary is spread like a trained one's."""
    torch.manual_seed(0)
    config = tiny_config(family, ROWS, tied, **CHANGES.get(family, {}))
    model = AutoModelForCausalLM.from_config(config).float().eval().requires_grad_(False)
    for seed, embedding in enumerate((model.get_output_embeddings(), model.get_input_embeddings())):
        embedding.weight.copy_(3 * vocabulary_like(*embedding.weight.shape, seed))
    return model.to(dtype)


def tree(codes=CODES, tokens=TOKENS):
    return Trie(codes, tokens)


@torch.no_grad()
def literal(model, prompts, scores, codes=CODES, tokens=TOKENS):
    """log p of every item, each from a sequence of its own: users × items."""
    table, codes = [], codes.tolist()
    for prompt in prompts:
        row = []
        for item in codes:
            path = [int(ids[code]) for ids, code in zip(tokens, item, strict=True)]
            logits = model(torch.tensor([prompt + path])).logits[0].double()
            total = 0.0
            for level, token in enumerate(path):
                here = logits[len(prompt) - 1 + level]
                siblings = sorted({other[level] for other in codes if other[:level] == item[:level]})
                among = here[tokens[level][siblings]] if scores == "items" else here
                total += float(here[token] - among.logsumexp(0))
            row.append(total)
        table.append(row)
    return torch.tensor(table)


def ranking(row, items=None):
    """Items by score, best first, ties by number."""
    return sorted(range(len(row)) if items is None else items, key=lambda item: (-float(row[item]), item))
