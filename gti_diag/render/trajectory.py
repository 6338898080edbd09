"""Effective rank, dispersion and RSA of the new tokens over training steps."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from .style import Look, canvas, colour
from .view import Missing, View

NAME = "trajectory"
TITLE = "Over training steps"
MEASURE = "effective_rank"  # what `gti-diag explain` calls it
CAPTION = (
    "The same tokens at successive checkpoints. The band is what text samples of the same size have; whiskers are "
    "bootstrap intervals."
)
CURVES = {
    "effective_rank": "effective rank",
    "dispersion_ratio": "dispersion / text",
    "pearson": "RSA, Pearson $r$",
}


@dataclass(frozen=True)
class Panel:
    """One step: values, intervals and text bands by curve; a curve without a number is absent."""

    name: str
    step: int
    count: int | None
    values: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    bands: dict[str, tuple[float, float]]


def points(view: View) -> Panel:
    """The numbers of one step.

    Raises:
        Missing: no step is recorded, or there are no new tokens.
    """
    if view.step is None:
        raise Missing("no training step is recorded")
    group = view.group("new")
    rsa = (view.body.get("rsa") or {}).get("pearson") or {}
    found = {name: group.get(name) for name in CURVES} | {"pearson": rsa.get("value")}
    intervals = {"pearson": tuple(rsa["interval"])} if rsa.get("interval") else {}
    null = (view.body.get("null") or {}).get("measures") or {}
    bands = {name: (null[name]["low"], null[name]["high"]) for name in CURVES if (null.get(name) or {}).get("low")}
    values = {name: value for name, value in found.items() if value is not None}
    return Panel(view.name, view.step, group.get("count"), values, intervals, bands)


def together(panels: Sequence[Panel]) -> bool:
    """Whether these can be one run: at least two checkpoints, as many new tokens in each, no two at one step."""
    steps, counts = {panel.step for panel in panels}, {panel.count for panel in panels}
    return len(panels) > 1 and len(steps) == len(panels) and len(counts) == 1


def curves(panels: Sequence[Panel]) -> dict[str, str]:
    """Name and title of the curves that have a point at all."""
    return {curve: title for curve, title in CURVES.items() if series(panels, curve)}


def series(panels: Sequence[Panel], curve: str) -> list[Panel]:
    """The panels that have this curve, by step."""
    return sorted((panel for panel in panels if curve in panel.values), key=lambda panel: panel.step)


def draw(panels: Sequence[Panel], look: Look) -> Figure:
    """One small axes per curve over the same steps."""
    figure, grid = canvas(look["page"], look["column"] * 0.6, ncols=len(curves(panels)), sharex=True, squeeze=False)
    for axes, (curve, title) in zip(grid[0], curves(panels).items(), strict=True):
        found = series(panels, curve)
        steps = [panel.step for panel in found]
        banded = [panel for panel in found if curve in panel.bands]
        if banded:
            low, high = zip(*(panel.bands[curve] for panel in banded), strict=True)
            axes.fill_between(
                [panel.step for panel in banded], low, high, color=look["band"], lw=0, label="text samples"
            )
        axes.plot(
            steps, [panel.values[curve] for panel in found], "o-", ms=3, color=colour(look, 0), label="new tokens"
        )
        for panel in found:
            if curve in panel.intervals:
                axes.plot([panel.step] * 2, panel.intervals[curve], color=colour(look, 0), lw=0.8)
        axes.set(title=title, xlabel="training step")
        if curve == "pearson":
            axes.axhline(0, color=look["muted"], lw=0.6, zorder=0)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure
