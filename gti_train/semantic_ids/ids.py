"""Semantic IDs: item texts become vectors, vectors become short code sequences from coarse to fine.

Residual k-means: with r_1 = z, level l clusters the residuals r_l into `codes` centroids q^(l), writes
c_l = argmin_k |r_l - q_k^(l)| and passes on r_{l+1} = r_l - q_{c_l}^(l). The centroids are kept as the codebooks:
they are what a grounded embedding can be compared with.
Source: residual quantisation as in TIGER (Rajput et al. 2023), with k-means in place of the RQ-VAE.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gti_diag.errors import InputError
from gti_train.catalogue.records import Catalogue

LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class SemanticIds:
    """Codes of every item (row i belongs to `item_ids[i]`) and one codebook per level.

    The token of code k at level l is `<a_k>`, `<b_k>`, … : the letter is the level.
    """

    item_ids: tuple[str, ...]
    codes: Int[Tensor, "items levels"]
    codebooks: tuple[Float[Tensor, "codes dim"], ...]
    encoder: str = ""
    seed: int = 0

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
