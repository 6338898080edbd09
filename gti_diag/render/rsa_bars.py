"""Agreement of the new rows with a reference: RSA overall and level by level (Fig. 7b), raw and with nuisances taken out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from .style import Look, canvas, colour, printable
from .view import Missing, View

NAME = "rsa"
TITLE = "Agreement with the reference (RSA)"
MEASURE = "rsa"  # what `gti-diag explain` calls it
CAPTION = (
    "Correlation between the pairwise cosines of the new rows and those of the reference, over all codes and within each level. "
    "Pearson and Spearman: rows as they are; centred: about the mean of each level, which takes out a direction that a level shares; "
    "counts held: also without what follows from how many items carry a token. Whiskers: bootstrap over tokens. Zero: no relation."
)
STATISTICS = {
    "pearson": "Pearson $r$",
    "spearman": r"Spearman $\rho$",
    "centred": "centred $r$",
    "counts_held": "counts held",
}


@dataclass(frozen=True)
class Bar:
    where: str  # "all codes" or "level 2"
    value: float
    low: float | None
    high: float | None
    p_value: float | None


@dataclass(frozen=True)
class Panel:
    name: str
    bars: dict[str, tuple[Bar, ...]]  # by statistic
    place: int = 0


VALUED = 3  # with more checkpoints, numbers over the bars would lie on each other


def points(view: View) -> Panel:
    """Overall and per-level correlations.

    Raises:
        Missing: no reference was given, or the correlation is undefined.
    """
    rsa = view.part("rsa")
    levels = rsa.get("levels") or {}
    parts = [("all codes", rsa), *((f"level {level}", levels[level]) for level in sorted(levels, key=int))]
    bars = {name: tuple(bar for where, part in parts if (bar := _bar(where, part.get(name)))) for name in STATISTICS}
    if not any(bars.values()):
        reasons = rsa.get("undefined") or {}
        raise Missing(next(iter(reasons.values()), "RSA is undefined"))
    return Panel(view.name, bars, view.place)


def _bar(where: str, entry: dict | None) -> Bar | None:
    if not entry or entry.get("value") is None:
        return None
    low, high = entry.get("interval") or (None, None)
    return Bar(where, entry["value"], low, high, entry.get("p_value"))


def draw(panels: Sequence[Panel], look: Look) -> Figure:
    """One axes a statistic, on one scale; bars grouped by codes, one colour per checkpoint."""
    shown = {name: title for name, title in STATISTICS.items() if any(panel.bars[name] for panel in panels)}
    wide = len(panels) > 1 or len(shown) > 2
    width = look["page"] if wide else look["column"]
    figure, grid = canvas(width, look["column"] * 0.66, ncols=len(shown), sharey=True, squeeze=False)
    places = list(dict.fromkeys(bar.where for panel in panels for bars in panel.bars.values() for bar in bars))
    thick, valued = 0.8 / len(panels), len(panels) <= VALUED
    for axes, (statistic, title) in zip(grid[0], shown.items(), strict=True):
        for i, panel in enumerate(panels):
            bars = panel.bars[statistic]
            x = np.array([places.index(bar.where) for bar in bars]) + (i - (len(panels) - 1) / 2) * thick
            axes.bar(
                x,
                [bar.value for bar in bars],
                thick * 0.92,
                color=colour(look, panel.place),
                label=printable(panel.name),
                zorder=2,
            )
            for at, bar in zip(x, bars, strict=True):
                if bar.low is not None:
                    axes.plot([at, at], [bar.low, bar.high], color=look["ink"], lw=0.8, zorder=3)
                if valued and bar.where == places[0]:
                    top = max(bar.value, bar.high or bar.value, 0)
                    axes.annotate(
                        f"{bar.value:.2f}",
                        (at, top),
                        (0, 2),
                        textcoords="offset points",
                        ha="center",
                        fontsize=look["rc"]["xtick.labelsize"] - 1,
                    )
        axes.axhline(0, color=look["ink"], lw=0.6, zorder=4)
        axes.set_xticks(range(len(places)), [place.replace(" ", "\n", 1) for place in places], linespacing=1.0)
        axes.tick_params(axis="x", length=0)
        axes.spines["bottom"].set_visible(False)
        axes.set_title(title)
        axes.margins(y=0.12)
    grid[0, 0].set_ylabel("correlation with the reference")
    if len(panels) > 1:
        figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=min(len(panels), 4))
    return figure
