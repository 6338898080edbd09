"""Tiny models that are extended, and examples in both directions, for the grounding tests."""

import torch

from gti_train.grounding.prompts import Example
from gti_train.model.loading import load_language_model
from gti_train.model.matrices import matrices
from gti_train.model.new_rows import NewRows
from gti_train.model.sequences import encode
from gti_train.model.vocabulary import extend

CODES = [f"<{level}_{code}>" for level in "ab" for code in range(4)]
ITEMS = {
    "<a_0><b_0>": "red kettle for the kitchen table",
    "<a_0><b_3>": "light tent",
    "<a_1><b_1>": "running shoes with a soft sole, made for long roads and short rests",
    "<a_2><b_2>": "smallest lamp over the desk",
    "<a_3><b_0>": "quiet kettle",
}
EXAMPLES = [Example(f"Which code is {text}?", code, "title-to-code", code) for code, text in ITEMS.items()] + [
    Example(f"Describe {code} now.", text, "code-to-title", code) for code, text in ITEMS.items()
]


def extended(folder, *, tokens=CODES, dtype=torch.float32, spread=0.05):
    """Model, tokenizer and ids of new tokens whose rows are no two alike."""
    model, tokenizer = load_language_model(folder, dtype=dtype)
    ids = extend(model, tokenizer, tokens)
    generator = torch.Generator().manual_seed(7)
    for weight in matrices(model).values():
        noise = torch.randn(len(ids), weight.shape[1], generator=generator) * spread
        weight.data[ids] += noise.to(dtype)
    return model, tokenizer, ids


def encoded(tokenizer, ids, examples=EXAMPLES):
    return [encode(e, tokenizer, new=frozenset(ids), max_tokens=200) for e in examples]


def reference_loss(model, sequences):
    """The literal convention: `model(input_ids, labels).loss` per sequence, summed over its answer tokens."""
    total = 0.0
    for sequence in sequences:
        labels = torch.tensor([[-100] * sequence.answer + list(sequence.ids[sequence.answer :])])
        loss = model(input_ids=torch.tensor([sequence.ids]), labels=labels).loss
        total = total + loss * sequence.supervised
    return total


def reference_gradients(model, ids, sequences):
    """Rows `ids` of the full gradient of every matrix, as Algorithm 1 masks them."""
    weights = matrices(model)
    for weight in weights.values():
        weight.requires_grad_(True)
    gradients = torch.autograd.grad(reference_loss(model, sequences), list(weights.values()))
    model.requires_grad_(False)
    return {name: g[ids] for name, g in zip(weights, gradients, strict=True)}


def new_rows(model, ids):
    return NewRows(model, ids)
