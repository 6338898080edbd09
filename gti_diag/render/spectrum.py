"""Singular spectra of the new rows against text samples of the same size (Figs. 2b, 7a, 8)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from .style import Look, canvas, colour, printable
from .view import Missing, View, number

NAME = "spectrum"
TITLE = "Singular spectrum"
MEASURE = "singular_values"  # what `gti-diag explain` calls it
CAPTION = (
    "Singular values of a group's rows, divided by the largest. The band holds text samples of the new "
    "group's size: a curve far below it has lost directions."
)
FLOOR = 1e-5  # below this a curve has left the figure: storage rounding, not structure


@dataclass(frozen=True)
class Line:
    name: str
    values: np.ndarray  # σᵢ/σ₁
    effective_rank: float | None
    kind: str = "new"


@dataclass(frozen=True)
class Panel:
    name: str
    line: Line
    band: tuple[np.ndarray, np.ndarray] | None
    null_rank: tuple[float, float] | None
    place: int = 0
    null_size: int | None = None


INSIDE = 4  # checkpoints whose names have room below the lines


def points(view: View) -> Panel:
    """The new group's line (the text group's when there are no new tokens) and the text band.

    Raises:
        Missing: no singular values.
    """
    groups = view.body.get("groups") or {}
    kind = "new" if groups.get("new") else "text"
    group = view.group(kind)
    values = np.array(group.get("singular_values") or [], float)
    if not len(values) or not values[0] > 0:
        raise Missing((group.get("undefined") or {}).get("singular_values") or f"no singular values of {kind} tokens")
    line = Line(view.name, values / values[0], group.get("effective_rank"), kind)
    null = (view.body.get("null") or {}) if kind == "new" else {}
    band = null.get("singular_values") or {}
    low, high = np.array(band.get("low") or [], float), np.array(band.get("high") or [], float)
    ranks = (null.get("measures") or {}).get("effective_rank") or {}
    return Panel(
        view.name,
        line,
        band=(low / np.sqrt(low[0] * high[0]), high / np.sqrt(low[0] * high[0])) if len(low) and low[0] > 0 else None,
        null_rank=(ranks["low"], ranks["high"]) if ranks.get("low") is not None else None,
        place=view.place,
        null_size=null.get("size"),
    )


def draw(panels: Sequence[Panel], look: Look) -> Figure:
    """All checkpoints on one pair of logarithmic axes; exact zeros have no place on them and end a line."""
    inside = len(panels) <= INSIDE
    figure, axes = canvas(look["column"], look["column"] * (0.72 if inside else 1.0))
    banded = next((panel for panel in panels if panel.band), None)
    if banded and banded.band:
        low, high = banded.band
        ranks = banded.null_rank
        size = f" of {number(banded.null_size)}" if banded.null_size else ""
        label = f"text samples{size}" + (f": {number(ranks[0])} to {number(ranks[1])}" if ranks else "")
        index = np.arange(1, len(low) + 1)
        shown = low > 0
        axes.fill_between(index[shown], low[shown], high[shown], color=look["band"], lw=0, label=label, zorder=1)
    for panel in panels:
        values = panel.line.values
        shown = values > 0
        kind = "" if panel.line.kind == "new" else " (text)"
        label = f"{printable(panel.name)}{kind}: {number(panel.line.effective_rank)}"
        lone = shown.sum() == 1  # an exactly collapsed group has one point and no line
        axes.plot(
            np.arange(1, len(values) + 1)[shown],
            values[shown],
            color=colour(look, panel.place),
            ls=("-", "--", "-.", ":")[panel.place % 4],
            marker="o" if lone else None,
            ms=4,
            label=label,
            zorder=3 + panel.place,
        )
    axes.set(xscale="log", yscale="log", xlabel="component $i$", ylabel=r"singular value $\sigma_i / \sigma_1$")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
    lowest = min((panel.line.values[panel.line.values > FLOOR].min() for panel in panels), default=FLOOR)
    axes.set_ylim(max(FLOOR, min(lowest / 1.6, 0.05)), 1.4)
    where = {"loc": "lower left"} if inside else {"loc": "outside lower left", "ncols": 2}
    (axes if inside else figure).legend(
        *axes.get_legend_handles_labels(),
        title="effective rank",
        alignment="left",
        title_fontsize=look["rc"]["legend.fontsize"],
        **where,
    )
    return figure
