"""Cosine similarity of 50 pretrained and 50 new tokens, one panel per checkpoint (the paper's Fig. 5)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from .style import Look, canvas, colour_map, printable
from .view import Missing, View, similarity, token

NAME = "cosine-panels"
TITLE = "Cosine similarity of pretrained and new tokens"
MEASURE = "mean_cosine"  # what `gti-diag explain` calls it
CAPTION = (
    "Every cell is the cosine of two embedding rows: pretrained text tokens first, then new tokens. "
    "A solid block of new tokens means that their rows point one way."
)


@dataclass(frozen=True)
class Panel:
    name: str
    cosine: np.ndarray
    tokens: tuple[str, ...]
    text: int  # how many of them, from the start, are text tokens
    new_mean: float | None


def points(view: View) -> Panel:
    """The panel of one checkpoint.

    Raises:
        Missing: no panel, as for a checkpoint without new tokens.
    """
    panel = view.part("panel")
    new, text = panel.get("new"), panel.get("text")
    if not new or not new.get("tokens"):
        raise Missing("no new tokens to compare")
    tokens = [*text["tokens"], *new["tokens"]]
    mean = view.group("new").get("mean_cosine")
    return Panel(
        view.name,
        np.array(panel["cosine"], float),
        tuple(token(t) for t in tokens),
        len(text["tokens"]),
        mean,
    )


def draw(panels: Sequence[Panel], look: Look) -> Figure:
    """One column for one panel, the page's width for several; cosines always on the scale −1 … 1."""
    single = len(panels) == 1
    columns = min(len(panels), 4)
    rows = math.ceil(len(panels) / columns)
    width = look["column"] if single else look["page"]
    side = (width - 0.75) / columns
    figure, grid = canvas(width, rows * (side + (-0.3 if single else 0.32)), nrows=rows, ncols=columns, squeeze=False)
    for axes, panel in zip(grid.flat, panels, strict=False):
        axes.imshow(
            panel.cosine, cmap=colour_map(look["diverging"]), vmin=-1, vmax=1, interpolation="nearest", rasterized=True
        )
        axes.axhline(panel.text - 0.5, color=look["ink"], lw=0.5)
        axes.axvline(panel.text - 0.5, color=look["ink"], lw=0.5)
        mean = "" if panel.new_mean is None else f"\nmean of new pairs {similarity(panel.new_mean)}"
        axes.set_title(printable(panel.name) + (mean.replace("\n", ": ") if single else mean), linespacing=1.0)
        axes.spines[:].set_visible(False)
        _ticks(axes, panel, look, points_high=side * 72 * (0.78 if single else 0.9), tokens=single)
    for axes in list(grid.flat)[len(panels) :]:
        axes.set_visible(False)
    bar = figure.colorbar(
        grid.flat[0].images[0], ax=grid, shrink=0.75, aspect=28, pad=0.015, ticks=(-1, -0.5, 0, 0.5, 1)
    )
    bar.set_label("cosine similarity")
    bar.outline.set_visible(False)
    return figure


def _ticks(axes, panel: Panel, look: Look, *, points_high: float, tokens: bool) -> None:
    """Group names below; on the left as many token names as stay legible (single panel only)."""
    groups = [(panel.text - 1) / 2, panel.text + (len(panel.tokens) - panel.text - 1) / 2]
    names = [f"{panel.text} text", f"{len(panel.tokens) - panel.text} new"]
    axes.set_xticks(groups, names)
    axes.tick_params(length=0)
    if not tokens:
        axes.set_yticks(groups, ["text", "new"], rotation=90, va="center")
        return
    step = max(1, math.ceil(len(panel.tokens) * (look["token"] + 1.5) / points_high))
    shown = list(range(0, len(panel.tokens), step))
    axes.set_yticks(shown, [printable(panel.tokens[i]) for i in shown], fontsize=look["token"], family="DejaVu Sans")
    axes.tick_params(axis="y", length=1.5, pad=1)
