"""How alike items of one prefix are, by the length of the prefix, against chance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from gti_diag.render.style import Look, canvas, colour, printable

from .words import title

NAME = "sids-depth"
CAPTION = (
    "Left: mean cosine to the other items with the same first codes. Right: how often the next item that a user chose "
    "has the same first codes (training events). Bands: 95 % of what a level gives when its own codes are shuffled "
    "inside the prefixes before it; a level says something only above its band."
)
MEASURES = (("coherence", "cosine within a prefix"), ("co_occurrence", "next choice in the prefix"))


@dataclass(frozen=True)
class Curve:
    depths: tuple[int, ...]
    values: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True)
class Panel:
    name: str
    curves: tuple[Curve, Curve]


def points(document: Mapping[str, Any]) -> Panel:
    """Both curves; depths at which a measure does not exist are left out."""
    coherence, choices = (_curve(document["prefixes"], name) for name, _ in MEASURES)
    return Panel(title(document), (coherence, choices))


def _curve(prefixes: Sequence[Mapping[str, Any]], name: str) -> Curve:
    kept = [prefix for prefix in prefixes if prefix[name] is not None]
    return Curve(
        tuple(prefix["depth"] for prefix in kept),
        tuple(prefix[name]["value"] for prefix in kept),
        tuple(prefix[name]["interval"][0] for prefix in kept),
        tuple(prefix[name]["interval"][1] for prefix in kept),
    )


def draw(panels: Sequence[Panel], look: Look) -> Figure:
    """A line per mapping with its bands of chance, coherence on the left and choices on the right."""
    figure, pair = canvas(look["page"], look["page"] * 0.36, ncols=2)
    for side, (axes, (_, label)) in enumerate(zip(pair, MEASURES, strict=True)):
        for place, panel in enumerate(panels):
            curve, hue = panel.curves[side], colour(look, place)
            axes.plot(curve.depths, curve.values, "o-", ms=4, color=hue, label=printable(panel.name))
            axes.vlines(curve.depths, curve.low, curve.high, color=hue, lw=5, alpha=0.3)
        most = max((max(panel.curves[side].depths, default=1) for panel in panels), default=1)
        axes.set_xticks(range(1, most + 1))
        axes.set(xlabel="codes in the prefix", ylabel=label)
        axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
    figure.legend(*pair[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure
