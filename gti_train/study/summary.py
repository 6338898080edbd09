"""From a folder of results to tables and figures; no model is opened."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gti_diag.errors import InputError
from gti_diag.files import write_text

from . import tables
from .relation import relations
from .results import Results, Row, read_results, table

TABLES = "tables.md"


def summarise(
    results: Path, out: Path, *, baseline: str | None = None, formats: Sequence[str] = ("png", "svg")
) -> list[Path]:
    """Write the tables and figures that the results in `results` allow into `out`; returns what was written.

    baseline: the arm that the others are compared with [default: the study's].

    Raises:
        InputError: as `read_results`; no such arm was judged; `out` cannot be written.
    """
    found = read_results(results)
    if baseline is not None:
        if baseline not in found.judged:
            raise InputError(f"no arm {baseline!r} was judged: compare with one of {', '.join(found.judged)}")
        found = replace(found, study={**found.study, "baseline": baseline})
    rows = table(found)
    read = tables.compared_by(found)
    related = relations(found, read)
    parts = [
        ("Recommending", tables.outcome(found, rows)),
        ("Geometry, before fine-tuning → after it", tables.geometry(found)),
        *([("Does the geometry say how well a run recommends?", tables.relation(related, read))] if related else []),
    ]
    text = "\n".join(f"### {head}\n\n{body}" for head, body in parts)
    written = [write_text(out / TABLES, text), write_text(out / "outcome.tex", tables.outcome_latex(found, rows))]
    return [*written, *figures(found, rows, out / "figures", formats=formats)]


def figures(results: Results, rows: Sequence[Row], out: Path, *, formats: Sequence[str]) -> list[Path]:
    """The paper's figures: starts (2, 5), fine-tuned rows (6 to 8), gains over the baseline arm (3, 4); and the outcome."""
    from gti_diag import render
    from gti_diag.render.view import Missing

    written = []
    if results.judged:
        written += render.outcome(plain(results, rows), out, formats=formats)
        arms = {arm: list(seeds.values()) for arm, seeds in results.judged.items()}
        with contextlib.suppress(Missing):  # a baseline that found nothing at any length has no gain over it
            written += render.gain_curves(arms, out, baseline=results.study["baseline"], formats=formats)
    first = results.study["seeds"][0]
    named = [judged["start"] for seeds in results.judged.values() for judged in seeds.values()]
    starts = {name: results.starts[name] for name in dict.fromkeys(named) if name in results.starts}
    shown = {"starts": starts, "tuned": {arm: results.tuned.get(arm, {}) for arm in results.judged}}
    for folder, place in shown.items():
        analyses = [seeds[first] for seeds in place.values() if first in seeds]
        written += render.figures(analyses, out / folder, formats=formats) if analyses else []
    return written


def plain(results: Results, rows: Sequence[Row]) -> Mapping[str, Any]:
    """The numbers of the outcome's figure."""
    ks = results.study["evaluation"]["ks"]
    shown = {
        row.name: {"recall": [[row.values[f"recall@{k}"], *row.intervals[f"recall@{k}"]] for k in ks]} for row in rows
    }
    arms = {name: {**shown[name], **_course(results.curves.get(name, {}))} for name in results.judged}
    return {"k": ks, "arms": arms, "baselines": {name: shown[name] for name in results.simple if name != "repeat"}}


def _course(seeds: Mapping[int, Mapping[str, Any]]) -> dict[str, list]:
    """Loss by step (means of five steps: single ones are noise), and the spread of the rows where it was measured."""
    losses = [
        [[of["step"][min(i + 2, len(of["step"]) - 1)], sum(of["loss"][i : i + 5]) / len(of["loss"][i : i + 5])]
         for i in range(0, len(of["step"]), 5)]
        for of in seeds.values()
    ]  # fmt: skip
    spreads = [
        [[one["step"], one["dispersion_ratio"]] for one in of["measured"] if "dispersion_ratio" in one]
        for of in seeds.values()
    ]
    return {"loss": losses, "spread": [seed for seed in spreads if seed]}
