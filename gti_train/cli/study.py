"""gti-train run: a study from its file to its results."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Annotated

import typer

from gti_diag.cli.shell import say
from gti_diag.foreign import shown

from .app import app
from .options import Out, Quiet
from .progress import bar


@app.command(epilog="Example: gti-train run STUDY.toml --out runs/office")
def run(
    study: Annotated[Path, typer.Argument(metavar="STUDY.toml", help="What to compare: data, arms, seeds, budgets.")],
    out: Out,
    fresh: Annotated[bool, typer.Option("--fresh", help="Redo finished stages.")] = False,
    quiet: Quiet = False,
) -> None:
    """Run a study: each arm and seed from catalogue to recommendations, judged and measured.

    What a former run finished with the same settings is skipped; a killed run goes on where it was.
    """
    from gti_train.study.config import read_study
    from gti_train.study.plan import RESULTS, plan
    from gti_train.study.stages import forget, run_stages

    stages = plan(read_study(study))
    if fresh:
        forget(out)
    with stages_bar(stages, quiet) as progress:
        run_stages(stages, out, progress=progress)
    say(f"{len(stages)} stages are done: {out / RESULTS}")


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
