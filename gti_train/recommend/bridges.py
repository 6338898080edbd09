"""The same tree of items for other engines: two ways into `transformers.generate`, and JSON for serving engines.

`generate` runs a prompt once for each beam, takes logits of the whole vocabulary and applies what `generation_config`
asks for *after* the tree: reset it (`model.generation_config = GenerationConfig()`), or a `top_k` below the number of
beams fills the list with invalid ids. `decoding.decode` needs none of this.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import LogitsProcessor

from .trie import Trie


class TrieLogitsProcessor(LogitsProcessor):
    """Only tokens that the tree allows keep their scores; after an item, or beside the tree, only `end` does.

    prompt_length: tokens before the first code, padding included. With `among_items`, what is left is normalised anew,
    so that beams carry the scores that `decode` calls `items`; without, those that it calls `vocabulary`.
    """

    def __init__(self, trie: Trie, *, prompt_length: int, end: int, among_items: bool = False):
        self.trie, self.prompt_length, self.end, self.among_items = trie, prompt_length, end, among_items
        largest, none = max(int(ids.max()) for ids in trie.tokens), max(map(len, trie.tokens))
        self.codes = torch.full((trie.levels, largest + 2), none, device=trie.device)  # none: more than any level has
        for level, tokens in enumerate(trie.tokens):
            self.codes[level, tokens] = torch.arange(len(tokens), device=trie.device)

    def __call__(self, input_ids: Int[Tensor, "rows length"], scores: Float[Tensor, "rows vocabulary"]) -> Tensor:
        written = input_ids[:, self.prompt_length :]
        depth, nodes = written.shape[1], self._nodes(written)
        allowed = torch.zeros_like(scores, dtype=torch.bool)
        lost = torch.ones_like(nodes, dtype=torch.bool)
        if depth < self.trie.levels:
            lost = nodes == self.trie.count(depth)
            offsets = self.trie.children[depth][nodes.where(~lost, 0)[:, None] + torch.arange(2, device=nodes.device)]
            children = offsets[:, :1] + torch.arange(self.trie.fan_out(depth), device=nodes.device)
            there = (children < offsets[:, 1:]) & ~lost[:, None]
            tokens = self.trie.tokens[depth][self.trie.codes[depth + 1][children[there]]]
            allowed[there.nonzero()[:, 0], tokens] = True
        allowed[lost, self.end] = True
        kept = scores.masked_fill(~allowed, -torch.inf)
        return kept.log_softmax(-1) if self.among_items else kept

    def _nodes(self, written: Int[Tensor, "rows depth"]) -> Int[Tensor, " rows"]:
        """The node that each row has come to; the number of nodes where there is none."""
        nodes = torch.zeros(len(written), dtype=torch.long, device=written.device)
        for depth, tokens in enumerate(written[:, : self.trie.levels].T):
            codes = self.codes[depth][tokens.clamp(max=self.codes.shape[1] - 1)]
            known = (nodes < self.trie.count(depth)) & (codes < len(self.trie.tokens[depth]))
            step = self.trie.step(depth, nodes.where(known, 0), codes.where(known, 0))
            nodes = step.where(known, self.trie.count(depth + 1))
        return nodes


def prefix_allowed_tokens_fn(trie: Trie, *, prompt_length: int, end: int) -> Callable[[int, Tensor], list[int]]:
    """The callback of `generate`: the tokens that may follow a row; `end` after an item, and beside the tree."""
    processor = TrieLogitsProcessor(trie, prompt_length=prompt_length, end=end)

    def allowed(batch: int, input_ids: Int[Tensor, " length"]) -> list[int]:
        written = input_ids[None, prompt_length:]
        depth, node = written.shape[1], int(processor._nodes(written)[0])
        if depth >= trie.levels or node == trie.count(depth):
            return [end]
        span = slice(int(trie.children[depth][node]), int(trie.children[depth][node + 1]))
        return trie.tokens[depth][trie.codes[depth + 1][span]].tolist()

    return allowed


def comma_keys(trie: Trie, item_ids: Sequence[str]) -> dict[str, list[str]]:
    """`{"60,159,203": [item, …]}`: codes joined by commas, and the items that carry them, as serving engines read."""
    found: dict[str, list[str]] = {}
    places = torch.stack([trie.codes[depth][node] for depth, node in enumerate(_lineage(trie)) if depth], 1)
    for item, row in zip(trie.items.tolist(), places.tolist(), strict=True):
        found.setdefault(",".join(map(str, row)), []).append(item_ids[item])
    return found


def _lineage(trie: Trie) -> list[Int[Tensor, " items"]]:
    """For each depth the node above each item, items in the order of the tree."""
    nodes = [trie.leaf_of[trie.items]]
    for depth in range(trie.levels, 0, -1):
        nodes.insert(0, trie.parents[depth][nodes[0]])
    return nodes
