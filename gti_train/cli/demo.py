"""gti-train demo: the whole story in minutes."""

from pathlib import Path
from typing import Annotated, Any

import typer

from gti_diag.foreign import shown

from .app import app
from .options import Encoder, Out, Quiet, Seed, code_sizes
from .study import show_outcome, stages_bar

RECOMMENDED = "recommend"  # folder of the study of what the starts lead to


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
    recommend: Annotated[
        bool,
        typer.Option(
            "--recommend", help="Fine-tune and judge each start as well: about 25 minutes of one processor more."
        ),
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Redo finished stages.")] = False,
    quiet: Quiet = False,
) -> None:
    """Mean, random and grounded starts of one model, measured side by side: the whole story in minutes.

    Stages that a former run finished with the same settings are skipped.
    """
    from gti_diag.document import read
    from gti_train.study.demo import demo_study
    from gti_train.study.plan import RESULTS, plan
    from gti_train.study.running import run_study
    from gti_train.study.stages import forget, run_stages

    changes: dict[str, Any] = {"model": model, "seeds": [seed], "data": {"items": items}, "sids": {"encoder": encoder}}
    if codes:
        changes["sids"]["sizes"] = list(code_sizes(codes))
    if steps is not None:
        changes["grounding"] = {"steps": steps}
    stages = plan(demo_study(changes))
    if fresh:
        forget(out)
        forget(out / RECOMMENDED)
    with stages_bar(stages, quiet) as progress:
        run_stages(stages, out, progress=progress)
    if not quiet:
        from rich.console import Console
        from rich.text import Text

        from gti_diag.render import terminal

        console, report = Console(), out / "report"
        console.print(terminal.summary(read(report / "comparison.json")))
        page = next((report / name for name in ("report.html", "summary.md") if (report / name).is_file()), report)
        console.print(Text.assemble("\nThe report with all figures is in ", (shown(page), "bold")), soft_wrap=True)
    if recommend:
        study = demo_study(changes, recommend=True)
        with stages_bar(plan(study), quiet) as progress:
            run_study(study, out / RECOMMENDED, progress=progress)
        if not quiet:
            show_outcome(out / RECOMMENDED / RESULTS)
