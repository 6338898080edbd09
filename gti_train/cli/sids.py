"""gti-train sids: from a catalogue to semantic IDs."""

from pathlib import Path
from typing import Annotated, Any

import typer

from gti_diag.cli.shell import say

from .app import app
from .options import Columns, Dimensions, Encoder, LayoutName, Out, Quiet, Seed, SkipBad, code_sizes, column_map
from .progress import share_bar


@app.command(epilog="Example: gti-train sids shop/ --out shop/sids --quantiser rq-vae --codes 256,256,256,256")
def sids(
    source: Annotated[Path, typer.Argument(metavar="ITEMS", help="items.jsonl, or whatever `catalogue` reads.")],
    out: Out,
    encoder: Encoder = "lsa",
    dimensions: Dimensions = 64,
    quantiser: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="residual-kmeans | balanced-kmeans | product | fsq | rq-vae (the paper's; slower)."
        ),
    ] = "residual-kmeans",
    codes: Annotated[str, typer.Option(metavar="N,N,…", help="Codes on each level, coarse to fine.")] = "48,24,24",
    unique: Annotated[
        str,
        typer.Option(
            metavar="no|assign|sinkhorn|extra-level",
            help="One item a code: by the cheapest other last code, the same after evening out the last level, "
            "or by a level more that only counts.",
        ),
    ] = "assign",
    codes_from: Annotated[
        Path | None, typer.Option(help="Take codes from here instead: codes.json, X.index.json, info.txt, sids.json.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs of rq-vae.")] = None,
    layout: LayoutName = None,
    columns: Columns = "",
    skip_bad: SkipBad = False,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Turn item texts into semantic IDs, from coarse to fine, every item with a code of its own.

    The same seed gives the same codes, whatever the number of threads and the order of the items.
    """
    from gti_train.catalogue.reading import open_catalogue
    from gti_train.semantic_ids.making import Wanted, make

    found = open_catalogue(source, layout=layout, columns=column_map(columns), skip_bad=skip_bad)
    settings: dict[str, Any] = {} if epochs is None else {"epochs": epochs}
    wanted = Wanted(
        encoder=encoder,
        dimensions=dimensions,
        quantiser=quantiser,
        sizes=code_sizes(codes),
        unique=unique,
        seed=seed,
        settings=settings,
    )
    with share_bar(quiet) as progress:
        made = make(found.catalogue, wanted, out, codes_from=codes_from, progress=progress)
    if not quiet:
        _say(made.sids, out)


def _say(sids: Any, out: Path) -> None:
    """What was made, and whether every item is its own."""
    from gti_train.semantic_ids.uniqueness import collisions

    found, moves = collisions(sids), sids.made.get("moves")
    say(f"{found.items} items, {len(sids.tokens)} code tokens: {out / 'sids.json'}")
    shared = f"{found.rate:.1%} of items add no code of their own; at most {found.largest} share one"
    say("every item has its own code" if found.largest == 1 else f"{shared} (--unique assign separates them)")
    if moves and moves["moved"]:
        rise = (
            "" if moves["error_rise"] is None else f", which adds {moves['error_rise']:.2%} to the error of all items"
        )
        say(f"{moves['moved']} items moved to another code, {moves['moved_prefixes']} to another prefix{rise}")
