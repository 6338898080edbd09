"""The scan as a page that needs no network, and as a section of report.html."""

import shlex
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from gti_diag.foreign import presentable
from gti_diag.render.view import number, token

from . import norms
from .words import STEPS, TITLES, examples, marks, outcome

MOST_ROWS = 3000  # of a matrix in the table; the document has all


def page(scan: Mapping[str, Any]) -> str:
    """One document: a section for each matrix, and how it was made."""
    scan, shared = presentable(scan), files("gti_diag.render.html")
    sections = [section(matrix, role=role) for role, matrix in scan["matrices"].items()]
    return _environment().from_string(_own("page.html.j2")).render(
        scan=scan,
        title=scan["checkpoint"]["name"],
        command=shlex.join(scan["command"]),
        links=[(f"rows-{role}", role.capitalize()) for role in scan["matrices"]],
        sections=sections,
        css=shared.joinpath("report.css").read_text(encoding="utf-8") + style(),
        theme=shared.joinpath("theme.js").read_text(encoding="utf-8"),
        script=script(),
    )  # fmt: skip


def section(matrix: Mapping[str, Any], *, role: str) -> str:
    """One matrix, as a `<section>`; its strings must be presentable."""
    listed = rows(matrix)
    short = any(finding["count"] > len(finding["ids"]) for finding in matrix["findings"])
    findings = [{**finding, "examples": examples(finding, 8)} for finding in matrix["findings"]]
    return _environment().from_string(_own("section.html.j2")).render(
        id=f"rows-{role}",
        title=f"Every row: {role}",
        outcome=outcome(matrix).capitalize(),
        matrix={**matrix, "findings": findings},
        drawing=norms.drawing(matrix["norms"]),
        rows=listed[:MOST_ROWS],
        short=short,
        left=len(listed) - MOST_ROWS if len(listed) > MOST_ROWS else 0,
        titles=TITLES,
        steps=STEPS,
    )  # fmt: skip


def rows(matrix: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of all findings, one line each, those first that are in the chat template, special or reached by text."""
    found: dict[int, dict[str, Any]] = {}
    for finding in matrix["findings"]:
        for place, id in enumerate(finding["ids"]):
            entry = found.setdefault(id, {"id": id, "token": token(finding["tokens"][place], 40), "kinds": []})
            entry["kinds"].append(finding["kind"])
            entry |= {"norm": finding["norms"][place], "marks": ", ".join(marks(finding, id))}
    for entry in found.values():
        entry["names"] = ", ".join(TITLES[kind] for kind in entry["kinds"])
    weight = lambda entry: tuple(mark not in entry["marks"] for mark in ("chat template", "special", "in text"))  # noqa: E731
    return sorted(found.values(), key=lambda entry: (weight(entry), entry["id"]))


def style() -> str:
    return _own("scan.css")


def script() -> str:
    return _own("scan.js")


def _own(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _environment() -> Any:
    import jinja2

    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["number"] = number
    return environment
