"""gti-train catalogue: any layout to the one that the other commands open."""

from pathlib import Path
from typing import Annotated, Any

import typer

from gti_diag.cli.shell import say
from gti_diag.foreign import presentable

from .app import app
from .options import Columns, LayoutName, Out, Quiet, SkipBad, column_map


@app.command(epilog="Example: gti-train catalogue ml-1m/ --out shop --least-user 5 --least-item 5")
def catalogue(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="The catalogue's folder, or one of its files.")],
    out: Out,
    layout: LayoutName = None,
    columns: Columns = "",
    least_user: Annotated[int, typer.Option(min=0, help="Drop users of fewer events (k-core, with --least-item).")] = 0,
    least_item: Annotated[int, typer.Option(min=0, help="Drop items of fewer events.")] = 0,
    repeats: Annotated[
        str,
        typer.Option(
            metavar="all|first|changes",
            help="Repeats of an item in one history: keep all, the first only, or drop those in a row.",
        ),
    ] = "all",
    skip_bad: SkipBad = False,
    quiet: Quiet = False,
) -> None:
    """Read a catalogue of any known layout, say which and why, and write items.jsonl, histories.jsonl and report.json.

    Known: JSON lines, CSV, TSV and Parquet tables, LC-Rec and LETTER, MiniOneRec, Amazon reviews, MovieLens, Vibrent.
    Codes that a source brings go to codes.json, for `sids --codes-from`.
    """
    import json

    from gti_diag.document import dumps
    from gti_diag.files import write_text
    from gti_train.catalogue import describing, filtering
    from gti_train.catalogue.reading import open_catalogue
    from gti_train.catalogue.writing import write_catalogue

    found = open_catalogue(source, layout=layout, columns=column_map(columns), skip_bad=skip_bad)
    made = filtering.repeats(found.catalogue, repeats)
    if least_user or least_item:
        made = filtering.k_core(made, users=least_user, items=least_item)
    report = describing.report(found, made)
    write_catalogue(made, out)
    codes = {item.id: list(found.codes[item.id]) for item in made.items if item.id in found.codes}
    if codes:
        write_text(out / "codes.json", json.dumps(codes, ensure_ascii=False) + "\n")
    write_text(out / "report.json", dumps(report))
    if not quiet:
        _show(report, out)


def _show(report: dict[str, Any], out: Path) -> None:
    """The numbers as a table, and what was left out."""
    from rich.console import Console
    from rich.table import Table

    console, report = Console(), presentable(report)
    console.print(f"{report['layout']}: {report['why']}", highlight=False, markup=False, soft_wrap=True)
    table = Table(show_header=False, box=None)
    for label, value in _lines(report):
        table.add_row(label, value)
    console.print(table)
    for line in [*report["notes"], *(f"{count} skipped: {kind}" for kind, count in report["skipped"].items())]:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    say(f"written to {out}")


def _lines(report: dict[str, Any]) -> list[tuple[str, str]]:
    def spread(name: str) -> str:
        found = report[name]
        return f"{found['median']:g} (from {found['least']:g} to {found['most']:g})" if found else "none"

    def cold(name: str) -> str:
        split = report["splits"][name]
        if split is None or split["cold_share"] is None:
            return "no such split: no test events" if split else "no such split: the events have no times"
        return f"{split['train']} / {split['valid']} / {split['test']} events, {split['cold_share']:.1%} of tests cold"

    gini = report["popularity_gini"]
    return [
        ("items", f"{report['items']}, {report['items_without_text']} without text, "
                  f"{report['items_without_events']} without events, {report['items_with_codes']} with codes"),
        ("words an item", spread("words_per_item")),
        ("users", f"{report['users']}"),
        ("events", f"{report['events']}, {report['repeated_events']} repeats"),
        ("events a user", spread("history_length")),
        ("events an item", spread("events_per_item") + ("" if gini is None else f", Gini {gini:.2f}")),
        ("leave one out", cold("leave_one_out")),
        ("global time", cold("global_time")),
    ]  # fmt: skip
