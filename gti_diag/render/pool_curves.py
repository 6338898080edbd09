"""Relative gain over a baseline against the length of the list (Figs. 3 and 4), from evaluation documents alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from .style import MARKERS, Look, canvas, colour, printable
from .view import Missing

NAME = "pool_curves"
TITLE = "Gain over the baseline, by length of the list"
CAPTION = (
    "(M − M₀) / M₀ of each arm over the baseline's mean M₀ at the same length. Lines are means over seeds, bands reach "
    "from the least to the greatest seed; the band about zero is the baseline's own."
)
METRICS = {"recall": "Recall", "ndcg": "NDCG", "precision": "Precision"}
Evaluation = Mapping[str, Any]


@dataclass(frozen=True)
class Curve:
    """One arm under one metric: its gain at each length, seed by seed."""

    arm: str
    lengths: tuple[int, ...]
    gains: np.ndarray  # seeds × lengths, 0.1 is ten per cent
    place: int


@dataclass(frozen=True)
class Panel:
    metric: str
    curves: tuple[Curve, ...]


def points(arms: Mapping[str, Sequence[Evaluation]], baseline: str) -> list[Panel]:
    """The gains of every arm, the baseline's own first; an arm's evaluations are its seeds.

    Lengths that an evaluation lacks, or at which the baseline finds nothing, are left out.

    Raises:
        Missing: no such baseline, or no metric at any length that all share.
    """
    if baseline not in arms:
        raise Missing(f"no arm is called {baseline!r}: name one of {', '.join(arms)}")
    shared = set.intersection(*(set(one["k"]) for seeds in arms.values() for one in seeds))
    panels = []
    for metric in METRICS:
        tables = {arm: _values(seeds, metric, sorted(shared)) for arm, seeds in arms.items()}
        known = [i for i, mean in enumerate(tables[baseline].mean(0)) if mean > 0]
        lengths, base = tuple(sorted(shared)[i] for i in known), tables[baseline].mean(0)[known]
        order = [baseline, *(arm for arm in arms if arm != baseline)]
        curves = tuple(
            Curve(arm, lengths, tables[arm][:, known] / base - 1, place) for place, arm in enumerate(order) if known
        )
        panels.append(Panel(metric, curves))
    if not any(panel.curves for panel in panels):
        raise Missing("the evaluations share no length of the list at which the baseline finds anything")
    return [panel for panel in panels if panel.curves]


def draw(panels: Sequence[Panel], look: Look) -> Figure:
    """One axes per metric over the same lengths; the baseline is the line at zero."""
    figure, grid = canvas(look["page"], look["column"] * 0.7, ncols=len(panels), sharex=True, squeeze=False)
    for axes, panel in zip(grid[0], panels, strict=True):
        for curve in panel.curves:
            hue = look["muted"] if curve.place == 0 else colour(look, curve.place)
            low, mean, high = (100 * take(curve.gains, 0) for take in (np.min, np.mean, np.max))
            if len(curve.gains) > 1:
                axes.fill_between(curve.lengths, low, high, color=hue, alpha=0.2, lw=0)
            mark = None if curve.place == 0 else MARKERS[(curve.place - 1) % len(MARKERS)]
            axes.plot(curve.lengths, mean, marker=mark, ms=3, color=hue, label=printable(curve.arm))
        axes.set(title=METRICS[panel.metric], xlabel="length of the list $K$", xscale="log")
        axes.set_xticks(panel.curves[0].lengths, [str(length) for length in panel.curves[0].lengths])
        axes.minorticks_off()
        axes.yaxis.set_major_formatter(_per_cent)
    grid[0, 0].set_ylabel("relative gain")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)))
    return figure


def _per_cent(value: float, _place: int) -> str:
    return f"{value:+g} %".replace("-", "−") if value else "0 %"


def _values(seeds: Sequence[Evaluation], metric: str, lengths: Sequence[int]) -> np.ndarray:
    return np.array([[one["metrics"][f"{metric}@{k}"]["value"] for k in lengths] for one in seeds], float).reshape(
        len(seeds), len(lengths)
    )
