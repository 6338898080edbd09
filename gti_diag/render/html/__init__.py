"""report.html: one file that needs no network, with the verdict first and the interactive figures after it."""

import base64
import gzip
import json
import shlex
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from typing import Any

from gti_diag.errors import InputError
from gti_diag.foreign import presentable
from gti_diag.render import drawable, left_out, rsa_bars, tables, token_map, trajectory
from gti_diag.render.explain import lookup
from gti_diag.render.scan import html as scan
from gti_diag.render.style import OKABE_ITO, ON_DARK, STYLES, colour_map
from gti_diag.render.verdicts import VERDICTS
from gti_diag.render.view import Analysis, View, alarms, matrices, names, number, views

from .charts import interactive
from .tokens import Lists, neighbours
from .tokens import token_map as packed_map

KEY_NUMBERS = ("unique_rows", "effective_rank", "dispersion_ratio")  # and the agreement that the verdict reads


def report(analyses: Sequence[Analysis]) -> str:
    """The report of one or several analyses as an HTML document.

    Raises:
        InputError: the plotting library is not installed.
        ValueError: no analyses.
    """
    import jinja2

    if not analyses:
        raise ValueError("a report needs at least one analysis")
    analyses, here = presentable(list(analyses)), files(__name__)
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["number"] = number
    lists = Lists()
    parts = [_part(analyses, matrix, lists) for matrix in matrices(analyses)]
    data = {
        "charts": {chart["id"]: chart for part in parts for figure in part["figures"] for chart in figure["charts"]},
        "maps": {plan["id"]: plan for part in parts for plan in part["maps"]},
        "neighbours": {part["matrix"]: part["neighbours"] for part in parts},
        "lists": lists.lists,
        "scales": {"light": _scale("RdBu_r"), "dark": _scale(STYLES["dark"]["diverging"])},
    }
    template = environment.from_string((here / "report.html.j2").read_text(encoding="utf-8"))
    return template.render(
        title=_title(analyses),
        analyses=list(zip(names(analyses), analyses, strict=True)),
        parts=parts,
        alarms=alarms(analyses),
        several=len(analyses) > 1,
        glossary=glossary(parts),
        left_out=left_out(analyses),
        commands=list(dict.fromkeys(shlex.join(a["command"]) for a in analyses if a.get("command"))),
        palettes=(OKABE_ITO, ON_DARK),
        css=(here / "report.css").read_text(encoding="utf-8") + scan.style(),
        theme=(here / "theme.js").read_text(encoding="utf-8"),
        script=(here / "report.js").read_text(encoding="utf-8"),
        scan_script=scan.script() if any(part["scan"] for part in parts) else "",
        plotly=_compressed(_plotly()),
        data=_compressed(json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))),
    )


def _title(analyses: Sequence[Analysis]) -> str:
    named = names(analyses)
    return named[0] if len(named) == 1 else f"{len(named)} checkpoints compared"


def _part(analyses: Sequence[Analysis], matrix: str, lists: Lists) -> dict[str, Any]:
    """Everything the page shows of one matrix."""
    shown = views(analyses, matrix)
    suffix = "" if matrix == "input" else f"-{matrix}"
    maps = [
        {**plan, "id": f"{token_map.NAME}{suffix}-{view.place}", **_annotated(token_map.points(view))}
        for view in shown
        if (plan := packed_map(view, lists))
    ]
    return {
        "matrix": matrix,
        "views": shown,
        "cards": [_card(view) for view in shown],
        "table": _transposed(tables.comparison(analyses, matrix=matrix)) if len(shown) > 1 else tables.single(shown[0]),
        "more": tables.more(shown),
        "maps": maps,
        "map_caption": token_map.CAPTION,
        "figures": _figures(analyses, suffix),
        "scan": scan.section(shown[0].body["scan"], role=matrix)
        if len(shown) == 1 and shown[0].body.get("scan")
        else "",
        "hubs": [(view.name, text) for view in shown if (text := tables.hubs(view))],
        "neighbours": [table for view in shown if (table := neighbours(view))],
        "size": _size(shown[0]) if len({tuple(_size(view)) for view in shown}) == 1 else [],
    }


def _annotated(panel: token_map.Panel) -> dict[str, Any]:
    found = token_map.one_point(panel)
    note = None if found is None else {"text": f"all {number(found[0])} new tokens", "at": found[1].tolist()}
    return {"axes": panel.axes, "note": note}


