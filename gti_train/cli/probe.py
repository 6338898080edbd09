"""gti-train probe: what a model makes of tokens, asked rather than measured."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from gti_diag.errors import InputError

from .app import app
from .options import Batch, Descriptions, Quiet, parse_ids
from .progress import share_bar


@app.command(epilog="Example: gti-train probe ckpt/gti --items shop/items.jsonl --sids shop/sids --out probe.jsonl")
def probe(
    checkpoint: Annotated[
        str, typer.Argument(metavar="CKPT", help="A causal language model: folder, hub id or .gguf.")
    ],
    out: Annotated[Path, typer.Option(help="JSON lines, one a token; a run goes on where an earlier one was.")],
    ids: Annotated[
        str | None, typer.Option(metavar="3,17,40:48", help="Which tokens.", show_default="the new ones")
    ] = None,
    scan: Annotated[Path | None, typer.Option(help="Probe what this scan found instead.")] = None,
    descriptions: Descriptions = None,
    items: Annotated[
        Path | None, typer.Option(help="Catalogue: ask the grounding prompts of items that carry a token.")
    ] = None,
    sids: Annotated[Path | None, typer.Option(help="Folder from `gti-train sids`, for --items.")] = None,
    most: Annotated[int, typer.Option(min=1, help="Tokens probed at most, evenly chosen.")] = 512,
    batch: Batch = 16,
    quiet: Quiet = False,
) -> None:
    """Can the model repeat a token, is it a thing of its own, is it told from its siblings, does it answer for what it stands for?

    Rates are shown beside what the tokens' rows let one expect of them: distinct, crowded (within 1 % of another), dead.
    """
    from gti_train.grounding import probe as asking
    from gti_train.grounding import probe_records
    from gti_train.grounding.repair import read_descriptions
    from gti_train.loop.state import run_name
    from gti_train.model.loading import load_language_model, running_dtype
    from gti_train.model.matrices import matrices

    if ids is not None and scan is not None:
        raise InputError("--ids and --scan both say which tokens: give one of them")
    if (items is None) != (sids is None):
        raise InputError("--items and --sids say together which items carry a token: give both")
    wanted = _wanted(checkpoint, ids, scan)
    texts = read_descriptions(descriptions) if descriptions is not None else {}
    model, tokenizer = load_language_model(checkpoint, dtype=running_dtype(checkpoint))
    rows = matrices(model)["input"]
    if not wanted or max(wanted) >= len(rows):
        raise InputError(
            f"{checkpoint}: no token to probe"
            if not wanted
            else f"--ids {max(wanted)}: the model has rows 0 to {len(rows) - 1}"
        )
    chosen = list(wanted)[:: -(-len(wanted) // most)]
    known = {id: texts[name] for id in chosen if (name := tokenizer.decode([id])) in texts}
    prompts = _prompts(items, sids, tokenizer, chosen) if items is not None and sids is not None else {}
    asked = asking.Asked(chosen, [wanted[id] for id in chosen], known, prompts)
    run = run_name({"model": str(model.config.to_json_string())}, [asked], rows.data[chosen])
    with share_bar(quiet) as show:

        def ask(left: Sequence[int]) -> Iterator[dict[str, Any]]:
            for count, record in enumerate(asking.probe(model, tokenizer, asked, only=left, batch=batch), 1):
                show((len(chosen) - len(left) + count) / len(chosen), str(record["token"]))
                yield record

        records = probe_records.probed(out, run, chosen, ask)
    if not quiet:
        _say(records)


def _say(records: Sequence[Mapping[str, Any]]) -> None:
    from gti_diag.foreign import shown
    from gti_train.grounding.probe_records import by_expectation

    for expected, (count, rates) in by_expectation(records).items():
        typer.echo(f"{count:,} tokens of {expected} rows")
        for question, rate in rates.items():
            if rate is not None:
                low, high = rate["interval"]
                typer.echo(
                    f"  {question}: {rate['value']:.0%} [{low:.0%}, {high:.0%}] of {rate['attempts']:,} attempts"
                )
    worst = [record for record in records if record["repeat"][0] == 0][:8]
    if worst:
        typer.echo(shown("never repeated: " + ", ".join(f"{record['token']} {record['id']}" for record in worst)))


def _wanted(checkpoint: str, ids: str | None, scan: Path | None) -> dict[int, int]:
    """The tokens to ask about, and the level of each: that of new tokens that have one, else 0."""
    from gti_diag.checkpoint import open_checkpoint
    from gti_diag.tokens.groups import partition
    from gti_train.grounding.repair import read_scan

    chosen = parse_ids(ids) if ids is not None else None
    if scan is not None:
        found = read_scan(scan)["matrices"].values()
        chosen = sorted({id for m in found for f in m["findings"] for id in f["ids"] if id not in f["padding"]})
    group = partition(open_checkpoint(checkpoint), scan=False).groups.get("new")
    if group is None and chosen is None:
        raise InputError(f"{checkpoint} has no new tokens: say which to probe with --ids or --scan")
    levels = (
        {}
        if group is None or group.levels is None
        else dict(zip(group.ids.tolist(), group.levels.tolist(), strict=True))
    )
    new = sorted(group.ids.tolist()) if group is not None else []
    return {id: levels.get(id, 0) for id in (new if chosen is None else chosen)}


def _prompts(items: Path, sids: Path, tokenizer: Any, ids: Sequence[int]) -> dict[int, list[list[int]]]:
    from gti_train.catalogue.reading import read_catalogue
    from gti_train.grounding.probe import grounding_prompts
    from gti_train.semantic_ids.files import load_sids

    return grounding_prompts(read_catalogue(items), load_sids(sids), tokenizer, ids)
