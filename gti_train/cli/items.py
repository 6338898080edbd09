"""gti-train world: the embedded catalogue."""

from typing import Annotated

import typer

from gti_diag.cli.shell import say

from .app import app
from .options import Out, Seed


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