def _figures(analyses: Sequence[Analysis], suffix: str) -> list[dict[str, Any]]:
    """All but the map, the matrices first so that figures of one shape stand side by side."""
    found = [
        _figure(name, module, panels)
        for name, module, panels in drawable(analyses)
        if module is not token_map and name == module.NAME + suffix
    ]
    return sorted(found, key=lambda figure: not any(chart.get("square") for chart in figure["charts"]))


def _figure(name: str, module: Any, panels: list[Any]) -> dict[str, Any]:
    made = interactive(module, panels)
    for i, chart in enumerate(made):
        chart["id"] = f"{name}-{i}"
        chart["label"] = f"{module.TITLE}{': ' + chart['name'] if chart.get('name') else ''}"
    wide = len(made) > 1 or module is trajectory or module is rsa_bars
    return {
        "name": name,
        "title": module.TITLE,
        "caption": module.CAPTION,
        "charts": made,
        "wide": wide,
        "measure": module.MEASURE,
    }


def _card(view: View) -> dict[str, Any]:
    """A checkpoint's verdict, reasons and key numbers."""
    rows = {row.measure: row for row in tables.ROWS}
    group = "new" if (view.body.get("groups") or {}).get("new") else "text"
    numbers = [
        {"measure": name, "title": rows[name].title, "value": rows[name].cell(view, group), "band": tables.band(view, name)}
        for name in (*KEY_NUMBERS, f"rsa_{(view.body.get('rsa') or {}).get('read', 'pearson')}")
    ]  # fmt: skip
    return {
        "name": view.name,
        "label": view.label,
        "sign": VERDICTS.get(view.label, VERDICTS[None])["sign"],
        "reasons": view.reasons,
        "advice": view.verdict.get("advice"),
        "numbers": [entry for entry in numbers if entry["value"] not in ("", "–")],
    }


def _transposed(table: tables.Table) -> dict[str, Any]:
    """A row per checkpoint, so that every measure can be sorted by."""
    heads = [(measure, row[0].strip()) for measure, row in zip(table.measures, table.rows, strict=True)]
    rows = [[name, *(row[1 + i] for row in table.rows)] for i, name in enumerate(table.header[1:])]
    return {"group": table.header[0], "heads": heads, "rows": rows}


def _size(view: View) -> list[str]:
    groups = view.body.get("groups") or {}
    facts = [f"{number(groups[name].get('count'))} {name} tokens" for name in tables.groups(view)]
    shape = view.body.get("shape") or []
    tied = (view.analysis.get("checkpoint") or {}).get("tied")
    return [
        *facts,
        *([f"{number(shape[1])} dimensions"] if len(shape) == 2 else []),
        *([str(view.body["dtype"])] if view.body.get("dtype") else []),
        *(["tied head" if tied else "separate head"] if tied is not None else []),
    ]


def glossary(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Name → explanation of every measure and verdict the page shows, where one exists."""
    shown = [*(row.measure for row in tables.ROWS), *(name for part in parts for name in part["more"].measures)]
    shown += [*(figure["measure"] for part in parts for figure in part["figures"]), "neighbours"]
    shown += [*(card["label"] for part in parts for card in part["cards"])]
    shown += [reason.get("measure") for part in parts for card in part["cards"] for reason in card["reasons"]]
    found = {name: explanation(name) for name in dict.fromkeys(shown) if name}
    return {name: entry for name, entry in found.items() if entry is not None}


def explanation(name: str) -> Any | None:
    """What `gti-diag explain NAME` says, or None for a name it does not know.

    A measure of centred rows that shares the page of the measure itself is titled so: both stand in one table.
    """
    try:
        page = lookup(name)
    except ValueError:
        return None
    return replace(page, title=f"{page.title}, centred") if name == f"{page.name}_centred" else page


def _scale(name: str) -> list[list]:
    """A colour map as plotly takes it."""
    import matplotlib as mpl

    shades = colour_map(name).resampled(21)
    return [[i / 20, mpl.colors.to_hex(shades(i))] for i in range(21)]


def _plotly() -> str:
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise InputError("report.html needs the plotting library plotly: pip install 'gti-diag[report]'") from error
    return get_plotlyjs()


def _compressed(text: str) -> str:
    """`text` as base64 of its gzip, which browsers unpack themselves: a third of the size, and no `<` in it."""
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()


__all__ = ["explanation", "glossary", "report"]
