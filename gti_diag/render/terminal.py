"""The compact summary on a terminal: verdict, table, a sparkline of the spectrum; plain when piped."""

import math
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from gti_diag.foreign import presentable

from . import tables
from .scan import terminal as scan
from .scan.words import STEPS
from .verdicts import VERDICTS
from .view import Analysis, View, alarms, matrices, views

BARS = "▁▂▃▄▅▆▇█"


def summary(analyses: Sequence[Analysis], *, explain: bool = False) -> RenderableType:
    """What `analyze` and `compare` print; with `explain` also cause, action and check of each reason and finding.

    Colours are styles, so rich drops them for pipes and NO_COLOR."""
    analyses = presentable(list(analyses))
    parts: list[RenderableType] = [_alarms(analyses)]
    for matrix in matrices(analyses):
        shown = views(analyses, matrix)
        if len(matrices(analyses)) > 1:
            parts.append(Text(f"{matrix} embeddings", style="bold underline"))
        if len(shown) == 1:
            parts += [_verdict(shown[0], full=True, explain=explain), _table(tables.single(shown[0]), shown)]
            if shown[0].body.get("scan"):
                parts.append(scan.one(shown[0].body["scan"], f"every row, {matrix}", top=4, steps=explain))
        else:
            parts += [_table(tables.comparison(analyses, matrix=matrix), shown)]
            parts += [_verdict(view, full=False) for view in shown if view.label]
    return Group(*(part for part in parts if part))


def _alarms(analyses: Sequence[Analysis]) -> Text:
    """What no measure of the rows shows: tokens without a row, lost rows. Empty if there is nothing."""
    lines = [f"! {name}: {text}" for name, texts in alarms(analyses).items() for text in texts]
    return Text("\n".join(lines), style="bold yellow")


def sparkline(values: Sequence[float], *, width: int = 20, decades: float = 3.0) -> str:
    """The spectrum's shape in one line: log₁₀(σᵢ/σ₁) from 0 down to −`decades`, at `width` even indices.

    Fewer values make a shorter line; values below the floor, zeros too, are the lowest bar.
    """
    if not len(values) or not values[0] > 0:
        return ""
    count = min(width, len(values))
    chosen = [values[round(i * (len(values) - 1) / max(1, count - 1))] for i in range(count)]
    heights = [1 + math.log10(v / values[0]) / decades if v > 0 else 0.0 for v in chosen]
    return "".join(BARS[max(0, min(len(BARS) - 1, round(h * (len(BARS) - 1))))] for h in heights)


def _verdict(view: View, *, full: bool, explain: bool = False) -> Text:
    look = VERDICTS.get(view.label, VERDICTS[None])
    line = Text.assemble((f"{look['sign']} {view.label or 'no verdict'}", look["rich"]), f"  {view.name}")
    reasons = [str(reason.get("text")) for reason in view.reasons]
    if full:
        for text, reason in zip(reasons, view.reasons, strict=True):
            line.append(f"\n  • {text}")
            for key, title in STEPS if explain and reason.get("action") else ():
                line.append(f"\n    {title}: ", style="bold").append(str(reason[key]))
        if view.verdict.get("advice"):
            line.append("\n  → ", style="bold").append(view.verdict["advice"])
    elif reasons:
        line.append(f": {reasons[0]}")
    return line


def _table(table: tables.Table, shown: Sequence[View]) -> RichTable:
    grid = RichTable(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for i, head in enumerate(table.header):
        grid.add_column(Text(head), justify="left" if i == 0 else "right", overflow="fold")
    for measure, row in zip(table.measures, table.rows, strict=True):
        cells = [Text(cell) for cell in row]
        if measure == "verdict":
            cells[1:] = [
                Text(
                    f"{_sign(view)} {view.label or '–'}",
                    style=VERDICTS.get(view.label, VERDICTS[None])["rich"],
                )
                for view in shown
            ]
        grid.add_row(*cells)
    if len(shown) == 1:
        groups = tables.groups(shown[0])
        lines = [sparkline(shown[0].group(group).get("singular_values") or []) for group in groups]
        lines += [""] * (len(table.header) - 1 - len(groups))
    else:
        lines = [sparkline(_spectrum(view)) for view in shown]
    if any(lines):
        grid.add_row("spectrum (log)", *(Text(line, no_wrap=True) for line in lines))
    return grid


def _sign(view: View) -> str:
    return VERDICTS.get(view.label, VERDICTS[None])["sign"]


def _spectrum(view: View) -> Sequence[float]:
    groups = view.body.get("groups") or {}
    return (groups.get("new") or groups.get("text") or {}).get("singular_values") or []
