"""BM25: what any retrieval must beat before its numbers mean anything."""

import re
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from scipy import sparse
from torch import Tensor

WORD = re.compile(r"[^\W_]+")


class BM25:
    """score(q, d) = Σ over words w of q of ln(1 + (N − n + ½)/(n + ½)) · f (k1 + 1) / (f + k1 (1 − b + b |d|/avg)).

    n: documents with w; f: occurrences of w in d. Words are runs of letters and digits in lower case, not stemmed; a word that
    a query repeats counts as often.

    Source: Robertson and Zaragoza 2009, with Lucene's idf, which is never negative.
    """

    def __init__(self, documents: Sequence[str], *, k1: float = 0.9, b: float = 0.4):
        words = [_words(text) for text in documents]
        self.vocabulary = {word: place for place, word in enumerate(sorted({w for found in words for w in found}))}
        counts = self._counts(words).tocoo()
        lengths = np.asarray([len(found) for found in words], dtype=np.float64)
        with_word = np.bincount(counts.col, minlength=len(self.vocabulary))
        idf = np.log1p((len(documents) - with_word + 0.5) / (with_word + 0.5))
        damping = k1 * (1 - b + b * lengths / lengths.mean())
        weights = idf[counts.col] * counts.data * (k1 + 1) / (counts.data + damping[counts.row])
        self.weights = sparse.csr_matrix((weights, (counts.row, counts.col)), shape=counts.shape)

    def __call__(self, queries: Sequence[str]) -> Float[Tensor, "queries documents"]:
        """The score of every document."""
        asked = self._counts([[w for w in _words(text) if w in self.vocabulary] for text in queries])
        return torch.from_numpy((asked @ self.weights.T).toarray())

    def _counts(self, texts: Sequence[Sequence[str]]) -> sparse.csr_matrix:
        rows = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
        columns = np.asarray([self.vocabulary[word] for text in texts for word in text], dtype=np.int64)
        shape = (len(texts), len(self.vocabulary))
        return sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=shape)  # repeats are summed


def _words(text: str) -> list[str]:
    return WORD.findall(text.lower())
