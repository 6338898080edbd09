"""gti-train search demo: the whole chain on invented products."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from .options import Out, Quiet, Seed
from .search import search
from .search_compression import show_ladder
from .study import stages_bar


@search.command(epilog="Example: gti-train search demo --out runs/search")
def demo(
    out: Out = Path("runs/search"),
    model: Annotated[
        str,
        typer.Option(
            help="Hub id, folder or .gguf file, of which the first 16 layers are taken (default: SmolLM2-135M, from its PyPI wheel)."
        ),
    ] = "",
    smoke: Annotated[
        bool,
        typer.Option("--smoke", help="Every stage, on the first layers of the model, nothing learned: does it run?"),
    ] = False,
    seed: Seed = 0,
    fresh: Annotated[bool, typer.Option("--fresh", help="Redo finished stages.")] = False,
    quiet: Quiet = False,
) -> None:
    """Judge, prune, summarise, teach by two teachers, make item tokens, and climb the ladder, on invented products.

    About 7 minutes on two cores: half of the model's layers, 100 products of three sentences. It shows the chain, not what the
    chain can reach (reports/search has that). Engagement is simulated. Stages that a former run finished are skipped.
    """
    from gti_train.study.search_demo import SMOKE, SearchDemo, search_demo
    from gti_train.study.stages import forget, run_stages

    stages = search_demo(replace(SMOKE if smoke else SearchDemo(), model=model, seed=seed))
    if fresh:
        forget(out)
    with stages_bar(stages, quiet) as progress:
        run_stages(stages, out, progress=progress)
    show_ladder(json.loads((out / "ladder" / "ladder.json").read_text(encoding="utf-8")), out / "ladder")
