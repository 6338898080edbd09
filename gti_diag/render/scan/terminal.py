"""What `gti-diag scan` prints; plain when piped."""

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from gti_diag.foreign import presentable
from gti_diag.render.view import number

from .words import STEPS, TITLES, examples, outcome


def summary(scan: Mapping[str, Any], *, top: int = 8, steps: bool = True) -> RenderableType:
    """Each matrix with its findings: what, which tokens, the evidence, and (`steps`) cause, action and check."""
    scan = presentable(scan)
    return Group(*(one(matrix, role, top=top, steps=steps) for role, matrix in scan["matrices"].items()))


def one(matrix: Mapping[str, Any], role: str, *, top: int = 8, steps: bool = True) -> RenderableType:
    """The findings of one matrix, whose strings must be presentable."""
    parts: list[RenderableType] = [_head(role, matrix)]
    parts += [_finding(finding, top=top, steps=steps) for finding in matrix["findings"]]
    if steps:
        parts += [Text(f"  not judged: {kind} ({reason})", style="dim") for kind, reason in matrix["undefined"].items()]
    return Group(*parts)


def _head(role: str, matrix: Mapping[str, Any]) -> Text:
    sign, style = ("✗", "bold yellow") if matrix["findings"] else ("✓", "bold green")
    norms = matrix["norms"]
    text = Text.assemble((f"{sign} {role}: {outcome(matrix)}", style), f"  {matrix['tensor']}, {matrix['dtype']}")
    if norms["median"] is not None:
        text.append(f", norms {number(norms['min'])} to {number(norms['max'])}, median {number(norms['median'])}")
    return text


def _finding(finding: Mapping[str, Any], *, top: int, steps: bool) -> Text:
    text = Text.assemble("  • ", (f"{finding['count']:,} {TITLES[finding['kind']]}", "bold"), f" [{finding['kind']}]: ")
    text.append(finding["evidence"]).append(f"\n    {examples(finding, top)}")
    for key, title in STEPS if steps else ():
        text.append(f"\n    {title}: ", style="bold").append(finding[key])
    return text
