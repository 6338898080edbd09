"""The scan as Markdown: fits a GitHub step summary."""

from collections.abc import Mapping
from typing import Any

from gti_diag.foreign import presentable
from gti_diag.render.tables import escape
from gti_diag.render.view import number

from .words import STEPS, TITLES, examples, outcome


def summary(scan: Mapping[str, Any], *, top: int = 8) -> str:
    """A table of findings for each matrix, and below it cause, action and check of each."""
    scan = presentable(scan)
    parts = [f"## Rows of {escape(scan['checkpoint']['name'])}"]
    for role, matrix in scan["matrices"].items():
        parts += [f"### {role.capitalize()}: {outcome(matrix)}", _norms(matrix)]
        parts += [section(matrix, top=top)]
    return "\n\n".join(part for part in parts if part) + "\n"


def section(matrix: Mapping[str, Any], *, top: int = 8) -> str:
    """The findings of one matrix, and what was not judged; nothing for a sound one."""
    findings = matrix["findings"]
    lines = ["| kind | rows | tokens | evidence |", "| --- | ---: | --- | --- |"] if findings else []
    lines += [
        f"| {TITLES[f['kind']]} | {f['count']:,} | {escape(examples(f, top))} | {escape(f['evidence'])} |"
        for f in findings
    ]
    if findings:
        lines += ["", "<details><summary>Causes, actions, checks</summary>", ""]
        for finding in findings:
            steps = " ".join(f"**{title.capitalize()}:** {escape(finding[key])}." for key, title in STEPS)
            lines.append(f"- `{finding['kind']}` {steps}")
        lines += ["", "</details>"]
    if matrix["undefined"]:
        lines += ["", *(f"- not judged: {kind} ({escape(reason)})" for kind, reason in matrix["undefined"].items())]
    return "\n".join(lines)


def _norms(matrix: Mapping[str, Any]) -> str:
    norms = matrix["norms"]
    if norms["median"] is None:
        return ""
    return f"`{matrix['tensor']}`, {matrix['dtype']}, norms {number(norms['min'])} to {number(norms['max'])}, median {number(norms['median'])}."
