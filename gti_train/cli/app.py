"""The application that the commands register on."""

import typer

app = typer.Typer(
    name="gti-train",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="""Give a language model new tokens, and start them where they mean something.

    New tokens usually start at the mean of the vocabulary, all of them as one point. Here they can be
    [bold]grounded[/bold] first: trained on texts about what they stand for, with everything else frozen.

    See it work: [cyan]gti-train demo[/cyan] (about five minutes, nothing to prepare). With data of your own:
    [cyan]sids[/cyan] → [cyan]extend[/cyan] → [cyan]ground[/cyan] → [cyan]sft[/cyan] → [cyan]eval[/cyan]; gti-diag measures
    the embeddings after each. [cyan]run[/cyan] does it all for several starts and seeds, and compares them.""",
    epilog="Exit codes: 0 done, 2 bad usage or input, 130 interrupted. --debug (or GTI_DEBUG=1) shows the traceback of an error.",
)
