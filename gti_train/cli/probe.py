"""gti-train probe: what a model makes of tokens, asked rather than measured."""

from pathlib import Path
from typing import Annotated

import typer

from gti_diag.errors import InputError

from .app import app
from .options import Batch, Descriptions, Quiet, parse_ids


@app.command(epilog="Example: gti-train probe ckpt/gti --out probe.jsonl")
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
    most: Annotated[int, typer.Option(min=1, help="Tokens probed at most, evenly chosen.")] = 512,
    batch: Batch = 16,
    quiet: Quiet = False,
) -> None:
    """Can the model repeat a token, is it a thing of its own, is it told from its siblings, does it answer to its description?"""
    from gti_diag.foreign import shown
    from gti_train.grounding import probe as asking
    from gti_train.grounding.repair import read_descriptions, read_scan
    from gti_train.model.loading import load_language_model
    from gti_train.model.matrices import matrices

    if ids is not None and scan is not None:
        raise InputError("--ids and --scan both say which tokens: give one of them")
    texts = read_descriptions(descriptions) if descriptions is not None else {}
    chosen = parse_ids(ids) if ids is not None else None
    if scan is not None:
        found = read_scan(scan)["matrices"].values()
        chosen = sorted({id for m in found for f in m["findings"] for id in f["ids"] if id not in f["padding"]})
    model, tokenizer = load_language_model(checkpoint)
    wanted = chosen if chosen is not None else _new(checkpoint)
    rows = len(matrices(model)["input"])
    if not wanted or max(wanted) >= rows:
        raise InputError(
            f"{checkpoint}: no token to probe"
            if not wanted
            else f"--ids {max(wanted)}: the model has rows 0 to {rows - 1}"
        )
    wanted = wanted[:: -(-len(wanted) // most)]
    known = {id: texts[name] for id in wanted if (name := tokenizer.decode([id])) in texts}
    records = asking.probed(
        out, wanted, lambda left: asking.probe(model, tokenizer, left, descriptions=known, batch=batch)
    )
    if not quiet:
        for question, rate in asking.rates(records).items():
            if rate is not None:
                low, high = rate["interval"]
                typer.echo(f"{question}: {rate['value']:.0%} [{low:.0%}, {high:.0%}] of {rate['attempts']:,} attempts")
        worst = [record for record in records if record["repeat"][0] == 0][:8]
        if worst:
            typer.echo(shown("never repeated: " + ", ".join(f"{record['token']} {record['id']}" for record in worst)))


def _new(checkpoint: str) -> list[int]:
    from gti_diag.checkpoint import open_checkpoint
    from gti_diag.tokens.groups import partition

    group = partition(open_checkpoint(checkpoint), scan=False).groups.get("new")
    if group is None:
        raise InputError(f"{checkpoint} has no new tokens: say which to probe with --ids or --scan")
    return sorted(group.ids.tolist())
