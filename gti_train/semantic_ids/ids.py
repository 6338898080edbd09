"""Semantic IDs: short code sequences of items, from coarse to fine, with the codebooks that they come from.

The codebooks and the mean vector of each code's items are what a grounded embedding can be compared with.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gti_diag.errors import InputError
from gti_train.catalogue.records import Catalogue

LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class SemanticIds:
    """Codes of every item (row i belongs to `item_ids[i]`) and one codebook per level.

    The token of code k at level l is `<a_k>`, `<b_k>`, … : the letter is the level. `item_means`, in the order of
    `tokens`, are what each code stands for (see `mean_of_items`); None where the items' vectors are not known.
    """

    item_ids: tuple[str, ...]
    codes: Int[Tensor, "items levels"]
    codebooks: tuple[Float[Tensor, "codes dim"], ...]
    item_means: Float[Tensor, "tokens dim_of_items"] | None = None
    encoder: str = ""
    seed: int = 0
    made: Mapping[str, Any] = field(default_factory=dict)  # quantiser, unique, and what uniqueness moved

    @property
    def tokens(self) -> tuple[str, ...]:
        """All code tokens, level by level: the order of the codebook rows and of the new ids."""
        return tuple(token_of(level, code) for level, book in enumerate(self.codebooks) for code in range(len(book)))

    @property
    def levels(self) -> tuple[int, ...]:
        """1-based level of each of `tokens`."""
        return tuple(level + 1 for level, book in enumerate(self.codebooks) for _ in range(len(book)))

    @property
    def reference(self) -> Float[Tensor, "tokens dim"]:
        """The codebook vectors in the order of `tokens`."""
        return torch.cat(list(self.codebooks))

    @property
    def references(self) -> dict[str, Float[Tensor, "tokens _"]]:
        """What embeddings of `tokens` can be compared with, by name: `codebooks`, and `item_means` where known."""
        known = {"codebooks": self.reference, "item_means": self.item_means}
        return {name: vectors for name, vectors in known.items() if vectors is not None}

    @property
    def counts(self) -> Int[Tensor, " tokens"]:
        """How many items carry each of `tokens`."""
        return torch.cat([torch.bincount(self.codes[:, level], minlength=len(book))
                          for level, book in enumerate(self.codebooks)])  # fmt: skip

    def of(self, item_id: str) -> tuple[str, ...]:
        """The code tokens of one item.

        Raises:
            InputError: the item has no semantic ID.
        """
        try:
            row = self._rows[item_id]
        except KeyError:
            raise InputError(f"item {item_id!r} has no semantic ID; make the IDs from the same items") from None
        return tuple(token_of(level, int(code)) for level, code in enumerate(self.codes[row]))

    @property
    def _rows(self) -> dict[str, int]:
        cached = self.__dict__.get("_row_of")
        if cached is None:
            cached = {item: row for row, item in enumerate(self.item_ids)}
            self.__dict__["_row_of"] = cached  # a frozen dataclass still has a dictionary for caches
        return cached


def token_of(level: int, code: int) -> str:
    return f"<{LETTERS[level]}_{code}>"


def mean_of_items(sids: SemanticIds, vectors: Float[Tensor, "items dim"]) -> Float[Tensor, "tokens dim"]:
    """For each code token the mean vector of the items that carry it; zeros for a code that no item carries.

    What a code means is its items. On level 1 that is the codebook vector; below, a codebook vector is a residual that
    items of every kind share.

    Raises: ValueError unless there is one vector for each item.
    """
    if len(vectors) != len(sids.item_ids):
        raise ValueError(f"{len(vectors)} vectors for {len(sids.item_ids)} items: one each is needed")
    starts = torch.tensor([0, *(len(book) for book in sids.codebooks[:-1])]).cumsum(0)
    sums = vectors.new_zeros(len(sids.tokens), vectors.shape[1], dtype=torch.float64)
    for places in (sids.codes + starts).T:
        sums.index_add_(0, places, vectors.double())
    return sums / sids.counts.clamp(min=1)[:, None]


def described(sids: SemanticIds, catalogue: Catalogue) -> dict[str, list[str]]:
    """For each code token the texts of all items that carry it (none for a code that no item carries).

    Raises:
        InputError: an item has no semantic ID.
    """
    texts: dict[str, list[str]] = {token: [] for token in sids.tokens}
    for item in catalogue.items:
        for token in sids.of(item.id):
            texts[token].append(item.text)
    return texts
