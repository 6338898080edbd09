"""The objective of fine-tuning: −log likelihood of answers, by trees of tokens that share what families share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gti_diag.errors import InputError
from gti_train.loop.training import Part
from gti_train.model.loading import products_in
from gti_train.model.micro_batches import overhead_of
from gti_train.model.packing import Place, packed
from gti_train.model.sequences import Encoded, Example, encode
from gti_train.model.tree_passes import Way, hidden_states, longest_row, tree_loss
from gti_train.model.trees import TokenTree

from .choices import CodeChoices
from .learners import Learner
from .prompts import TITLE, TO_TEXT

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Family:
    """Sequences that share a beginning, what each of their answer tokens weighs, and the item whose codes each answers
    (−1 where the answer is a text, or the loss is over the vocabulary)."""

    sequences: tuple[Encoded, ...]
    weight: float
    items: tuple[int, ...]

    @property
    def targets(self) -> int:
        """Number of answer tokens."""
        return sum(sequence.supervised for sequence in self.sequences)


def encode_families(
    families: Sequence[Sequence[Example]],
    tokenizer: "PreTrainedTokenizerBase",
    *,
    max_tokens: int,
    weights: Mapping[str, float],
    choices: CodeChoices | None = None,
    places: Mapping[str, int] | None = None,
) -> list[Family]:
    """Tokens of every example. With `choices`, answers in codes end with the last code (decoding never asks for an end
    of text), and `places` says which row of its tree each item is.

    Raises:
        InputError: as `encode`; an answer that is not the codes of its item.
    """
    found = []
    for family in families:
        sequences = tuple(encode(e, tokenizer, new=(), max_tokens=max_tokens) for e in family)
        items = (-1,) * len(family)
        if choices is not None and family[0].kind not in (TITLE, TO_TEXT):
            assert places is not None
            sequences = tuple(_cut(s, e, choices) for s, e in zip(sequences, family, strict=True))
            items = tuple(places[e.item_id] for e in family)
        found.append(Family(sequences, weights.get(family[0].kind, 1.0), items))
    return found


def _cut(sequence: Encoded, example: Example, choices: CodeChoices) -> Encoded:
    codes = sequence.ids[sequence.answer : sequence.answer + choices.trie.levels]
    if any(
        token not in wanted for token, wanted in zip(codes, (ids.tolist() for ids in choices.trie.tokens), strict=True)
    ):
        raise InputError(f"the answer {example.answer!r} is not one code of each level: use the semantic IDs' own")
    return replace(sequence, ids=sequence.ids[: sequence.answer + choices.trie.levels])


class TreeAnswers:
    """The objective: Σ w · −log p(answer token) over families, which are its examples."""

    side_by_side = False  # two graphs, and two gradients of every parameter, would be alive at once

    def __init__(
        self,
        learner: Learner,
        families: Sequence[Family],
        *,
        way: Way,
        micro_tokens: int,
        compute: torch.dtype,
        choices: CodeChoices | None = None,
    ):
        if way.own_head and (learner.embed is not None or choices is not None):
            raise InputError(
                "the head of this model is not known: train every weight, with the loss over the vocabulary"
            )
        self.learner, self.families, self.way, self.choices = learner, families, way, choices
        self.micro_tokens, self.compute = micro_tokens, compute

    def supervised(self, indices: Sequence[int]) -> float:
        """Answer tokens, each as often as it weighs."""
        return sum(self.families[i].targets * self.families[i].weight for i in indices)

    def updated(self) -> None:
        """Let the model hold the new values."""
        self.learner.updated()

    def parts(self, indices: Sequence[int]) -> list[Part]:
        """Passes of packed trees."""
        passes = self._passes([self.families[i] for i in indices])
        return self.learner.even(passes, lambda: self._passes(self.families[:1])[0])

    def _passes(self, families: Sequence[Family]) -> list[Part]:
        model = self.learner.model
        row = longest_row(model, self.micro_tokens)
        tokens = [[sequence.ids for sequence in family.sequences] for family in families]
        passes = packed(tokens, row=row, budget=self.micro_tokens, overhead=overhead_of(model.device))
        return [partial(self.learner.make_pass, partial(self._loss, families, rows)) for rows in passes]

    def _loss(self, families: Sequence[Family], rows: list[list[Place]]) -> Tensor:
        model = self.learner.model
        tree = TokenTree.stack([_grown(families, row) for row in rows]).to(model.device)
        with products_in(self.compute, model.device):
            if self.way.own_head:
                return tree_loss(model, tree, self.way)
            hidden = hidden_states(model, tree, self.way, embed=self.learner.embed)
            if self.choices is None:
                return self.learner.vocabulary_loss(hidden, tree.targets, tree.weights)
            return self._loss_over_codes(hidden, tree, *_coded(families, rows))

    def _loss_over_codes(self, hidden: Tensor, tree: TokenTree, items: Tensor, levels: Tensor) -> Tensor:
        assert self.choices is not None
        items, levels = items.to(hidden.device), levels.to(hidden.device)
        words, codes = (items < 0).nonzero()[:, 0], (items >= 0).nonzero()[:, 0]
        loss = self.choices.loss(
            self.learner.head_rows(self.choices.tokens), hidden[codes],
            items=items[codes], levels=levels[codes], targets=tree.targets[codes], weights=tree.weights[codes],
        )  # fmt: skip
        if len(words):
            loss = loss + self.learner.vocabulary_loss(hidden[words], tree.targets[words], tree.weights[words])
        return loss


def _grown(families: Sequence[Family], row: list[Place]) -> TokenTree:
    members = [families[f].sequences[s] for f, s in row]
    weights = [families[f].weight for f, _ in row]
    return TokenTree.grow([m.ids for m in members], answers=[m.answer for m in members], weights=weights)


def _coded(families: Sequence[Family], rows: list[list[Place]]) -> tuple[Tensor, Tensor]:
    """Item and level of each target in the order of the tree's, −1 where it is a word."""
    items: list[int] = []
    levels: list[int] = []
    for f, s in (place for row in rows for place in row):
        count, item = families[f].sequences[s].supervised, families[f].items[s]
        items += [item] * count
        levels += range(count)
    return torch.tensor(items), torch.tensor(levels)
