"""What a result looks like: figures, tables, Markdown, terminal, HTML. Reads the dict of analysis.json only.

matplotlib and seaborn are imported here and nowhere else in the package, and only when a figure is drawn.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from .view import Analysis, Missing, View, matrices, views

# One file per figure, in the order in which reports show them. `pool_curves` and `ladder` read other documents.
FIGURES = ("cosine_panels", "spectrum", "rsa_bars", "token_map", "cosine_blocks", "levels", "norms", "trajectory")


def figures(
    analyses: Sequence[Analysis],
    out: Path | str,
    *,
    formats: Sequence[str] = ("png", "svg"),
    style: str = "paper",
) -> list[Path]:
    """Draw every figure that the analyses allow into `out`; several analyses stand side by side.

    The files are the same bytes for the same analyses and the same matplotlib. What is left out: `left_out`.

    Raises:
        ValueError: unknown style or format.
        InputError: `out` cannot be written.
    """
    from gti_diag.foreign import presentable

    plans = ((name, module.draw, panels) for name, module, panels in drawable(presentable(list(analyses))))
    return _saved(plans, out, formats=formats, style=style)


def gain_curves(
    arms: Mapping[str, Sequence[Mapping[str, Any]]],
    out: Path | str,
    *,
    baseline: str,
    formats: Sequence[str] = ("png", "svg"),
    style: str = "paper",
) -> list[Path]:
    """Draw the gain of each arm (its evaluations, one a seed) over `baseline` against the length of the list.

    Raises:
        ValueError: unknown style or format.
        Missing: as `pool_curves.points`.
        InputError: `out` cannot be written.
    """
    module = import_module(".pool_curves", __name__)
    return _saved([(module.NAME, module.draw, module.points(arms, baseline))], out, formats=formats, style=style)


def climbed(
    ladder: Mapping[str, Any], out: Path | str, *, formats: Sequence[str] = ("png", "svg"), style: str = "paper"
) -> list[Path]:
    """Draw a ladder of rankers (`gti_train.search.ladder.document`) into `out`.

    Raises:
        ValueError: unknown style or format.
        Missing: as `ladder.points`.
        InputError: `out` cannot be written.
    """
    module = import_module(".ladder", __name__)
    return _saved([(module.NAME, module.draw, module.points(ladder))], out, formats=formats, style=style)


def outcome(
    found: Mapping[str, Any], out: Path | str, *, formats: Sequence[str] = ("png", "svg"), style: str = "paper"
) -> list[Path]:
    """Draw what the arms of a study came to, from the numbers that `recall_lines.points` names.

    Raises:
        ValueError: unknown style or format.
        Missing: as `recall_lines.points`.
        InputError: `out` cannot be written.
    """
    module = import_module(".recall_lines", __name__)
    return _saved([(module.NAME, module.draw, module.points(found))], out, formats=formats, style=style)


def _saved(
    plans: Iterable[tuple[str, Callable, list[Any]]], out: Path | str, *, formats: Sequence[str], style: str
) -> list[Path]:
    if not formats:
        return []
    from gti_diag.files import atomic

    from .style import METADATA, using

    unknown = [suffix for suffix in formats if suffix not in METADATA]
    if unknown:
        raise ValueError(f"no figure format {unknown[0]!r}: choose from {', '.join(METADATA)}")
    written = []
    with using(style) as look:
        for name, draw, panels in plans:
            figure = draw(panels, look)
            figure.get_layout_engine().execute(figure)  # savefig would lay it out anew for every format
            figure.set_layout_engine("none")
            for suffix in formats:
                path = Path(out) / f"{name}.{suffix}"
                with atomic(path) as temporary:
                    figure.savefig(temporary, format=suffix, metadata=METADATA[suffix])
                written.append(path)
    return written


def drawable(analyses: Sequence[Analysis]) -> Iterator[tuple[str, ModuleType, list[Any]]]:
    """(file stem, figure module, its points) of every figure for which at least one analysis has the data."""
    for name, module, panels, _ in _plan(analyses):
        if panels:
            yield name, module, panels


def left_out(analyses: Sequence[Analysis]) -> dict[str, str]:
    """Figure (its file stem) → which checkpoints it leaves out, and why."""
    return {name: "; ".join(reasons) for name, _, _, reasons in _plan(analyses) if reasons}


def _plan(analyses: Sequence[Analysis]) -> Iterator[tuple[str, ModuleType, list[Any], list[str]]]:
    for matrix in matrices(analyses):
        shown = views(analyses, matrix)
        for file in FIGURES:
            module = import_module(f".{file}", __name__)
            panels, reasons = _points(module, shown)
            yield module.NAME + ("" if matrix == "input" else f"-{matrix}"), module, panels, reasons


def _points(module: ModuleType, shown: Sequence[View]) -> tuple[list[Any], list[str]]:
    panels, reasons = [], []
    for view in shown:
        try:
            panels.append(module.points(view))
        except Missing as missing:
            reasons.append(f"{view.name}: {missing}")
    if hasattr(module, "together") and not module.together(panels):
        return [], []  # a figure of its own kind of comparison: not missed elsewhere
    return panels, reasons
