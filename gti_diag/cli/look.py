"""gti-diag inspect, explain and figures at the terminal: commands that measure nothing."""

from pathlib import Path
from typing import Annotated

import typer

from gti_diag.errors import InputError

from .analyze import chosen
from .app import app
from .options import Base, Checkpoint, New, Style, Tensor
from .shell import say


@app.command(epilog="Example: gti-diag inspect Qwen/Qwen3-0.6B")
def inspect(
    checkpoint: Checkpoint,
    base: Base = None,
    new: New = "auto",
    tensor: Tensor = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """What is in here: matrices, types, tied or not, token groups found and why. Instant: few rows are read, behind an address none."""
    from gti_diag.checkpoint import open_base, open_checkpoint
    from gti_diag.checkpoint.inspect import describe
    from gti_diag.document import dumps
    from gti_diag.tokens.groups import partition

    before = None if base is None else open_base(base, tensor=tensor)
    opened = open_checkpoint(checkpoint, tensor=tensor, base=before)
    parts = partition(opened, new=new, base=before, scan=False)
    found = describe(opened, parts)
    if json:
        typer.echo(dumps(found), nl=False)
        return
    from rich.console import Console

    from gti_diag.render.description import description

    Console(highlight=False).print(description(found))


@app.command(epilog="Example: gti-diag explain effective_rank")
def explain(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="A measure or verdict; none lists them all.")
    ] = None,
) -> None:
    """Definition, convention, range, pitfalls and source of a measure or verdict."""
    from rich.console import Console
    from rich.table import Table

    from gti_diag.render.explain import explanations, lookup

    table = Table.grid(padding=(0, 2))
    if name is None:
        for key, page in explanations().items():
            table.add_row(f"[bold]{key}[/bold]", page.one_line)
    else:
        page = lookup(name)
        table.add_row(f"[bold]{page.name}[/bold]", page.one_line)
        for part in ("definition", "convention", "range", "reading", "pitfalls", "source"):
            table.add_row(part, getattr(page, part))
    Console(highlight=False).print(table)


@app.command(epilog="Example: gti-diag figures runs/demo/report --style dark")
def figures(
    study: Annotated[
        Path, typer.Argument(metavar="STUDY_DIR", help="Folder with analysis.json or comparison.json files.")
    ],
    out: Annotated[Path | None, typer.Option(help="Folder for the figures.", show_default="STUDY_DIR/figures")] = None,
    formats: Annotated[str, typer.Option(help="Which of png,svg,pdf to draw.")] = "png,svg",
    style: Style = "paper",
) -> None:
    """Redraw a study's figures from its results, without reading any checkpoint again."""
    from gti_diag import render
    from gti_diag.document import read

    files = [file for name in ("comparison.json", "analysis.json") for file in sorted(study.rglob(name))]
    if not files:
        raise InputError(f"{study}: no comparison.json or analysis.json in it; run gti-diag analyze or compare first")
    wanted = chosen(formats)
    for file in files:
        folder = out or study / "figures"
        if len(files) > 1:
            folder = folder / file.relative_to(study).parent
        drawn = render.figures(read(file), folder, formats=wanted, style=style)
        say(f"{folder}: {len(drawn)} figures from {file}")
