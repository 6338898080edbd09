"""gti-diag baseline, check and trajectory at the terminal: parse, call, print."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from gti_diag.errors import EXIT_PASS, EXIT_REGRESSION, InputError

from . import progress
from .app import app
from .bundles import unfolded
from .options import Baseline, Checkpoint, Checkpoints, Junit, Policy, Sarif, Settings, Style
from .shell import say


@app.command(epilog="Example: gti-diag baseline runs/demo/seed-0/gti -o baseline.json")
@unfolded
def baseline(
    checkpoint: Checkpoint,
    settings: Settings,
    out: Annotated[Path, typer.Option("--out", "-o", help="The baseline file to write.")] = Path("baseline.json"),
) -> None:
    """Keep a checkpoint's measures as the baseline that `check` compares with."""
    from gti_diag.gate.baseline import write_baseline

    analysis = _analysis(checkpoint, settings)
    write_baseline(analysis, out)
    if not settings.quiet:
        label = analysis["matrices"][next(iter(analysis["matrices"]))]["verdict"]["label"]
        say(f"{out}: baseline of {checkpoint} ({label})")


@app.command(epilog="Example: gti-diag check runs/demo/seed-0/gti --baseline baseline.json --junit check.xml")
@unfolded
def check(
    checkpoint: Annotated[str, typer.Argument(metavar="CKPT", help="Checkpoint, or the analysis.json of one.")],
    settings: Settings,
    baseline: Baseline = None,
    policy: Policy = "default",
    junit: Junit = None,
    sarif: Sarif = None,
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
) -> None:
    """Compare a checkpoint with a policy and a baseline; exit 1 if something got worse.

    One line per finding on standard output: what was expected, what was found, and the likely cause.
    """
    from gti_diag.gate import findings, output
    from gti_diag.gate.baseline import read_baseline, write_baseline
    from gti_diag.gate.policy import read_policy

    if update and baseline is None:
        raise InputError("--update renews the file given with --baseline: name one")
    rules = read_policy(policy)  # a wrong policy or baseline is told before the work, not after it
    against = None if update else baseline
    if against is not None:
        read_baseline(against)
    analysis = _analysis(checkpoint, settings)
    found = findings.check(analysis, baseline=against, policy=rules)
    output.write(found, {"junit": junit, "sarif": sarif, "summary": summary, "json": json})
    output.append_github_summary(found)
    if update and baseline is not None and found.passed:
        write_baseline(analysis, baseline)
    if not settings.quiet:
        typer.echo(found)
        say(*(f"note: {note}" for note in found.notes), err=True)
        if update:
            say(f"{baseline}: {'renewed' if found.passed else 'left as it was, the checkpoint fails its policy'}")
    raise typer.Exit(EXIT_PASS if found.passed else EXIT_REGRESSION)


def _analysis(checkpoint: str, settings: Settings) -> dict:
    from gti_diag.gate.findings import analysis_of

    with progress.bar(settings.quiet) as show:
        return analysis_of(checkpoint, **settings.arguments(), progress=show, command=["gti-diag", *sys.argv[1:]])


@app.command(epilog="Example: gti-diag trajectory 'runs/sft/checkpoint-*' --watch")
@unfolded
def trajectory(
    checkpoints: Checkpoints,
    settings: Settings,
    out: Annotated[Path, typer.Option(help="Folder for trajectory.jsonl and the figure.")] = Path(
        "gti-report/trajectory"
    ),
    jobs: Annotated[int, typer.Option(min=1, help="Checkpoints measured at the same time.")] = 1,
    watch: Annotated[bool, typer.Option("--watch", help="Keep looking for new checkpoints until interrupted.")] = False,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between looks with --watch.")] = 30.0,
    style: Style = "paper",
) -> None:
    """The same tokens over training steps: one JSON line per checkpoint, and the figure.

    CKPT may be a run's folder or a quoted glob; checkpoints measured before are not read again.
    """
    from gti_diag.training import trajectory as runs

    seconds = interval if watch else None
    for found in runs.follow(checkpoints, out, jobs=jobs, interval=seconds, **settings.arguments()):
        runs.draw(out, style=style)
        if not settings.quiet:
            for line in found:
                typer.echo(runs.summary(line))
