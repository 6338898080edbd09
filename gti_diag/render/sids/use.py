"""How many of its codes each level uses, and how many it would use if all were used alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from gti_diag.render.style import Look, canvas, colour, printable

from .words import title

NAME = "sids-use"
CAPTION = (
    "Bars: the share of a level's codes that at least one item carries. Marks: its perplexity as a share of its codes, "
    "lower the more unevenly they are used."
)


@dataclass(frozen=True)
class Panel:
    name: str
    used: tuple[float, ...]
    even: tuple[float, ...]


def points(document: Mapping[str, Any]) -> Panel:
    levels = document["levels"]
    return Panel(
        title(document),
        tuple(level["used"] / level["size"] for level in levels),
        tuple(level["perplexity"] / level["size"] for level in levels),
    )


def draw(panels: Sequence[Panel], look: Look) -> Figure:
    """A bar and a mark per level and mapping."""
    figure, axes = canvas(look["column"], look["column"] * 0.6)
    width = 0.8 / len(panels)
    for place, panel in enumerate(panels):
        x = [level + (place - (len(panels) - 1) / 2) * width for level in range(len(panel.used))]
        axes.bar(x, panel.used, width * 0.92, color=colour(look, place), alpha=0.35, label=printable(panel.name))
        axes.plot(x, panel.even, "D", ms=4.5, color=colour(look, place), mec=look["rc"]["axes.facecolor"], mew=0.5)
    most = max(len(panel.used) for panel in panels)
    axes.set_xticks(range(most), [f"level {level + 1}" for level in range(most)])
    axes.set(ylim=(0, 1.04), ylabel="share of the level's codes")
    axes.plot([], [], "D", ms=4.5, color=look["muted"], label="perplexity")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure
