"""The report's interactive charts as data: plotly traces and layouts made from the same points as the figures.

Colours are names of CSS variables (`var(--s0)`), which the page resolves for its theme; `colorscale: "diverging"`
stands for the theme's own map.
"""

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from gti_diag.render import cosine_blocks, cosine_panels, levels, norms, rsa_bars, spectrum, trajectory
from gti_diag.render.view import token

Chart = dict[str, Any]
DASHES = ("solid", "dash", "dashdot", "dot")
SERIES = 8  # colours in a palette


def interactive(module: ModuleType, panels: Sequence[Any]) -> list[Chart]:
    """The charts that stand for one figure: one for lines and bars, one per checkpoint for matrices."""
    one_for_all = ONE_FOR_ALL.get(module)
    if one_for_all:
        return [one_for_all(panels)]
    each = ONE_EACH[module]
    return [each(panel, panels) for panel in panels]


def _colour(place: int) -> str:
    return f"var(--s{place % SERIES})"


def _rounded(values: Any, digits: int = 4) -> list:
    """Numbers short enough for a page: `digits` significant ones, null for NaN."""
    return [None if value != value else float(f"{value:.{digits}g}") for value in np.asarray(values, float).tolist()]


def _spectra(panels: Sequence[spectrum.Panel]) -> Chart:
    traces = []
    band = next((panel.band for panel in panels if panel.band), None)
    if band is not None:
        low, high = band
        keep = low > 0
        index = (np.arange(len(low))[keep] + 1).tolist()
        for values, fill in ((low, None), (high, "tonexty")):
            traces.append({
                "type": "scatter", "mode": "lines", "x": index, "y": _rounded(values[keep]), "line": {"width": 0},
                "fill": fill, "fillcolor": "var(--band)", "hoverinfo": "skip", "name": "text samples", "showlegend": bool(fill),
            })  # fmt: skip
    for panel in panels:
        values = panel.line.values
        keep = values > 0
        lone = int(keep.sum()) == 1
        traces.append({
            "type": "scatter", "mode": "markers" if lone else "lines", "name": panel.name,
            "x": (np.flatnonzero(keep) + 1).tolist(), "y": _rounded(values[keep]),
            "line": {"color": _colour(panel.place), "width": 2, "dash": DASHES[panel.place % 4]},
            "marker": {"color": _colour(panel.place), "size": 8},
            "hovertemplate": "%{fullData.name}<br>component %{x}: %{y:.3g}<extra></extra>",
        })  # fmt: skip
    floor = np.log10(spectrum.FLOOR)
    lowest = min(float(np.log10(panel.line.values[panel.line.values > spectrum.FLOOR].min())) for panel in panels)
    layout = {
        "xaxis": {"type": "log", "title": {"text": "component"}, "dtick": 1, "tickformat": "~r"},
        "yaxis": {"type": "log", "title": {"text": "singular value / largest"}, "dtick": 1, "tickformat": "~r",
                  "range": [max(floor, min(lowest - 0.2, -1.3)), 0.1]},
    }  # fmt: skip
    return {"data": traces, "layout": layout}


def _bars(panels: Sequence[rsa_bars.Panel]) -> Chart:
    titles = {"pearson": "Pearson r", "spearman": "Spearman ρ", "centred": "centred r", "counts_held": "counts held"}
    shown = {name: title for name, title in titles.items() if any(panel.bars[name] for panel in panels)}
    traces = []
    for side, (statistic, title) in enumerate(shown.items()):
        for panel in panels:
            bars = panel.bars[statistic]
            known = all(bar.low is not None for bar in bars)
            traces.append({
                "type": "bar", "name": panel.name, "legendgroup": panel.name, "showlegend": side == 0,
                "x": [bar.where for bar in bars], "y": _rounded([bar.value for bar in bars]),
                "marker": {"color": _colour(panel.place)}, "xaxis": f"x{side + 1 if side else ''}",
                "error_y": {
                    "type": "data", "symmetric": False, "color": "var(--ink)", "thickness": 1, "width": 0, "visible": known,
                    "array": _rounded([(bar.high or 0) - bar.value for bar in bars]),
                    "arrayminus": _rounded([bar.value - (bar.low or 0) for bar in bars]),
                },
                "hovertemplate": "%{fullData.name}<br>" + title + ", %{x}: %{y:.3f}<extra></extra>",
            })  # fmt: skip
    axes = [f"x{side or ''}" for side in [0, *range(2, len(shown) + 1)]]
    width, gap = 1 / len(shown), 0.02
    layout = {
        "barmode": "group", "grid": {"rows": 1, "columns": len(shown), "subplots": [[f"{axis}y" for axis in axes]]},
        "yaxis": {"title": {"text": "correlation"}, "zeroline": True},
    }  # fmt: skip
    for side, (axis, title) in enumerate(zip(axes, shown.values(), strict=True)):
        domain = [max(0, side * width + gap), min(1, (side + 1) * width - gap)]
        layout[axis.replace("x", "xaxis")] = {"title": {"text": title}, "domain": domain}
    return {"data": traces, "layout": layout}


def _dumbbells(panels: Sequence[levels.Panel]) -> Chart:
    traces = []
    for panel in panels:
        places = [f"level {level}" for level in panel.levels]
        for kind, values in (("same level", panel.within), ("other levels", panel.between)):
            hollow = kind == "other levels"
            traces.append({
                "type": "scatter", "mode": "markers", "x": places, "legendgroup": panel.name,
                "offsetgroup": panel.name,
                "y": [None if value is None else round(value, 4) for value in values],
                "name": panel.name if not hollow else f"{panel.name}, other levels", "showlegend": not hollow,
                "marker": {"size": 10, "color": "var(--card)" if hollow else _colour(panel.place),
                           "line": {"color": _colour(panel.place), "width": 2}},
                "hovertemplate": f"{kind}, %{{x}}: %{{y:.3f}}<extra></extra>",
            })  # fmt: skip
    layout = {
        "yaxis": {"title": {"text": "mean cosine about the centroid"}, "zeroline": True},
        "scattermode": "group",
        "scattergap": 0.5,
    }
    return {"data": traces, "layout": layout}


def _norms(panels: Sequence[norms.Panel]) -> Chart:
    text = next((panel.text for panel in panels if panel.text), None)
    shown: list[tuple[str, norms.Histogram, str, str | None]] = []
    if text:
        shown.append(("text", text, "var(--muted)", "tozeroy"))
    shown += [(panel.name, panel.new, _colour(panel.place), None) for panel in panels if panel.new]
    traces = []
    for name, histogram, colour, fill in shown:
        lone = histogram.point is not None
        x = [histogram.point] * 2 if lone else _rounded(np.repeat(histogram.edges, 2))
        y = [0, 1] if lone else _rounded([0, *np.repeat(histogram.density, 2), 0])
        traces.append({
            "type": "scatter", "mode": "lines", "name": f"{name}: all one norm" if lone else name, "x": x, "y": y,
            "line": {"color": colour, "width": 0 if fill else 2}, "fill": fill, "fillcolor": "var(--band)" if fill else None,
            "hovertemplate": "norm %{x:.3g}<extra>%{fullData.name}</extra>",
        })  # fmt: skip
    return {
        "data": traces,
        "layout": {
            "xaxis": {"title": {"text": "Euclidean norm of the row"}},
            "yaxis": {"title": {"text": "density (highest = 1)"}, "rangemode": "tozero"},
        },
    }


def _curves(panels: Sequence[trajectory.Panel]) -> Chart:
    shown = trajectory.curves(panels)
    traces, layout = [], {"grid": {"rows": 1, "columns": len(shown), "pattern": "independent"}}
    for i, (curve, title) in enumerate(shown.items(), 1):
        axis = "" if i == 1 else str(i)
        found = trajectory.series(panels, curve)
        bounds = [panel.intervals[curve] for panel in found if curve in panel.intervals]
        values = [panel.values[curve] for panel in found]
        known = len(bounds) == len(found) > 0
        traces.append({
            "type": "scatter", "mode": "lines+markers", "x": [panel.step for panel in found], "y": _rounded(values),
            "line": {"color": "var(--s0)", "width": 2}, "xaxis": f"x{axis}", "yaxis": f"y{axis}", "showlegend": False,
            "error_y": {
                "type": "data", "symmetric": False, "visible": known, "thickness": 1, "width": 0,
                "array": _rounded([b[1] - v for b, v in zip(bounds, values, strict=True)]) if known else [],
                "arrayminus": _rounded([v - b[0] for b, v in zip(bounds, values, strict=True)]) if known else [],
            },
            "hovertemplate": "step %{x}: %{y:.3g}<extra></extra>",
        })  # fmt: skip
        layout[f"xaxis{axis}"] = {"title": {"text": "training step"}}
        layout[f"yaxis{axis}"] = {"title": {"text": title.replace("$", "")}}
    return {"data": traces, "layout": layout}


