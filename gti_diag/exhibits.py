"""What the figures show, as numbers in the analysis: the cosine panel, the block-ordered matrix, the token map."""

from collections.abc import Sequence

import torch
from torch import Tensor

from . import geometry, spectra

PANEL = 50  # tokens of each group in the cosine panel: the paper's Fig. 5
CELLS = 256  # the block matrix has at most this many cells a side
MAP_TEXT = 2000


def evenly(count: int, wanted: int) -> Tensor:
    """At most `wanted` of 0 … count − 1, evenly spaced, first and last included."""
    if count <= wanted:
        return torch.arange(count)
    return torch.linspace(0, count - 1, wanted).round().long()


def panel(text: Tensor, text_ids: Tensor, new: Tensor, new_ids: Tensor, *, names: dict[str, Sequence[str]]) -> dict:
    """Cosines among text and new tokens, text first. The caller has chosen the tokens and left out zero rows."""
    cosines = geometry.cosine_matrix(torch.cat([text.double(), new.double()]))
    return {
        "text": {"ids": text_ids, "tokens": names["text"]},
        "new": {"ids": new_ids, "tokens": names["new"]},
        "cosine": cosines.float().round(decimals=4),
    }


def blocks(new: Tensor, tokens: Sequence[str], levels: Tensor | None) -> dict:
    """Cosines of the new tokens in code order; neighbours share a cell when there are more than 256."""
    levels = torch.ones(len(new), dtype=torch.long) if levels is None else levels
    order = torch.argsort(levels, stable=True)
    per_cell = -(-len(new) // CELLS)
    cells = torch.zeros(len(new), dtype=torch.long)
    start, bounds, cell_levels, labels = 0, [], [], []
    for level in levels.unique().tolist():
        members = order[levels[order] == level]
        count = -(-len(members) // per_cell)
        cells[members] = start + torch.arange(len(members)) // per_cell
        bounds.append(start)
        cell_levels += [level] * count
        labels += [tokens[i] for i in members[::per_cell].tolist()]
        start += count
    if per_cell == 1:
        cosines = geometry.cosine_matrix(new[order])
    else:
        cosines = geometry.block_mean_cosine(new, cells.to(new.device))
    return {
        "labels": labels,
        "levels": cell_levels,
        "bounds": bounds,
        "cosine": _nan_to_none(cosines.float().round(decimals=4)),
        "tokens_per_cell": per_cell,
    }


def _nan_to_none(cosines: Tensor) -> list:
    # A cell of one token has no pair within itself.
    return [[None if value != value else value for value in row] for row in cosines.tolist()]


def token_map(text: Tensor, new: Tensor) -> dict:
    """Coordinates of both groups on the two leading principal components of both together, each weighing half.

    Raises:
        ValueError: the rows span fewer than two directions.
    """
    half = [text.double(), new.double()]
    centre = torch.stack([geometry.centroid(rows) for rows in half]).mean(0)
    scaled = torch.cat([(rows - centre) / len(rows) ** 0.5 for rows in half])
    moments = spectra.moments(scaled)
    axes = spectra.principal_axes(moments, 2, centred=False)
    axes = axes * torch.where(axes.abs().max(0).values == axes.max(0).values, 1.0, -1.0)  # eigenvectors have no sign
    energy = spectra.singular_values(moments) ** 2
    (text_x, text_y), (new_x, new_y) = (((rows - centre) @ axes).T.float() for rows in half)
    return {
        "method": "pca",
        "explained": (energy[:2] / energy.sum()).float(),
        "text": {"x": text_x, "y": text_y},
        "new": {"x": new_x, "y": new_y},
    }
