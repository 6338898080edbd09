"""gti-diag baseline, check and trajectory at the terminal: parse, call, print."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from . import cli, shell
from .cli import (
    Base,
    Checkpoint,
    Checkpoints,
    Device,
    Items,
    MatrixName,
    MaxMemory,
    New,
    Quiet,
    Reference,
    Seed,
    Style,
    Tensor,
)

Policy = Annotated[str, typer.Option(help="default | strict | a TOML file.")]
Baseline = Annotated[Path | None, typer.Option(help="What `gti-diag baseline` wrote; rules on changes need it.")]


@cli.app.command(epilog="Example: gti-diag baseline runs/demo/gti -o baseline.json")
def baseline(
    checkpoint: Checkpoint,
    out: Annotated[Path, typer.Option("--out", "-o", help="The baseline file to write.")] = Path("baseline.json"),
    base: Base = None,
    new: New = "auto",
    reference: Reference = None,
    items: Items = None,
    matrix: MatrixName = "auto",
    tensor: Tensor = None,
    seed: Seed = 0,
    device: Device = "auto",
    max_memory: MaxMemory = "2GB",
    quiet: Quiet = False,
) -> None:
    """Keep a checkpoint's measures as the baseline that `check` compares with."""
    from . import gate

    options = _options(
        base=base, new=new, reference=reference, items=items, matrix=matrix, tensor=tensor, seed=seed, device=device
    )
    with cli._progress(quiet) as progress:
        analysis = gate.analysis_of(
            checkpoint, **options, max_memory=cli.parse_bytes(max_memory), progress=progress, command=_command()
        )
        gate.write_baseline(analysis, out)
    if not quiet:
        label = analysis["matrices"][next(iter(analysis["matrices"]))]["verdict"]["label"]
        typer.echo(f"{out}: baseline of {checkpoint} ({label})")


@cli.app.command(epilog="Example: gti-diag check runs/demo/gti --baseline baseline.json --junit check.xml")
def check(
    checkpoint: Annotated[str, typer.Argument(metavar="CKPT", help="Checkpoint, or the analysis.json of one.")],
    baseline: Baseline = None,
    policy: Policy = "default",
    base: Base = None,
    new: New = "auto",
    reference: Reference = None,
    items: Items = None,
    matrix: MatrixName = "auto",
    tensor: Tensor = None,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML here.")] = None,
    sarif: Annotated[Path | None, typer.Option(help="Write SARIF here, for code scanning.")] = None,
    summary: Annotated[
        Path | None,
        typer.Option(
            help="Write a Markdown summary here; it is also appended to $GITHUB_STEP_SUMMARY where that is set."
        ),
    ] = None,
    json: Annotated[Path | None, typer.Option("--json", help="Write the findings here as JSON.")] = None,
    update: Annotated[
        bool,
        typer.Option("--update", help="Renew the baseline from this checkpoint, if it satisfies the policy by itself."),
    ] = False,
    seed: Seed = 0,
    device: Device = "auto",
    max_memory: MaxMemory = "2GB",
    quiet: Quiet = False,
) -> None:
    """Compare a checkpoint with a policy and a baseline; exit 1 if something got worse.

    One line per finding on standard output: what was expected, what was found, and the likely cause.
    """
    from . import gate, gate_output
    from .errors import InputError

    if update and baseline is None:
        raise InputError("--update renews the file given with --baseline: name one")
    rules = gate.read_policy(policy)  # a wrong policy or baseline is told before the work, not after it
    against = None if update else baseline
    if against is not None:
        gate.read_baseline(against)
    options = _options(
        base=base, new=new, reference=reference, items=items, matrix=matrix, tensor=tensor, seed=seed, device=device
    )
    with cli._progress(quiet) as progress:
        analysis = gate.analysis_of(
            checkpoint, **options, max_memory=cli.parse_bytes(max_memory), progress=progress, command=_command()
        )
    findings = gate.check(analysis, baseline=against, policy=rules)
    gate_output.write(findings, {"junit": junit, "sarif": sarif, "summary": summary, "json": json})
    gate_output.append_github_summary(findings)
    if update and baseline is not None and findings.passed:
        gate.write_baseline(analysis, baseline)
    if not quiet:
        typer.echo(findings)
        for note in findings.notes:
            typer.echo(f"note: {note}", err=True)
        if update:
            typer.echo(
                f"{baseline}: {'renewed' if findings.passed else 'left as it was, the checkpoint fails its policy'}"
            )
    raise typer.Exit(shell.EXIT_PASS if findings.passed else shell.EXIT_REGRESSION)


@cli.app.command(epilog="Example: gti-diag trajectory 'runs/sft/checkpoint-*' --watch")
def trajectory(
    checkpoints: Checkpoints,
    base: Base = None,
    new: New = "auto",
    reference: Reference = None,
    items: Items = None,
    matrix: MatrixName = "auto",
    tensor: Tensor = None,
    out: Annotated[Path, typer.Option(help="Folder for trajectory.jsonl and the figure.")] = Path(
        "gti-report/trajectory"
    ),
    jobs: Annotated[int, typer.Option(min=1, help="Checkpoints measured at the same time.")] = 1,
    watch: Annotated[bool, typer.Option("--watch", help="Keep looking for new checkpoints until interrupted.")] = False,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between looks with --watch.")] = 30.0,
    style: Style = "paper",
    seed: Seed = 0,
    device: Device = "auto",
    max_memory: MaxMemory = "2GB",
    quiet: Quiet = False,
) -> None:
    """The same tokens over training steps: one JSON line per checkpoint, and the figure.

    CKPT may be a run's folder or a quoted glob; checkpoints measured before are not read again.
    """
    from . import trajectory as runs

    options = _options(
        base=base, new=new, reference=reference, items=items, matrix=matrix, tensor=tensor, seed=seed, device=device
    )
    options["max_memory"] = cli.parse_bytes(max_memory)
    for found in runs.follow(checkpoints, out, jobs=jobs, interval=interval if watch else None, **options):
        runs.draw(out, style=style)
        if not quiet:
            for line in found:
                typer.echo(runs.summary(line))


def _options(**options) -> dict:
    return options


def _command() -> list[str]:
    return ["gti-diag", *sys.argv[1:]]
