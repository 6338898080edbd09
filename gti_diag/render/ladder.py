"""A ladder of rankers: how much faster each rung is, beside the share of the teacher's NDCG that it keeps."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from .style import Look, canvas, colour, printable
from .tables import Table, github
from .view import NONE, Missing

NAME = "ladder"
Climbed = Mapping[str, Any]


@dataclass(frozen=True)
class Step:
    """One rung: times the speed of the first, and NDCG@k with its interval; None where it was not measured."""

    title: str
    times: float
    ndcg: float | None
    interval: tuple[float, float] | None
    k: int = 10


def points(climbed: Climbed) -> list[Step]:
    """The rungs whose speed is known.

    Raises:
        Missing: none is.
    """
    steps = []
    for rung in climbed["rungs"]:
        times, quality = rung["over"].get("one-by-one"), rung["quality"] or {}
        if times is not None:
            bounds = quality.get("interval")
            interval = tuple(bounds) if bounds else None
            steps.append(Step(rung["title"], times, quality.get("ndcg"), interval, quality.get("k", 10)))
    if not steps:
        raise Missing("no rung has a speed beside that of one pair at a time")
    return steps


def draw(steps: list[Step], look: Look) -> Figure:
    """Bars of speed on a logarithmic axis, and on the same lines NDCG with its interval."""
    figure, (left, right) = canvas(look["page"], 0.5 + 0.24 * len(steps), ncols=2, sharey=True, width_ratios=(3, 2))
    lines = range(len(steps))
    left.barh(lines, [step.times for step in steps], color=colour(look, 0), height=0.65)
    for line, step in zip(lines, steps, strict=True):
        left.annotate(f"{step.times:.3g} ×", (step.times, line), xytext=(3, 0), textcoords="offset points", va="center")
        if step.ndcg is not None:
            right.plot(step.ndcg, line, "o", ms=4, color=colour(look, 1))
            if step.interval is not None:
                right.plot(step.interval, (line, line), color=colour(look, 1))
    left.set_yticks(lines, [printable(step.title) for step in steps])
    left.invert_yaxis()
    left.set(xscale="log", xlabel="items a second, times the first rung", xlim=(0.8, 2.2 * max(s.times for s in steps)))
    left.xaxis.set_major_formatter("{x:g}")
    right.set(xlabel=f"NDCG@{min(step.k for step in steps)}, 95 % over queries")
    right.tick_params(left=False)
    return figure


def length(climbed: Climbed) -> int:
    """Of the lists that NDCG is taken of."""
    return min((rung["quality"].get("k", 10) for rung in climbed["rungs"] if rung["quality"]), default=10)


def table(climbed: Climbed) -> str:
    """Every number of every rung, in Markdown; – where it was not measured."""
    header = (
        "rung", "items/s", "processor", "tokens", "× one by one", "× batched", "× last position", "parameters, M",
        "peak, MB", "kept MB/item", "offline s/item", f"NDCG@{length(climbed)}", "of teacher", "RSA", "CKA",
    )  # fmt: skip
    rows = []
    for rung in climbed["rungs"]:
        speed, over, quality = rung["speed"] or {}, rung["over"], rung["quality"] or {}
        bounds = quality.get("interval")
        ndcg = NONE if bounds is None else f"{quality['ndcg']:.3f} ({bounds[0]:.3f} to {bounds[1]:.3f})"
        rows.append(
            (
                rung["title"],
                _cell(speed, "items_s", ".1f"),
                _cell(speed, "items_processor_s", ".1f"),
                _cell(speed, "tokens_mean", ".0f"),
                *(_cell(over, name, ".1f") for name in ("one-by-one", "batched", "last-position")),
                _cell(speed, "parameters", ".0f", 1e-6),
                _cell(speed, "peak_bytes", ".0f", 1e-6),
                _cell(speed, "kept_bytes", ".2f", 1e-6),
                _cell(rung, "offline_s", ".2f"),
                ndcg + (" (as above)" if rung["same_scores"] and bounds else ""),
                _cell(quality, "share", ".1%"),
                _cell(quality, "rsa", ".2f"),
                _cell(quality, "cka", ".2f"),
            )
        )
    return github(Table(header, ("",) * len(rows), tuple(rows)))


def _cell(values: Mapping[str, Any], name: str, form: str, scale: float = 1.0) -> str:
    value = values.get(name)
    return NONE if value is None else format(value * scale, form)
