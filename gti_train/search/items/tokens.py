"""Item tokens as they are kept and served: half precision, one entry a document, and what a server is asked with."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from gti_diag.errors import InputError, bad

from ..prompts import DOCUMENT_FIRST, Prompter, Prompts
from ..scoring import Overrides

VECTORS, IDS, REQUEST = "items.safetensors", "items.json", "request.json"
NAME = "item_tokens"


@dataclass(frozen=True)
class ItemTokens:
    """Vectors of documents, in the order of their ids, and the token that stands for each vector in a prompt."""

    ids: tuple[str, ...]
    vectors: Float[Tensor, "documents slots dim"]
    token: int

    def asked(self, prompter: Prompter, pairs: Sequence[tuple[str, int]]) -> tuple[Prompts, Overrides]:
        """Prompts about pairs of a query's text and a document's place, and the vectors to read in them."""
        slots = [self.token] * self.vectors.shape[1]
        known = {text: prompter.tokens(f" {text}") for text in {query for query, _ in pairs}}
        prompts = prompter.assembled([(known[query], slots) for query, _ in pairs])
        return prompts, Overrides(self.token, [self.vectors[place] for _, place in pairs])

    def shuffled(self, seed: int) -> "ItemTokens":
        """Every document with the vectors of another one."""
        order = torch.randperm(len(self.ids), generator=torch.Generator().manual_seed(seed))
        vectors = torch.empty_like(self.vectors)
        vectors[order] = self.vectors[order.roll(1)]
        return ItemTokens(self.ids, vectors, self.token)


def slot_token(prompter: Prompter) -> int:
    """The end of text stands for a vector: no text holds it.

    Raises:
        InputError: the tokenizer has none.
    """
    token = prompter.tokenizer.eos_token_id
    if token is None:
        raise InputError("the tokenizer names no end of text, which stands for item tokens in a prompt: give it one")
    return int(token)


def save_items(items: ItemTokens, folder: Path) -> None:
    """Write vectors (one tensor, documents × slots × dim, float16) and the ids of their documents."""
    from safetensors.torch import save_file

    save_file({NAME: items.vectors.half().contiguous()}, folder / VECTORS)
    content = {"schema": 1, "token": items.token, "ids": list(items.ids)}
    (folder / IDS).write_text(json.dumps(content) + "\n", encoding="utf-8")


def load_items(folder: Path) -> ItemTokens:
    """What `save_items` wrote.

    Raises:
        InputError: it is not there, or ids and vectors are not as many.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from gti_diag.foreign.retrieval_forms import ItemsForm
    from gti_diag.foreign.schemas import read_formed

    form = read_formed(ItemsForm, folder / IDS, "name what `gti-train search items` wrote")
    try:
        vectors = load_file(folder / VECTORS)[NAME]
    except (OSError, SafetensorError, KeyError) as error:
        raise bad(
            folder / VECTORS, f"holds no readable item tokens ({error})", "run `gti-train search items` again"
        ) from error
    if vectors.ndim != 3 or len(vectors) != len(form.ids):
        raise bad(
            folder,
            f"{len(form.ids)} ids for vectors of shape {tuple(vectors.shape)}",
            "run `gti-train search items` again",
        )
    return ItemTokens(tuple(form.ids), vectors, form.token)


def request(prompter: Prompter, items: ItemTokens, query: str, places: Sequence[int]) -> dict:
    """The body of a scoring request to a server that replaces embeddings where a token stands.

    Source: `/v1/score` of SGLang with token-embedding overrides (sgl-project/sglang #20960), whose prompts are the query and an
    item, or with `item_first` the other way round. What all prompts have in common counts as the query's.
    """
    prompts, overrides = items.asked(prompter, [(query, place) for place in places])
    begin, rest = zip(*((ids[:n], ids[n:]) for ids, n in zip(prompts.ids, prompts.shared, strict=True)), strict=True)
    first = prompter.wording.order == DOCUMENT_FIRST
    return {
        "query": rest[0] if first else begin[0],
        "items": list(begin if first else rest),
        "item_first": first,
        "label_token_ids": list(prompter.rows),
        "apply_softmax": True,
        "embed_override_token_id": items.token,
        "item_embed_overrides": [vectors.tolist() for vectors in overrides.vectors],
    }