def unique(labels: Sequence[str]) -> list[str]:
    """Labels made distinct: a category axis would merge equal ones."""
    seen: dict[str, int] = {}
    found = []
    for label in labels:
        seen[label] = seen.get(label, 0) + 1
        found.append(label if seen[label] == 1 else f"{label} ({seen[label]})")
    return found


def _heat(name: str, cosine: np.ndarray, labels: Sequence[str], *, scale: float, bounds, ticks) -> Chart:
    names = unique(labels)
    lines = [
        {"type": "line", "layer": "above", "line": {"color": "var(--ink)", "width": 1}, **ends}
        for at in bounds
        for ends in (
            {"x0": at - 0.5, "x1": at - 0.5, "y0": -0.5, "y1": len(names) - 0.5},
            {"y0": at - 0.5, "y1": at - 0.5, "x0": -0.5, "x1": len(names) - 0.5},
        )
    ]
    axis = {
        "tickvals": [at for at, _ in ticks],
        "ticktext": [text for _, text in ticks],
        "showgrid": False,
        "ticks": "",
    }
    return {
        "name": name, "square": True,
        "data": [{
            "type": "heatmap", "x": names, "y": names, "z": [_rounded(row, 3) for row in cosine], "zmin": -scale, "zmax": scale,
            "colorscale": "diverging", "hovertemplate": "%{y} × %{x}<br>cosine %{z:.3f}<extra></extra>",
            "colorbar": {"thickness": 10, "len": 0.9, "outlinewidth": 0, "nticks": 5, "orientation": "h", "yref": "container",
                         "y": 0, "yanchor": "bottom"},
        }],
        "layout": {
            "shapes": lines,
            "xaxis": {"type": "category", "constrain": "domain", "tickangle": 0, **axis},
            "yaxis": {"type": "category", "autorange": "reversed", "scaleanchor": "x", "constrain": "domain", "tickangle": -90, **axis},
        },
    }  # fmt: skip


def _panel(panel: cosine_panels.Panel, _: Sequence[Any]) -> Chart:
    count = len(panel.tokens)
    ticks = [((panel.text - 1) / 2, f"{panel.text} text"), ((panel.text + count - 1) / 2, f"{count - panel.text} new")]
    return _heat(panel.name, panel.cosine, panel.tokens, scale=1.0, bounds=[panel.text], ticks=ticks)


def _blocks(panel: cosine_blocks.Panel, panels: Sequence[Any]) -> Chart:
    ends = [*panel.bounds[1:], len(panel.cosine)]
    ticks = [((start + end - 1) / 2, level) for start, end, level in zip(panel.bounds, ends, panel.levels, strict=True)]
    labels = [token(label) + (" …" if panel.tokens_per_cell > 1 else "") for label in panel.labels]
    labels = labels or [str(i + 1) for i in range(len(panel.cosine))]
    return _heat(
        panel.name, panel.cosine, labels, scale=cosine_blocks.limit(panels), bounds=panel.bounds[1:], ticks=ticks
    )


ONE_FOR_ALL: dict[ModuleType, Callable[[Sequence[Any]], Chart]] = {
    spectrum: _spectra,
    rsa_bars: _bars,
    levels: _dumbbells,
    norms: _norms,
    trajectory: _curves,
}
ONE_EACH: dict[ModuleType, Callable[[Any, Sequence[Any]], Chart]] = {cosine_panels: _panel, cosine_blocks: _blocks}
