"""The application that the commands register on."""

import typer

app = typer.Typer(
    name="gti-diag",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="""What happened to the embedding rows of a language-model checkpoint?

    It reads the embedding rows (never the model), measures them, and says [bold]collapsed, degenerate, unstructured or healthy[/bold],
    with the evidence.

    Start here: [cyan]gti-diag analyze CKPT[/cyan] with a checkpoint folder, file or hub id.""",
    epilog="Exit codes: 0 done or pass, 1 `check` or `scan --fail-on` found something, 2 bad usage or input, 130 interrupted. --debug (or GTI_DEBUG=1) shows the traceback of an error.",
)
