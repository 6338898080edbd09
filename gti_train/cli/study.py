"""gti-train run: a study from its file to its results."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Annotated

import typer

from gti_diag.cli.shell import say
from gti_diag.errors import InputError
from gti_diag.foreign import shown

from .app import app
from .options import Out, Quiet
from .progress import bar


@app.command(epilog="Example: gti-train run STUDY.toml --dry-run    then: gti-train run STUDY.toml --out runs/office")
def run(
    study: Annotated[Path, typer.Argument(metavar="STUDY.toml", help="What to compare: data, arms, seeds, budgets.")],
    out: Out = Path("runs/study"),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would run, and about what it would take.")
    ] = False,
    arms: Annotated[
        str | None, typer.Option(metavar="NAME,…", help="Run these arms alone.", show_default="all")
    ] = None,
    seeds: Annotated[str | None, typer.Option(metavar="N,…", help="… under these seeds.", show_default="all")] = None,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="Try every stage with a few steps for a few users, in OUT/smoke.")
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Redo finished stages.")] = False,
    quiet: Quiet = False,
) -> None:
    """Run a study: each arm and seed from catalogue to recommendations, judged and measured; then tables and figures.

    What a former run finished with the same settings is skipped; a killed run goes on where it was. OUT/results holds
    all that the tables and figures are made of. Several machines can share a study by --arms and --seeds; `summarise` joins
    their results.
    """
    from gti_train.study.config import read_study
    from gti_train.study.plan import RESULTS, part_of, plan
    from gti_train.study.running import run_study, small
    from gti_train.study.stages import forget

    read = read_study(study)
    part = part_of(read, arms=_named(arms), seeds=_numbers(seeds))
    if smoke:
        read, out, part = small(read), out / "smoke", replace(part, seeds=None)  # which has one seed
    if dry_run:
        _plan(read, out, part)
        return
    if fresh:
        forget(out)
    with stages_bar(plan(read, part), quiet) as progress:
        written = run_study(read, out, part=part, progress=progress)
    for path in written:
        say(path)
    if not quiet and any(arm.fine_tuning for arm in read.arms.values()):
        show_outcome(out / RESULTS)


def _named(text: str | None) -> list[str] | None:
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def _numbers(text: str | None) -> list[int] | None:
    try:
        return None if text is None else [int(part) for part in _named(text) or ()]
    except ValueError:
        raise InputError(f"--seeds {text!r}: write numbers with commas between them, such as 1,2") from None


@app.command(epilog="Example: gti-train summarise runs/office/results --out reports/office")
def summarise(
    results: Annotated[
        list[Path],
        typer.Argument(
            metavar="RESULTS…",
            help="The folder `results` of a run, finished or not; of several runs of parts of one study, to join them in OUT/results.",
        ),
    ],
    out: Out,
    baseline: Annotated[
        str | None, typer.Option(help="The arm that the others are compared with.", show_default="the study's")
    ] = None,
) -> None:
    """Write the tables and figures of a study from its results alone: no model is opened."""
    from gti_train.study.joining import join
    from gti_train.study.summary import summarise as write

    whole = results[0] if len(results) == 1 else join(results, out)
    for path in write(whole, out, baseline=baseline):
        say(path)


def show_outcome(results: Path) -> None:
    """Every arm and baseline, on the terminal."""
    from rich.console import Console
    from rich.table import Table

    from gti_train.study.results import read_results, table
    from gti_train.study.tables import columns, title

    found = read_results(results)
    rows, metrics = table(found), columns(found)
    shape = Table(title=f"{rows[0].users} users, whole catalogue ranked; 95 % intervals", title_justify="left")
    for name in ("", *map(title, metrics)):
        shape.add_column(name, justify="right" if name else "left", no_wrap=not name)
    for row in rows:
        cells = (map(_share, (row.values[name], *row.intervals[name])) for name in metrics)
        shape.add_row(shown(row.name), *(f"{value} [dim]{low}–{high}[/dim]" for value, low, high in cells))
    Console().print(shape)


def _share(value: float) -> str:
    """Three places and no zero before the point: six columns fit a terminal of 80 characters."""
    return f"{value:.3f}".removeprefix("0")


def _plan(study, out: Path, part) -> None:
    from rich.console import Console
    from rich.table import Table

    from gti_train.study.running import estimate

    found = estimate(study, out, part)
    table = Table(title=f"{study.name}: {len(found.stages)} stages", title_justify="left")
    for name in ("output", "", "processor seconds"):
        table.add_column(name, justify="left" if name != "processor seconds" else "right")
    for stage, finished, seconds in found.stages:
        table.add_row(shown(stage.output), "finished" if finished else "", "" if finished else f"{seconds:,.0f}")
    console = Console()
    console.print(table)
    basis = (
        "by what finished stages took here"
        if found.measured
        else "as SmolLM2-135M takes on one thread with AVX512-BF16"
    )
    console.print(
        f"left: about {found.seconds / 60:,.0f} minutes of one processor ({basis}), {found.memory / 1e9:.1f} GB of memory"
    )


@contextlib.contextmanager
def stages_bar(stages: Sequence, quiet: bool) -> Iterator[Callable]:
    """One bar over all stages, and a line for each that is finished."""
    if quiet:
        yield lambda stage, share, detail: None
        return
    import time

    from rich.text import Text

    began: dict[str, float] = {}
    weights = [stage.weight for stage in stages]
    before = dict(zip([stage.output for stage in stages], accumulate([0.0, *weights]), strict=False))
    with bar("{task.description}", "{task.fields[detail]}") as display:
        task = display.add_task("starting", total=sum(weights), detail="")

        def progress(stage, share: float, detail: str) -> None:
            now = time.perf_counter()
            spent = now - began.setdefault(stage.output, now)
            done = before[stage.output] + share * stage.weight
            display.update(task, description=stage.title, completed=done, detail=detail)
            if share >= 1.0 and (spent or detail):
                display.console.print(Text(shown(f"{stage.title}: {detail or f'{spent:.0f} s'}")))

        yield progress
