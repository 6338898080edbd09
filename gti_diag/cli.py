"""gti-diag at the terminal: parse, call, print. Heavy imports happen inside the commands, so `--help` is instant."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from . import shell
from .errors import InputError

app = typer.Typer(
    name="gti-diag",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="""What happened to the embedding rows of a language-model checkpoint?

    It reads the embedding rows (never the model), measures them, and says [bold]collapsed, degenerate, unstructured or healthy[/bold],
    with the evidence.

    Start here: [cyan]gti-diag analyze CKPT[/cyan] with a checkpoint folder, file or hub id.""",
    epilog="Exit codes: 0 done or pass, 1 `check` found a regression, 2 bad usage or input, 130 interrupted.",
)

Checkpoint = Annotated[str, typer.Argument(metavar="CKPT", help="Checkpoint: folder, file, URL or hub id.")]
Checkpoints = Annotated[
    list[str], typer.Argument(metavar="CKPT…", help="Checkpoints: folders, files, URLs or hub ids.")
]
Base = Annotated[str | None, typer.Option(help="The model before tokens were added; tells which rows are new.")]
New = Annotated[
    str,
    typer.Option(
        metavar="SELECTOR",
        help="Which tokens are new: auto | a regular expression | 49152:50176,50200 | @file.",
    ),
]
Reference = Annotated[
    Path | None,
    typer.Option(help="Vectors the new tokens should resemble: .npy .npz .safetensors .pt, n × k or keyed by token."),
]
Items = Annotated[
    Path | None,
    typer.Option(help="JSON of item to code tokens (sids.json, *.index.json): adds measures of shared prefixes."),
]
MatrixName = Annotated[str, typer.Option("--matrix", help="input | output | both (what exists, by default).")]
Out = Annotated[Path | None, typer.Option(help="Folder for the report [default: gti-report/NAME].")]
Json = Annotated[Path | None, typer.Option("--json", help="Write the results to this one file as well.")]
Formats = Annotated[str, typer.Option(help="Which of json,md,html to write.")]
Style = Annotated[str, typer.Option(help="Figure style: paper | screen | dark.")]
Seed = Annotated[int, typer.Option(help="Seed of every sample, permutation and bootstrap.")]
Device = Annotated[str, typer.Option(help="auto | cpu | cuda.")]
MaxMemory = Annotated[str, typer.Option(help="Memory to stay under, such as 2GB; large matrices are streamed.")]
Exact = Annotated[
    bool, typer.Option("--exact", help="Sort all pairs for Spearman's RSA: 40 bytes each, minutes for 25,000 tokens.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no table: files and exit code only.")]
Tensor = Annotated[str | None, typer.Option(help="Name of the embedding tensor, when the layout is unknown.")]


@app.command(epilog="Example: gti-diag analyze runs/demo/gti --base runs/demo/base --out report/")
def analyze(
    checkpoint: Checkpoint,
    base: Base = None,
    new: New = "auto",
    reference: Reference = None,
    items: Items = None,
    matrix: MatrixName = "auto",
    tensor: Tensor = None,
    out: Out = None,
    json: Json = None,
    formats: Formats = "json,md",
    style: Style = "paper",
    seed: Seed = 0,
    device: Device = "auto",
    max_memory: MaxMemory = "2GB",
    exact: Exact = False,
    quiet: Quiet = False,
) -> None:
    """Measure one checkpoint's embedding rows, give the verdict, write report and figures."""
    options = _options(
        base=base,
        new=new,
        reference=reference,
        items=items,
        matrix=matrix,
        tensor=tensor,
        seed=seed,
        device=device,
        exact=exact,
    )
    _analyze(
        [checkpoint],
        options,
        max_memory,
        out or Path("gti-report") / _name(checkpoint),
        json,
        formats,
        style,
        quiet,
    )


@app.command(epilog="Example: gti-diag compare runs/demo/mean runs/demo/random runs/demo/gti")
def compare(
    checkpoints: Checkpoints,
    base: Base = None,
    new: New = "auto",
    reference: Reference = None,
    items: Items = None,
    matrix: MatrixName = "auto",
    tensor: Tensor = None,
    out: Out = None,
    json: Json = None,
    formats: Formats = "json,md",
    style: Style = "paper",
    seed: Seed = 0,
    device: Device = "auto",
    max_memory: MaxMemory = "2GB",
    exact: Exact = False,
    quiet: Quiet = False,
) -> None:
    """Measure several checkpoints side by side: one table, figures with a panel or line for each."""
    options = _options(
        base=base,
        new=new,
        reference=reference,
        items=items,
        matrix=matrix,
        tensor=tensor,
        seed=seed,
        device=device,
        exact=exact,
    )
    _analyze(
        checkpoints,
        options,
        max_memory,
        out or Path("gti-report") / "comparison",
        json,
        formats,
        style,
        quiet,
    )


def _options(**options) -> dict:
    return options


def _analyze(checkpoints, options, max_memory, out, json, formats, style, quiet) -> None:
    from . import report
    from .diagnosis import compare

    wanted = tuple(part.strip() for part in formats.split(",") if part.strip())
    report.check_writable(out, wanted, style)
    with _progress(quiet) as progress:
        analyses = compare(
            checkpoints,
            **options,
            max_memory=parse_bytes(max_memory),
            progress=progress,
            command=["gti-diag", *sys.argv[1:]],
        )
        progress("drawing", None)
        written = report.write(analyses, out, formats=wanted, style=style)
        if json is not None:
            report.write_json(analyses, json)
    if not quiet:
        from rich.console import Console

        from .render import terminal

        console = Console()
        console.print(terminal.summary(analyses))
        console.print(f"{len(written)} files in [bold]{out}[/bold]", highlight=False)


def _progress(quiet: bool):
    """A context manager whose value is `progress(stage, share)`: a bar on a terminal, nothing when piped or quiet."""
    import contextlib

    if quiet or not sys.stderr.isatty():
        return contextlib.nullcontext(lambda stage, share: None)

    @contextlib.contextmanager
    def bar():
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as display:
            task = display.add_task("opening", total=None)
            yield lambda stage, share: display.update(
                task, description=stage, total=None if share is None else 1.0, completed=share or 0
            )

    return bar()


def _name(checkpoint: str) -> str:
    return Path(checkpoint.rstrip("/")).name or "checkpoint"


def parse_bytes(text: str, option: str = "--max-memory") -> int:
    """`2GB`, `512 MiB`, `1e9` as a number of bytes (decimal units of 1000, binary of 1024).

    Raises:
        InputError: not a size, or under 64 MB.
    """
    import re

    units = {
        "": 1,
        "b": 1,
        "k": 10**3,
        "m": 10**6,
        "g": 10**9,
        "t": 10**12,
        "ki": 2**10,
        "mi": 2**20,
        "gi": 2**30,
        "ti": 2**40,
    }
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:e[0-9]+)?)\s*([kmgt]i?)?b?\s*", text.lower())
    if not match:
        raise InputError(f"{option} {text!r} is not a size: write it like 2GB or 512MiB")
    size = int(float(match[1]) * units[match[2] or ""])
    if size < 64 * 10**6 and option == "--max-memory":
        raise InputError(f"{option} {text!r} is under 64MB, too little to hold a tile of rows")
    return size


from . import commands_gate, commands_look  # noqa: E402, F401  (they register their commands on `app`)


def main() -> None:
    shell.run(app, "gti-diag")
