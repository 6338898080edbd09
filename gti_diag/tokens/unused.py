"""Rows that no text trains: by what the tokenizer says, and by what the rows show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import chain, islice, repeat

import numpy as np

from gti_diag.checkpoint import Matrix, Vocabulary
from gti_diag.checkpoint.lazy import Tensor, torch

from .codes import PLACEHOLDER, USUAL_SPECIALS, plain

SPECIAL = "special tokens"
NAMELESS = "rows without a token (padding)"
NAMED = "placeholder tokens (unused, reserved, …)"
COPIES = "rows identical to another"
SAME_NORM = "rows of the norm that unused rows share"

LEAST_MARKS = 8  # unused rows that must agree before their norm is a mark
AGREEMENT = 0.05  # largest standard deviation over mean of their norms
MOST_MARKED = 0.05  # largest share of text rows that a telling mark may hit
SAMPLED = 512
TILE_ELEMENTS = 1 << 24


def reserved(vocabulary: Vocabulary | None, rows: int) -> dict[int, str]:
    """Rows that no text uses, by what the tokenizer says, with the cause."""
    if vocabulary is None:
        return {}
    causes = {id: SPECIAL for id in vocabulary.special if id < rows}
    for id, token in enumerate(islice(chain(vocabulary.tokens, repeat(None)), rows)):
        if token is None:
            causes[id] = NAMELESS
        elif token[:1] in ("<", "[", "|", ">") and PLACEHOLDER.fullmatch(plain(token)):
            causes[id] = NAMED
        elif token.strip() in USUAL_SPECIALS:
            causes[id] = SPECIAL
    return causes


def never_trained(matrix: Matrix, text: Sequence[int], *, unused: Sequence[int]) -> dict[int, str]:
    """Text rows that no training touched: exact copies of another row, or of the norm that all unused rows share.

    The norm is a mark only if at least `LEAST_MARKS` unused rows agree in it and few text rows have it (`MOST_MARKED`);
    a row has it when it lies within four standard deviations of their mean.
    """
    ids = torch.tensor(text, dtype=torch.long)
    if not len(ids):
        return {}
    mark = _mark(matrix, unused)
    if mark is not None and _share(matrix, ids[:: max(1, len(ids) // SAMPLED)], mark) > 2 * MOST_MARKED:
        mark = None  # far too common to be a mark: spare the norms of all rows
    width = min(64, matrix.shape[1])
    probe = torch.randn(width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    norms, keys = [], []
    for tile in matrix.tiles(ids, size=max(256, TILE_ELEMENTS // matrix.shape[1])):
        keys.append(tile[:, :width].double() @ probe)
        if mark is not None:
            norms.append(torch.linalg.vector_norm(tile.float(), dim=1))
    causes = {text[place]: COPIES for place in _copies(matrix, ids, torch.cat(keys))}
    if mark is not None:
        mean, spread = mark
        near = ((torch.cat(norms) - mean).abs() <= 4 * spread).numpy()
        if near.sum() <= MOST_MARKED * len(near):
            causes |= {text[place]: SAME_NORM for place in np.flatnonzero(near).tolist()}
    return causes


def _share(matrix: Matrix, ids: Tensor, mark: tuple[float, float]) -> float:
    norms = torch.linalg.vector_norm(matrix.rows(ids).float(), dim=1)
    return float(((norms - mark[0]).abs() <= 4 * mark[1]).float().mean())


def _mark(matrix: Matrix, unused: Sequence[int]) -> tuple[float, float] | None:
    """Mean and standard deviation of the norm that unused rows share; None if they do not agree."""
    if len(unused) < LEAST_MARKS:
        return None
    norms = torch.linalg.vector_norm(matrix.rows(torch.tensor(unused[:4096], dtype=torch.long)).float(), dim=1)
    mean, spread = float(norms.mean()), float(norms.std())
    return (mean, spread) if mean > 0 and spread < AGREEMENT * mean else None


def _copies(matrix: Matrix, ids: Tensor, key: Tensor) -> list[int]:
    """Places in `ids` whose row equals another's: found by equal projections, confirmed on the whole rows."""
    order = key.argsort()
    close = torch.isclose(key[order][1:], key[order][:-1], rtol=1e-12, atol=0.0)
    suspects = torch.unique(torch.cat([order[1:][close], order[:-1][close]]))
    if not len(suspects):
        return []
    rows = matrix.rows(ids[suspects])
    packed = [row.tobytes() for row in rows.contiguous().view(torch.uint8).numpy()]
    counts = Counter(packed)
    return [int(place) for place, row in zip(suspects, packed, strict=True) if counts[row] > 1]
