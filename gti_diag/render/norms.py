"""Lengths of the embedding rows: new tokens against text tokens."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from .style import Look, canvas, colour, printable
from .view import Missing, View

NAME = "norms"
TITLE = "Row norms"
MEASURE = "norm"  # what `gti-diag explain` calls it
CAPTION = (
    "Distribution of the rows' Euclidean lengths. New rows much shorter or longer than text rows are read, and "
    "as a tied head also predicted, unlike any word."
)
BINS = 80  # of the whole axis at most


@dataclass(frozen=True)
class Histogram:
    """Density over the group's highest, so that narrow and wide groups share an axis."""

    edges: np.ndarray
    density: np.ndarray
    point: float | None = None  # the one norm of all rows, when one bin holds them all


@dataclass(frozen=True)
class Panel:
    name: str
    text: Histogram | None
    new: Histogram | None
    place: int = 0


def points(view: View) -> Panel:
    """The histograms of both groups.

    Raises:
        Missing: neither group has one.
    """
    text, new = (_histogram(view, group) for group in ("text", "new"))
    if text is None and new is None:
        raise Missing("the analysis has no norm histograms")
    return Panel(view.name, text, new, view.place)


def _histogram(view: View, group: str) -> Histogram | None:
    norm = ((view.body.get("groups") or {}).get(group) or {}).get("norm") or {}
    histogram = norm.get("histogram")
    if not histogram or not sum(histogram["counts"]):
        return None
    edges, counts = np.array(histogram["edges"], float), np.array(histogram["counts"], float)
    if (counts > 0).sum() == 1:
        at = int(counts.argmax())
        return Histogram(edges[at : at + 2], np.ones(1), float(norm.get("mean") or edges[at]))
    density = counts / np.diff(edges)
    return Histogram(edges, density / density.max())


def coarser(histogram: Histogram, width: float) -> Histogram:
    """The same with neighbouring bins put together until none is narrower than `width`, which nobody could see."""
    step = int(np.ceil(width / np.diff(histogram.edges).min() - 1e-6))
    starts = np.arange(0, len(histogram.density), max(1, step))
    edges = np.append(histogram.edges[starts], histogram.edges[-1])
    density = np.add.reduceat(histogram.density * np.diff(histogram.edges), starts) / np.diff(edges)
    return Histogram(edges, density / density.max())


def draw(panels: Sequence[Panel], look: Look) -> Figure:
    """Text filled in grey (the first checkpoint's: nearly the same in all), new tokens as outlines."""
    edges = [h.edges for panel in panels for h in (panel.text, panel.new) if h is not None]
    least = (max(e[-1] for e in edges) - min(e[0] for e in edges)) / BINS
    figure, axes = canvas(look["column"], look["column"] * 0.62)
    text = next((panel.text for panel in panels if panel.text), None)
    if text is not None:
        axes.stairs(text.density, text.edges, fill=True, color=look["band"], label="text")
    for panel in panels:
        if panel.new is None:
            continue
        kind = {"color": colour(look, panel.place), "ls": ("-", "--", "-.", ":")[panel.place % 4], "lw": 1.2}
        name = printable(panel.name) + (" (new)" if len(panels) == 1 else "")
        if panel.new.point is not None:
            axes.axvline(panel.new.point, label=f"{name}: all one norm", **kind)
        else:
            seen = coarser(panel.new, least)
            axes.stairs(seen.density, seen.edges, label=name, **kind)
    axes.set(xlabel="Euclidean norm of the row", ylabel="density (highest = 1)")
    axes.set_ylim(bottom=0)
    axes.legend()
    return figure
