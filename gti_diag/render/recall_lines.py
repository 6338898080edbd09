"""Recall against the length of the list for arms and baselines, and what fine-tuning did on the way, from plain numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from .style import MARKERS, Look, canvas, colour, printable
from .view import Missing

NAME = "outcome"
TITLE = "What the starts lead to"
CAPTION = (
    "Recall by length of the list, with 95 % intervals over users; baselines without a network are grey. Beside it the loss of "
    "fine-tuning by step, and the spread of the new rows as a share of the vocabulary's: a start that is one point stays near "
    "0. Lines of the same colour are seeds."
)
DASHES = ("-", "--", ":", "-.")


@dataclass(frozen=True)
class Line:
    """An arm or baseline: recall at each length, and the course of each seed of an arm."""

    name: str
    lengths: tuple[int, ...]
    recall: tuple[tuple[float, float, float], ...]  # mean, lower and upper edge
    losses: tuple[tuple[tuple[float, float], ...], ...]  # by seed: (step, loss)
    spreads: tuple[tuple[tuple[float, float], ...], ...]
    baseline: bool


def points(found: Mapping[str, Any]) -> list[Line]:
    """The lines of a summary: `{"k": […], "arms": {name: {"recall": [[mean, low, high]], "loss": […], "spread": […]}}, "baselines": …}`.

    Raises:
        Missing: no arm.
    """
    if not found["arms"]:
        raise Missing("no arm has been judged yet")
    return [
        Line(
            name, tuple(found["k"]), tuple(map(tuple, one["recall"])),
            tuple(tuple(map(tuple, seed)) for seed in one.get("loss", ())),
            tuple(tuple(map(tuple, seed)) for seed in one.get("spread", ())), kind == "baselines",
        )
        for kind in ("arms", "baselines")
        for name, one in found[kind].items()
    ]  # fmt: skip


def draw(lines: Sequence[Line], look: Look) -> Figure:
    """Recall on the left; loss and spread beside it where there are any."""
    course = [name for name in ("losses", "spreads") if any(any(getattr(line, name)) for line in lines)]
    figure, grid = canvas(look["page"], look["column"] * 0.8, ncols=1 + len(course), squeeze=False)
    for place, line in enumerate(lines):
        grey = [one for one in lines if one.baseline].index(line) if line.baseline else None
        hue = look["muted"] if grey is not None else colour(look, place)
        style = {"color": hue, "ls": DASHES[(grey or 0) % len(DASHES)]}
        mean, low, high = (tuple(entry[i] for entry in line.recall) for i in range(3))
        mark = None if line.baseline else MARKERS[place % len(MARKERS)]
        if not line.baseline:
            grid[0, 0].fill_between(line.lengths, low, high, color=hue, alpha=0.15, lw=0)
        grid[0, 0].plot(line.lengths, mean, marker=mark, ms=3, label=printable(line.name), **style)
        for axes, name in zip(grid[0, 1:], course, strict=True):
            for seed in getattr(line, name):
                axes.plot([step for step, _ in seed], [value for _, value in seed], color=hue, lw=0.9)
    lengths = lines[0].lengths
    grid[0, 0].set(title="Recall", xlabel="length of the list $K$", xscale="log", ylim=(0, None))
    grid[0, 0].set_xticks(lengths, [str(length) for length in lengths])
    grid[0, 0].minorticks_off()
    for axes, name in zip(grid[0, 1:], course, strict=True):
        axes.set(xlabel="step of fine-tuning")
        if name == "spreads":
            axes.set(title="Spread of new rows / vocabulary's", ylim=(0, None))
            continue
        axes.set(title="Loss", yscale="log")
        axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))  # all nine would lie on each other
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    rows = -(-len(labels) // 5)  # of at most five, as even as they can be
    figure.legend(handles, labels, loc="outside lower center", ncols=-(-len(labels) // rows))
    return figure
