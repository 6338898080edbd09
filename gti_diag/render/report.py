"""The folder that `analyze` and `compare` leave behind: JSON, summary, page and figures."""

import os
from collections.abc import Sequence
from pathlib import Path

from gti_diag.document import document, dumps
from gti_diag.errors import InputError
from gti_diag.files import all_or_none, write_text

FORMATS = ("json", "md", "html", "tex")


def write(
    analyses: list[dict],
    out: str | Path,
    *,
    formats: Sequence[str] = ("json", "md"),
    figures: Sequence[str] = ("png", "svg"),
    style: str = "paper",
) -> list[Path]:
    """Write one analysis, or a comparison of several, with its figures (in these formats, if any), to the folder `out`.

    All files appear, each whole, or none does; files of other names in the folder are left alone.

    Raises:
        InputError: an unknown format, or the folder cannot be written.
    """
    check_writable(out, formats, figures, style)
    from gti_diag import render

    from . import markdown, tables

    folder = Path(out)
    texts = {}  # everything is rendered before the first file is written
    if "json" in formats:
        texts["analysis.json" if len(analyses) == 1 else "comparison.json"] = dumps(document(analyses))
    if "md" in formats:
        texts["summary.md"] = markdown.summary(analyses)
    if "html" in formats:
        from . import html

        texts["report.html"] = html.report(analyses)
    if "tex" in formats:
        texts["tables.tex"] = tables.latex(analyses)
    with all_or_none(folder) as stage:
        written = [write_text(stage / name, text) for name, text in texts.items()]
        written += render.figures(analyses, stage / "figures", formats=figures, style=style)
    return [folder / path.relative_to(stage) for path in written]


def check_writable(out: str | Path, formats: Sequence[str], figures: Sequence[str] = (), style: str = "paper") -> None:
    """Fail before the work rather than after it.

    Raises:
        InputError: an unknown format or style, or a folder that cannot be made or written.
    """
    asked: list[tuple[str, Sequence[str], Sequence[str]]] = [("format", formats, FORMATS)]
    if figures:
        from .style import METADATA, STYLES

        asked += [("figure style", [style], list(STYLES)), ("figure format", figures, list(METADATA))]
    for what, names, known in asked:
        if unknown := [name for name in names if name not in known]:
            raise InputError(f"unknown {what} {unknown[0]!r}: choose from {', '.join(known)}")
    folder = Path(out)
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"cannot write to {out}: {folder} is not a folder that may be written; choose another --out")
