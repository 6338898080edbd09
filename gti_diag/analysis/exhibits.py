"""What the figures show, as numbers in the analysis: the cosine panel, the block-ordered matrix, the token map."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from gti_diag.measures import geometry, spectra
from gti_diag.measures.tiles import evenly, wide_tiles

from .group_rows import GroupRows

PANEL = 50  # tokens of each group in the cosine panel: the paper's Fig. 5
CELLS = 256  # the block matrix has at most this many cells a side
MAP_TEXT = 2000
MAP_AXES = 4096


def gather(text: GroupRows | None, new: GroupRows, *, generator: Callable[[str], torch.Generator]) -> dict:
    """The parts `panel`, `blocks` and `map`; one that cannot be made is None, and `undefined` says why."""
    found: dict[str, Any] = {"undefined": {}}
    makers = {
        "panel": lambda: panel(_there(text), new, generator=generator("panel")),
        "blocks": lambda: blocks(new.rows, new.tokens, new.levels),
        "map": lambda: token_map(_there(text), new, generator=generator("map")),
    }
    for name, make in makers.items():
        try:
            found[name] = make()
        except ValueError as error:
            found[name] = None
            found["undefined"][name] = str(error)
    return found


def _there(text: GroupRows | None) -> GroupRows:
    if text is None:
        raise ValueError("there are no text rows to compare with")
    return text


def panel(text: GroupRows, new: GroupRows, *, generator: torch.Generator) -> dict:
    """Cosines among 50 random text and 50 evenly spaced new tokens, text first; zero rows are passed over."""
    ours = new.nonzero(evenly(len(new.ids), PANEL))
    random = torch.randperm(len(text.ids), generator=generator)
    theirs = text.nonzero(random[: 2 * PANEL])[:PANEL].sort().values
    cosines = geometry.cosine_matrix(torch.cat([text.rows[theirs].double(), new.rows[ours].double()]))
    return {
        "text": {"ids": text.ids[theirs], "tokens": text.named(theirs)},
        "new": {"ids": new.ids[ours], "tokens": new.named(ours)},
        "cosine": cosines.float().round(decimals=4),
    }


def blocks(new: Tensor, tokens: Sequence[str], levels: Tensor | None) -> dict:
    """Cosines of the new tokens in code order, raw and about their mean; neighbours share a cell beyond 256 cells.

    About the mean, because a direction that all new tokens share (they all are codes) pales the blocks.
    """
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

    def cosines(centre: Tensor | None) -> list:
        if per_cell == 1:
            found = geometry.cosine_matrix(new[order] if centre is None else new[order] - centre)
        else:
            found = geometry.block_mean_cosine(new, cells, centre=centre)
        return _nan_to_none(found.float().round(decimals=4))

    cells, order = cells.to(new.device), order.to(new.device)
    try:
        centred = cosines(geometry.centroid(new))
    except ValueError:  # a row on the centroid has no direction from it: one point, or nearly
        centred = None
    return {
        "labels": labels,
        "levels": cell_levels,
        "bounds": bounds,
        "cosine": cosines(None),
        "cosine_centred": centred,
        "tokens_per_cell": per_cell,
    }


def _nan_to_none(cosines: Tensor) -> list:
    # A cell of one token has no pair within itself.
    return [[None if value != value else value for value in row] for row in cosines.tolist()]


def token_map(text: GroupRows, new: GroupRows, *, generator: torch.Generator) -> dict:
    """All new tokens and up to 2,000 random text tokens on the two leading principal components of both together.

    Each group weighs half, so that neither is drawn by the other's axes alone; up to 4,096 new tokens give the axes.

    Raises:
        ValueError: the rows span fewer than two directions.
    """
    some = torch.randperm(len(text.ids), generator=generator)[:MAP_TEXT].sort().values
    both = [text.rows[some.to(text.rows.device)], new.rows]
    centre = torch.stack([geometry.centroid(rows) for rows in both]).mean(0)
    axes = spectra.leading_axes([both[0], new.rows[evenly(len(new.rows), MAP_AXES).to(new.rows.device)]], 2)
    axes = axes * torch.where(axes.abs().max(0).values == axes.max(0).values, 1.0, -1.0)  # eigenvectors have no sign
    placed, inside, total = [], torch.zeros(2, dtype=torch.float64, device=axes.device), 0.0
    for rows in both:
        found = [(tile @ axes, float(tile.square_().sum())) for tile in wide_tiles(rows, centre=centre)]
        at = torch.cat([place for place, _ in found])
        inside += at.square().sum(0) / len(rows)
        total += sum(energy for _, energy in found) / len(rows)
        placed.append(at.T.float())
    (text_x, text_y), (new_x, new_y) = placed
    return {
        "method": "pca",
        "explained": (inside / total).float(),
        "text": {"ids": text.ids[some], "tokens": text.named(some), "x": text_x, "y": text_y},
        "new": {"ids": new.ids, "tokens": new.tokens, "levels": new.levels, "x": new_x, "y": new_y},
    }
