"""gti-train sids: from a catalogue to semantic IDs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from gti_diag.cli.shell import say
from gti_diag.errors import InputError

from .app import app
from .options import Columns, Dimensions, Encoder, LayoutName, Out, Quiet, Seed, SkipBad, code_sizes, column_map
from .progress import share_bar


@app.command(epilog="Example: gti-train sids shop/ --out shop/sids --quantiser rq-vae --codes 256,256,256,256")
def sids(
    source: Annotated[
        Path | None, typer.Argument(metavar="ITEMS", help="items.jsonl, or whatever `catalogue` reads.")
    ] = None,
    out: Out = Path("sids"),
    encoder: Encoder = "lsa",
    dimensions: Dimensions = 64,
    quantiser: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="residual-kmeans | faiss-kmeans | balanced-kmeans | product | fsq | rq-vae (the paper's; slower).",
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
    report: Annotated[
        bool, typer.Option("--report", help="Judge the codes: quality.json, .md, .html and figures in OUT.")
    ] = False,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            metavar="A B", help="Make nothing: judge two mappings side by side, and what changes between them."
        ),
    ] = None,
    cluster: Annotated[
        bool,
        typer.Option(
            "--cluster", help="ITEMS is a folder of Parquet shards (item_id, row, vector): map them with Ray."
        ),
    ] = False,
    sample: Annotated[
        int, typer.Option(min=2, help="With --cluster: vectors that the codebooks are fitted on.")
    ] = 200_000,
    workers: Annotated[
        int | None, typer.Option(min=1, help="With --cluster, without RAY_ADDRESS: local workers.")
    ] = None,
    layout: LayoutName = None,
    columns: Columns = "",
    skip_bad: SkipBad = False,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Turn item texts into semantic IDs, from coarse to fine, every item with a code of its own.

    The same seed gives the same codes, whatever the number of threads and the order of the items. Histories beside the
    items are used by --report alone, to judge whether neighbours in code are chosen together.
    """
    from gti_train.catalogue.reading import open_catalogue
    from gti_train.semantic_ids.making import Wanted, make

    if source is None and compare is None:
        raise InputError("name the items: gti-train sids ITEMS --out DIR (or two mappings: --compare A B)")
    settings: dict[str, Any] = {} if epochs is None else {"epochs": epochs}
    if cluster and source is not None:
        fitting = {"quantiser": quantiser, "sizes": code_sizes(codes), "seed": seed, **settings}
        _cluster(source, out, sample=sample, workers=workers, fitting=fitting, quiet=quiet)
        return
    reading: dict[str, Any] = {"layout": layout, "columns": column_map(columns), "skip_bad": skip_bad}
    catalogue = None if source is None else open_catalogue(source, **reading).catalogue
    if compare is not None:
        _compare(compare, catalogue, out, encoder=encoder, dimensions=dimensions, seed=seed, quiet=quiet)
        return
    assert catalogue is not None
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
        made = make(catalogue, wanted, out, codes_from=codes_from, progress=progress)
    if not quiet:
        _say(made.sids, out)
    if report:
        from gti_train.semantic_ids.quality.report import Evidence, quality

        _write([quality(made.sids, Evidence(catalogue, made.vectors, made.quantiser), seed=seed)], out, quiet=quiet)


def _cluster(
    shards: Path, out: Path, *, sample: int, workers: int | None, fitting: dict[str, Any], quiet: bool
) -> None:
    """Codebooks from a sample, codes of all shards in OUT/codes, every item its own."""
    from gti_train.semantic_ids import quantisers
    from gti_train.semantic_ids.cluster import cluster_codes
    from gti_train.semantic_ids.quantiser import save_quantiser
    from gti_train.semantic_ids.shards import sample as drawn
    from gti_train.semantic_ids.shards import shard_files

    with share_bar(quiet) as progress:
        vectors = drawn(shard_files(shards), sample, seed=fitting["seed"])
        made = quantisers.fit(vectors, progress=progress, **fitting).quantiser
    save_quantiser(made, out)
    done = cluster_codes(shards, made, out / "codes", workers=workers)
    if not quiet:
        say(
            f"{done.items} items under {done.prefixes} prefixes, {done.moved_prefixes} moved to another: {out / 'codes'}"
        )
        say(f"a worker holds batches of {done.batch_bytes / 1e6:.1f} MB, or the items of one prefix")


def _compare(
    pair: tuple[Path, Path], catalogue: Any, out: Path, *, encoder: str, dimensions: int, seed: int, quiet: bool
) -> None:
    """Both reports and the churn, in OUT."""
    from gti_train.semantic_ids.quality.mappings import compare
    from gti_train.semantic_ids.vectors import text_vectors

    def encode(texts: Sequence[str]) -> Any:
        return text_vectors(texts, encoder=encoder, dimensions=dimensions, seed=seed, cache=out / "vectors")

    reports, churn = compare(*pair, catalogue, encode, seed=seed)
    _write(reports, out, quiet=quiet, churn=churn)


def _write(reports: list[dict[str, Any]], out: Path, *, quiet: bool, churn: dict[str, Any] | None = None) -> None:
    from gti_diag.render.sids import words, write

    write(reports, out, churn=churn)
    if quiet:
        return
    for report in reports:
        say(f"{words.title(report)}: {report['verdict']['label']}")
        for level in report["levels"]:
            use = f"{level['used']} of {level['size']} codes, perplexity {level['perplexity']:.1f}"
            say(f"  level {level['level']}: {level['verdict']['label'] or 'only tells items apart'} ({use})")
    for depth in (churn or {"depths": []})["depths"]:
        say(f"first {depth['depth']}: {depth['kept']:.1%} of items keep their codes")
    say(f"the report is in {out / 'quality.html'}")


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
