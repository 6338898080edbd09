"""Level by level: cosines among codes of one level against cosines with codes of other levels."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .style import Look, canvas, colour, printable
from .view import Missing, View

NAME = "levels"
COLUMNS = 3  # of the legend
TITLE = "Similarity level by level"
MEASURE = "hierarchy"  # what `gti-diag explain` calls it
CAPTION = (
    "Mean cosine, about the centroid of all codes, of a level's codes with each other (filled) and with codes of "
    "other levels (hollow). A gap between the two means that the rows know their level."
)


@dataclass(frozen=True)
class Panel:
    name: str
    levels: tuple[int, ...]
    within: tuple[float | None, ...]
    between: tuple[float | None, ...]
    place: int = 0


def points(view: View) -> Panel:
    """Mean cosines by level.

    Raises:
        Missing: the new tokens have no levels.
    """
    hierarchy = view.body.get("hierarchy") or {}
    levels = hierarchy.get("levels") or {}
    kept = {int(level): entry for level, entry in levels.items() if entry.get("within") is not None}
    if not kept:
        raise Missing((hierarchy.get("undefined") or {}).get("levels") or view.reason("hierarchy"))
    order = sorted(kept)
    within = tuple(kept[level]["within"] for level in order)
    return Panel(view.name, tuple(order), within, tuple(kept[level].get("between") for level in order), view.place)


def draw(panels: Sequence[Panel], look: Look) -> Figure:
    """A dumbbell per level and checkpoint."""
    places = sorted({level for panel in panels for level in panel.levels})
    below = -(-(len(panels) + 2) // COLUMNS)  # lines of the legend
    figure, axes = canvas(look["column"], look["column"] * 0.45 + 0.17 * below)
    step = 0.6 / len(panels)
    for i, panel in enumerate(panels):
        hue = colour(look, panel.place)
        x = [places.index(level) + (i - (len(panels) - 1) / 2) * step for level in panel.levels]
        for at, within, between in zip(x, panel.within, panel.between, strict=True):
            if between is not None:
                axes.plot([at, at], [within, between], color=hue, lw=0.8, zorder=2)
                axes.plot([at], [between], "o", mfc=look["rc"]["axes.facecolor"], mec=hue, ms=4.5, zorder=3)
        axes.plot(x, panel.within, "o", color=hue, ms=4.5, label=printable(panel.name), zorder=3)
    axes.axhline(0, color=look["muted"], lw=0.6, zorder=1)
    axes.set_xticks(range(len(places)), [f"level {level}" for level in places])
    axes.set_xlim(-0.5, len(places) - 0.5)
    axes.set_ylabel("mean cosine\nabout the centroid")
    handles, labels = axes.get_legend_handles_labels()
    for label, face in (("same level", look["muted"]), ("other levels", look["rc"]["axes.facecolor"])):
        handles.append(Line2D([], [], ls="", marker="o", ms=4.5, mec=look["muted"], mfc=face))
        labels.append(label)
    figure.legend(handles, labels, loc="outside lower center", ncols=COLUMNS)
    return figure
