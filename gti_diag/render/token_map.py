"""A 2-D map of pretrained and new tokens, coloured by code level (Fig. 2a)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from .style import MARKERS, Look, canvas, colour, printable
from .view import Missing, View, level_name, number

NAME = "token-map"
TITLE = "Map of pretrained and new tokens"
CAPTION = (
    "Each point is a token, placed by its embedding row. New tokens that lie on one point have not been "
    "told apart; those far outside the cloud are foreign to the pretrained space."
)


@dataclass(frozen=True)
class Panel:
    name: str
    axes: tuple[str, str]
    text: np.ndarray  # points × 2
    new: dict[int | None, np.ndarray]  # by level; None when tokens have no level


def points(view: View) -> Panel:
    """Coordinates by group and level.

    Raises:
        Missing: no map, or no tokens on it.
    """
    plan = view.part("map")
    text, new = plan.get("text") or {}, plan.get("new") or {}
    cloud = np.column_stack([text.get("x") or [], text.get("y") or []])
    fresh = np.column_stack([new.get("x") or [], new.get("y") or []])
    if not len(cloud) and not len(fresh):
        raise Missing("the map is empty")
    levels = new.get("levels") or [None] * len(fresh)
    by_level = {level: fresh[[at == level for at in levels]] for level in sorted(set(levels), key=lambda at: at or 0)}
    method, share = plan.get("method") or "PCA", plan.get("explained")
    if method.lower() == "pca":
        first, second = (f"PC {i + 1}" + (f" ({share[i]:.0%} of variance)" if share else "") for i in range(2))
    else:
        first, second = f"{method} 1", f"{method} 2"
    return Panel(view.name, (first, second), cloud, by_level)


def draw(panels: Sequence[Panel], look: Look) -> Figure:
    """One map per checkpoint, each with its own axes; text in grey, levels in colour and shape above."""
    single = len(panels) == 1
    columns = min(len(panels), 3)
    rows = math.ceil(len(panels) / columns)
    width = look["column"] if single else look["page"]
    height = width / columns * (0.85 if single else 0.95) * rows + 0.3
    figure, grid = canvas(width, height, nrows=rows, ncols=columns, squeeze=False)
    size = 3.0 * (look["column"] / 3.35) * (1.3 if single else 1)
    for axes, panel in zip(grid.flat, panels, strict=False):
        axes.scatter(*panel.text.T, s=size * 0.6, color=look["muted"], alpha=0.45, lw=0, label="text", rasterized=True)
        for i, (level, xy) in enumerate(panel.new.items()):
            label = "new" if level is None else level_name(level)
            axes.scatter(
                *xy.T,
                s=size * 1.4,
                color=colour(look, i),
                marker=MARKERS[i % len(MARKERS)],
                alpha=0.8,
                lw=0,
                label=label,
                rasterized=True,
            )
        _ring(axes, panel, look)
        axes.set(title=printable(panel.name), xlabel=panel.axes[0], ylabel=panel.axes[1], xticks=[], yticks=[])
    for axes in list(grid.flat)[len(panels) :]:
        axes.set_visible(False)
    fullest = max(grid.flat, key=lambda axes: len(axes.get_legend_handles_labels()[1]))
    legend = figure.legend(
        *fullest.get_legend_handles_labels(),
        loc="outside lower center",
        ncols=6,
        markerscale=2.2,
        handletextpad=0.1,
        columnspacing=1.0,
    )
    for handle in filter(None, legend.legend_handles):
        handle.set_alpha(1)
    return figure


def one_point(panel: Panel) -> tuple[int, np.ndarray] | None:
    """How many new tokens lie where, when all are within 1 % of the map's width: the eye takes them for one."""
    fresh = np.concatenate(list(panel.new.values())) if panel.new else np.empty((0, 2))
    everything = np.concatenate([panel.text, fresh])
    if len(fresh) < 2 or not np.all(np.ptp(fresh, axis=0) <= 0.01 * np.ptp(everything, axis=0)):
        return None
    return len(fresh), fresh.mean(axis=0)


def _ring(axes, panel: Panel, look: Look) -> None:
    found = one_point(panel)
    if found is None:
        return
    count, centre = found
    right = len(panel.text) > 0 and centre[0] > panel.text[:, 0].mean()
    axes.annotate(
        f"all {number(count)} new\ntokens here",
        centre,
        xytext=(-26 if right else 26, 26),
        textcoords="offset points",
        ha="right" if right else "left",
        va="bottom",
        fontsize=look["rc"]["xtick.labelsize"],
        arrowprops={"arrowstyle": "-", "color": look["ink"], "lw": 0.6, "shrinkB": 2},
        bbox={"facecolor": look["rc"]["axes.facecolor"], "alpha": 0.8, "lw": 0, "pad": 1},
        linespacing=1.0,
    )
