"""gti-train search …: the commands of semantic search."""

import typer

from .app import app

search = typer.Typer(
    name="search",
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Judge, retrieve and rank documents with a small language model, up to items as a few embedding tokens.",
)
app.add_typer(search)
