"""gti-diag scan at the terminal: parse, call, print."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from gti_diag.errors import EXIT_PASS, EXIT_REGRESSION

from . import progress
from .app import app
from .options import Base, Checkpoint, FailOn, Json, Junit, MaxMemory, New, Quiet, Sarif, Tensor


@app.command(epilog="Example: gti-diag scan Qwen/Qwen3-0.6B --fail-on zero,near_zero,cluster")
def scan(
    checkpoint: Checkpoint,
    base: Base = None,
    new: New = "auto",
    tensor: Tensor = None,
    json: Json = None,
    fail_on: FailOn = "",
    junit: Junit = None,
    sarif: Sarif = None,
    summary: Annotated[Path | None, typer.Option(help="Write the findings here as Markdown.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a self-contained page here.")] = None,
    max_memory: MaxMemory = "2GB",
    top: Annotated[int, typer.Option(min=1, help="Tokens shown for each finding.")] = 8,
    quiet: Quiet = False,
) -> None:
    """Is every row of the vocabulary sound, new or not? Zeros, giants, copies, clusters, untrained rows, by name.

    Reads each row of the input matrix and the head once, in a stream.
    """
    from gti_diag.analysis.scan import failing, parse_kinds
    from gti_diag.analysis.scan import scan as scanned
    from gti_diag.document import dumps
    from gti_diag.files import parse_bytes
    from gti_diag.gate import output, scan_gate
    from gti_diag.render.scan import html as web
    from gti_diag.render.scan import markdown, terminal

    kinds = parse_kinds(fail_on)
    with progress.bar(quiet) as show:
        found = scanned(
            checkpoint,
            base=base,
            new=new,
            tensor=tensor,
            max_memory=parse_bytes(max_memory),
            progress=show,
            command=["gti-diag", *sys.argv[1:]],
        )
    pages = {json: dumps, summary: lambda scan: markdown.summary(scan, top=top), html: web.page}
    output.write(scan_gate.check_scan(found, kinds), {"junit": junit, "sarif": sarif})
    output.write_texts({path: write(found) for path, write in pages.items() if path is not None})
    if not quiet:
        from rich.console import Console

        Console(highlight=False).print(terminal.summary(found, top=top))
    raise typer.Exit(EXIT_REGRESSION if failing(found, kinds) else EXIT_PASS)
