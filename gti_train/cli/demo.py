"""gti-train demo: the whole story in minutes."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from gti_diag.foreign import shown

from .app import app
from .options import Encoder, Out, Quiet, Seed, code_sizes
from .progress import bar


@app.command(epilog="Example: gti-train demo --out runs/demo")
def demo(
    out: Out = Path("runs/demo"),
    model: Annotated[
        str, typer.Option(help="Hub id, folder or .gguf file (default: SmolLM2-135M, from its PyPI wheel).")
    ] = "",
    items: Annotated[int, typer.Option(min=81, help="Products in the embedded catalogue.")] = 800,
    codes: Annotated[str, typer.Option(metavar="N,N,…", help="Codes on each level of the semantic IDs.")] = "",
    encoder: Encoder = "lsa",
    steps: Annotated[int | None, typer.Option(min=1, help="Grounding steps.")] = None,
    seed: Seed = 0,
    fresh: Annotated[bool, typer.Option("--fresh", help="Redo finished stages.")] = False,
    quiet: Quiet = False,
) -> None:
    """Mean, random and grounded starts of one model, measured side by side: the whole story in minutes.

    Stages that a former run finished with the same settings are skipped.
    """
    from gti_train.study.demo import DemoConfig, forget
    from gti_train.study.demo import demo as run

    given: dict[str, Any] = {"sizes": code_sizes(codes) if codes else None, "steps": steps}
    config = DemoConfig(
        model=model, items=items, encoder=encoder, seed=seed, **{k: v for k, v in given.items() if v is not None}
    )
    if fresh:
        forget(out)
    with _stages(quiet) as progress:
        analyses = run(config, out, progress=progress)
    if not quiet:
        from rich.console import Console
        from rich.text import Text

        from gti_diag.render import terminal

        console = Console()
        console.print(terminal.summary(analyses))
        report = out / "report"
        page = next((report / name for name in ("report.html", "summary.md") if (report / name).is_file()), report)
        console.print(Text.assemble("\nThe report with all figures is in ", (shown(page), "bold")), soft_wrap=True)


@contextlib.contextmanager
def _stages(quiet: bool) -> Iterator[Callable]:
    """One bar over all stages of the demonstration, and a line for each that is finished."""
    if quiet:
        yield lambda stage, share, detail: None
        return
    import time

    from rich.text import Text

    from gti_train.study.demo import STAGES

    began: dict[str, float] = {}
    before = dict(zip([s.name for s in STAGES], _cumulative([s.weight for s in STAGES]), strict=True))
    with bar("{task.description}", "{task.fields[detail]}") as display:
        task = display.add_task("starting", total=sum(stage.weight for stage in STAGES), detail="")

        def progress(stage, share: float, detail: str) -> None:
            now = time.perf_counter()
            spent = now - began.setdefault(stage.name, now)
            done = before[stage.name] + share * stage.weight
            display.update(task, description=stage.title, completed=done, detail=detail)
            if share >= 1.0 and (spent or detail):
                display.console.print(Text(shown(f"{stage.title}: {detail or f'{spent:.0f} s'}")))

        yield progress


def _cumulative(weights: Sequence[float]) -> list[float]:
    return [sum(weights[:index]) for index in range(len(weights))]
