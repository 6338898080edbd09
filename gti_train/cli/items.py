"""gti-train world and sids: catalogues and their semantic IDs."""

from typing import Annotated, Any

import typer

from gti_diag.cli.shell import say

from .app import app
from .options import Dimensions, Encoder, Items, Out, Seed, code_sizes


@app.command(epilog="Example: gti-train world --out shop/    then: gti-train sids shop/items.jsonl --out shop/sids")
def world(
    out: Out,
    items: Annotated[int, typer.Option(min=1, help="How many products.")] = 800,
    users: Annotated[int, typer.Option(min=0, help="How many users with histories.")] = 400,
    seed: Seed = 0,
) -> None:
    """Write the embedded product catalogue: items.jsonl and histories.jsonl, the format that `sids` reads."""
    from gti_train.catalogue.world import product_world
    from gti_train.catalogue.writing import write_catalogue

    for path in write_catalogue(product_world(items=items, users=users, seed=seed), out):
        say(path)


@app.command(epilog="Example: gti-train sids shop/items.jsonl --out shop/sids --codes 48,24,24")
def sids(
    items: Items,
    out: Out,
    encoder: Encoder = "lsa",
    dimensions: Dimensions = 64,
    codes: Annotated[str, typer.Option(metavar="N,N,…", help="Codes on each level, coarse to fine.")] = "48,24,24",
    distinct: Annotated[
        bool, typer.Option("--distinct", help="Give every item codes of its own by changing its last one.")
    ] = False,
    seed: Seed = 0,
) -> None:
    """Turn item texts into semantic IDs, from coarse to fine, by residual k-means."""
    from gti_train.catalogue.reading import read_catalogue
    from gti_train.semantic_ids.files import save_sids
    from gti_train.semantic_ids.quantisers import semantic_ids
    from gti_train.semantic_ids.uniqueness import collisions

    options: dict[str, Any] = {
        "encoder": encoder,
        "dimensions": dimensions,
        "sizes": code_sizes(codes),
        "distinct": distinct,
    }
    made = semantic_ids(read_catalogue(items), **options, seed=seed)
    path = save_sids(made, out)
    found = collisions(made)
    say(f"{found.items} items, {len(made.tokens)} code tokens: {path}")
    shared = f"{found.rate:.1%} of items add no code of their own; at most {found.largest} share one"
    say("every item has its own code" if found.largest == 1 else f"{shared} (--distinct separates them)")
