"""gti-diag analyze and compare at the terminal."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gti_diag.foreign import shown

from . import progress
from .app import app
from .bundles import unfolded
from .options import Checkpoint, Checkpoints, Exact, Report, Settings


@app.command(epilog="Example: gti-diag analyze runs/demo/seed-0/gti --base runs/demo/base --out report/")
@unfolded
def analyze(checkpoint: Checkpoint, settings: Settings, report: Report, exact: Exact = False) -> None:
    """Measure one checkpoint's embedding rows, give the verdict, write report and figures."""
    _measured([checkpoint], settings, report, exact=exact, name=_named(checkpoint))


@app.command(epilog="Example: gti-diag compare runs/demo/seed-0/mean runs/demo/seed-0/random runs/demo/seed-0/gti")
@unfolded
def compare(checkpoints: Checkpoints, settings: Settings, report: Report, exact: Exact = False) -> None:
    """Measure several checkpoints side by side: one table, figures with a panel or line for each."""
    _measured(checkpoints, settings, report, exact=exact, name="comparison")


def _measured(checkpoints: Sequence[str], settings: Settings, report: Report, *, exact: bool, name: str) -> None:
    from gti_diag.analysis.diagnosis import compare
    from gti_diag.document import write_json
    from gti_diag.render.report import check_writable, write

    out = report.out or Path("gti-report") / name
    look: dict[str, Any] = {"formats": chosen(report.formats), "figures": chosen(report.figures), "style": report.style}
    check_writable(out, **look)
    with progress.bar(settings.quiet) as show:
        analyses = compare(
            checkpoints, **settings.arguments(), exact=exact, progress=show, command=["gti-diag", *sys.argv[1:]]
        )
        show("drawing", None)
        written = write(analyses, out, **look)
        if report.json is not None:
            write_json(analyses, report.json)
    if not settings.quiet:
        from rich.console import Console
        from rich.text import Text

        from gti_diag.render import terminal

        console = Console()
        console.print(terminal.summary(analyses, explain=report.explain))
        console.print(Text.assemble(f"{len(written)} files in ", (shown(out), "bold")))


def _named(checkpoint: str) -> str:
    """The folder of a report on `checkpoint`: its own name, also of `.` and `..`; never one that leads elsewhere."""
    name = Path(os.path.abspath(checkpoint) if os.path.exists(checkpoint) else checkpoint).name
    return name if name not in ("", ".", "..") else "checkpoint"


def chosen(formats: str) -> tuple[str, ...]:
    """`json, md` as its parts; `none` has none."""
    return tuple(part.strip() for part in formats.split(",") if part.strip() not in ("", "none"))
