"""The loss over what decoding can choose from: at each code of an answer, the codes that lead to an item."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gti_train.model.head import Head, logits_of

from .trie import Trie


class CodeChoices:
    """For the code of item i on level l, the codes of that level that follow its first l codes in `trie`.

    `tokens` are those of all levels, one level after the other: the columns of the masks.
    """

    def __init__(self, trie: Trie):
        self.trie, self.tokens = trie, torch.cat(trie.tokens)
        sizes = torch.tensor([0, *(len(ids) for ids in trie.tokens[:-1])], device=trie.device)
        self.first_column = sizes.cumsum(0)
        above = [trie.leaf_of]
        for depth in range(trie.levels, 0, -1):
            above.insert(0, trie.parents[depth][above[0]])
        self.nodes = torch.stack(above[:-1], 1)  # items × levels: the node that each code is chosen at
        self.column_of = torch.full((int(self.tokens.max()) + 1,), -1, device=trie.device)
        self.column_of[self.tokens] = torch.arange(len(self.tokens), device=trie.device)

    def mask(self, items: Int[Tensor, " targets"], levels: Int[Tensor, " targets"]) -> Bool[Tensor, "targets columns"]:
        """Which columns each target is chosen among."""
        found = torch.zeros(len(items), len(self.tokens), dtype=torch.bool, device=self.trie.device)
        for level in range(self.trie.levels):
            rows = (levels == level).nonzero()[:, 0]
            nodes, offsets = self.nodes[items[rows], level], self.trie.children[level]
            counts = offsets[nodes + 1] - offsets[nodes]
            within = torch.arange(int(counts.sum()), device=self.trie.device)
            within -= torch.repeat_interleave(counts.cumsum(0) - counts, counts)
            children = torch.repeat_interleave(offsets[nodes], counts) + within
            columns = self.first_column[level] + self.trie.codes[level + 1][children]
            found[torch.repeat_interleave(rows, counts), columns] = True
        return found

    def loss(
        self,
        head: Head,
        hidden: Float[Tensor, "targets dim"],
        *,
        items: Int[Tensor, " targets"],
        levels: Int[Tensor, " targets"],
        targets: Int[Tensor, " targets"],
        weights: Float[Tensor, " targets"],
    ) -> Float[Tensor, ""]:
        """Σ w · −log p(code | the codes before it, and that an item follows); `head` holds the rows of `tokens`.

        Summed over an item's codes it is −log of the probability by which decoding ranks the item.
        """
        logits = logits_of(hidden, head).float().masked_fill(~self.mask(items, levels), -torch.inf)
        return (F.cross_entropy(logits, self.column_of[targets], reduction="none") * weights).sum()
