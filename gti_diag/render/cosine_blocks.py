"""Cosines of the new tokens in code order: does the hierarchy of the codes show as blocks? (Figs. 2c, 6)"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from .style import Look, canvas, colour_map, printable
from .view import Missing, View

NAME = "cosine-blocks"
TITLE = "Cosine similarity of the new tokens in code order"
MEASURE = "hierarchy"  # what `gti-diag explain` calls it
CAPTION = (
    "New tokens × new tokens about their mean, ordered by level and code; lines part the levels. Blocks along the "
    "diagonal mean that codes of one level resemble each other more than those of another. Rows that are one point "
    "have no directions about their mean: their plain cosines are shown."
)


@dataclass(frozen=True)
class Panel:
    name: str
    cosine: np.ndarray
    bounds: tuple[int, ...]  # first cell of each level
    levels: tuple[str, ...]
    tokens_per_cell: float
    labels: tuple[str, ...] = ()  # of each cell: its first token


def points(view: View) -> Panel:
    """The block-averaged matrix.

    Raises:
        Missing: no blocks, as for a checkpoint without new tokens.
    """
    blocks = view.part("blocks")
    shown = blocks.get("cosine_centred") or blocks["cosine"]  # one point has no directions about its mean
    cosine = np.array([[np.nan if c is None else c for c in row] for row in shown], float)
    if not cosine.size:
        raise Missing("no new tokens")
    bounds = tuple(blocks.get("bounds") or [0])
    at = blocks.get("levels") or []
    levels = tuple(f"level {at[start]}" if start < len(at) and at[start] is not None else "new" for start in bounds)
    return Panel(
        view.name, cosine, bounds, levels, blocks.get("tokens_per_cell") or 1, tuple(blocks.get("labels") or ())
    )


def limit(panels: Sequence[Panel]) -> float:
    """Half-width of the shared colour scale: the 99th percentile of |cosine| off the diagonal, rounded up."""
    values = [np.abs(panel.cosine[~np.eye(len(panel.cosine), dtype=bool)]) for panel in panels]
    found = np.concatenate(values) if values else np.empty(0)
    found = found[np.isfinite(found)]
    top = float(np.quantile(found, 0.99)) if len(found) else 1.0
    return next(nice for nice in (0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0) if nice >= min(top, 1.0) or nice == 1.0)


def draw(panels: Sequence[Panel], look: Look) -> Figure:
    """One panel per checkpoint on one colour scale centred at 0."""
    single = len(panels) == 1
    columns = min(len(panels), 4)
    rows = math.ceil(len(panels) / columns)
    width = look["column"] if single else look["page"]
    side = (width - 0.75) / columns
    figure, grid = canvas(width, rows * (side + (0.0 if single else 0.15)), nrows=rows, ncols=columns, squeeze=False)
    scale = limit(panels)
    for axes, panel in zip(grid.flat, panels, strict=False):
        axes.imshow(
            panel.cosine,
            cmap=colour_map(look["diverging"]),
            vmin=-scale,
            vmax=scale,
            interpolation="nearest",
            rasterized=True,
        )
        ends = [*panel.bounds[1:], len(panel.cosine)]
        for start in panel.bounds[1:]:
            axes.axhline(start - 0.5, color=look["ink"], lw=0.5)
            axes.axvline(start - 0.5, color=look["ink"], lw=0.5)
        middles = [(start + end - 1) / 2 for start, end in zip(panel.bounds, ends, strict=True)]
        axes.set_xticks(middles, panel.levels)
        axes.set_yticks(middles, panel.levels, rotation=90, va="center")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_title(printable(panel.name))
    for axes in list(grid.flat)[len(panels) :]:
        axes.set_visible(False)
    bar = figure.colorbar(
        grid.flat[0].images[0],
        ax=grid,
        shrink=0.75,
        aspect=28,
        pad=0.015,
        ticks=np.linspace(-scale, scale, 5),
        extend="both" if scale < 1 else "neither",
    )
    per = panels[0].tokens_per_cell
    bar.set_label("cosine similarity about the mean" + (f"\n(mean of {per:g} × {per:g} tokens)" if per > 1 else ""))
    bar.outline.set_visible(False)
    return figure
