"""gti-train repair: damaged rows of a checkpoint, written anew."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from gti_diag.errors import InputError
from gti_diag.foreign import shown

from .app import app
from .options import Descriptions, Out, Quiet, Seed, parse_ids


@app.command(epilog="Example: gti-train repair ckpt --scan scan.json --rule head --out ckpt-repaired")
def repair(
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="Folder of a safetensors checkpoint.")],
    out: Out,
    rule: Annotated[
        str,
        typer.Option(
            metavar="head|mean|description|copy-of|ground",
            help="What the rows become: the direction of the healthy row on the other side; the mean; the mean row of the token's name or "
            "description; near --like TOKEN; or a description trained for some steps. All at a healthy norm.",
        ),
    ],
    scan: Annotated[
        Path | None, typer.Option(help="What `gti-diag scan --json` wrote.", show_default="scan now")
    ] = None,
    ids: Annotated[str | None, typer.Option(metavar="3,17,40:48", help="These rows of each matrix instead.")] = None,
    kinds: Annotated[
        str | None,
        typer.Option(
            metavar="KIND,…",
            help="Findings to repair.",
            show_default="all but copies, cluster, untrained, old_row_moved",
        ),
    ] = None,
    like: Annotated[str | None, typer.Option(metavar="TOKEN", help="The token of --rule copy-of.")] = None,
    descriptions: Descriptions = None,
    most: Annotated[float, typer.Option(min=0, max=1, help="Largest share of rows to write.")] = 0.01,
    steps: Annotated[int, typer.Option(min=1, help="Training steps of --rule ground.")] = 60,
    link: Annotated[bool, typer.Option("--link", help="Hard-link weight files without a damaged row.")] = False,
    in_place: Annotated[
        bool, typer.Option("--in-place", help="Write into CKPT itself; --out must name it too.")
    ] = False,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Write damaged rows anew; everything else stays bit-identical, and repair.json shows it by hash."""
    from gti_train.grounding import repair as stage

    given: dict[str, Any] = {
        "like": like,
        "most": most,
        "steps": steps,
        "seed": seed,
        "link": link,
        "in_place": in_place,
    }
    if kinds is not None:
        given["kinds"] = chosen_kinds(kinds)
    if ids is not None:
        given["ids"] = parse_ids(ids)
    if scan is not None:
        given["document"] = stage.read_scan(scan)
    if descriptions is not None:
        given["descriptions"] = stage.read_descriptions(descriptions)
    record = stage.repair(checkpoint, out, rule=rule, command=["gti-train", *sys.argv[1:]], **given)
    if not quiet:
        for role, matrix in record["matrices"].items():
            named = ", ".join(f"{row['token']} {row['id']}" for row in matrix["rows"][:8])
            typer.echo(shown(f"{role}: {len(matrix['rows'])} rows by {rule}: {named}"))
        same = sum(file["same"] for file in record["files"].values())
        typer.echo(f"{shown(out)}: {same} of {len(record['files'])} files as they were; what changed is in repair.json")
        if record["left_alone"]:
            typer.echo(f"left alone: {', '.join(record['left_alone'])} (name them with --kinds)")


def chosen_kinds(text: str) -> tuple[str, ...]:
    from gti_train.grounding.repair_plan import ALSO, KINDS

    wanted = tuple(part.strip() for part in text.split(",") if part.strip())
    unknown = next((kind for kind in wanted if kind not in (*KINDS, *ALSO)), None)
    if unknown is not None or not wanted:
        raise InputError(f"--kinds {text!r}: choose some of {', '.join((*KINDS, *ALSO))}")
    return wanted
