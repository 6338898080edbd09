"""gti-train sids: from a catalogue to semantic IDs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from gti_diag.cli.bundles import unfolded
from gti_diag.cli.shell import say
from gti_diag.errors import InputError

from .app import app
from .options import Columns, Dimensions, Encoder, LayoutName, Out, Quiet, Seed, SkipBad, code_sizes, column_map
from .progress import share_bar


@dataclass(frozen=True)
class Vectors:
    """What items are told apart by."""

    encoder: Encoder = "lsa"
    dimensions: Dimensions = 64


@dataclass(frozen=True)
class Codes:
    """How vectors become codes."""

    quantiser: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="residual-kmeans | faiss-kmeans | balanced-kmeans | product | fsq | rq-vae (the paper's; slower).",
        ),
    ] = "residual-kmeans"
    codes: Annotated[str, typer.Option(metavar="N,N,…", help="Codes on each level, coarse to fine.")] = "48,24,24"
    unique: Annotated[
        str,
        typer.Option(
            metavar="no|assign|sinkhorn|extra-level",
            help="One item a code: by the cheapest other last code, the same after evening out the last level, "
            "or by a level more that only counts.",
        ),
    ] = "assign"
    codes_from: Annotated[
        Path | None, typer.Option(help="Take codes from here instead: codes.json, X.index.json, info.txt, sids.json.")
    ] = None
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs of rq-vae.")] = None
    seed: Seed = 0

    def settings(self) -> dict[str, Any]:
        """The quantiser's own."""
        return {} if self.epochs is None else {"epochs": self.epochs}


@dataclass(frozen=True)
class Judged:
    """Whether codes are any good."""

    report: Annotated[
        bool, typer.Option("--report", help="Judge the codes: quality.json, .md, .html and figures in OUT.")
    ] = False
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            metavar="A B", help="Make nothing: judge two mappings side by side, and what changes between them."
        ),
    ] = None


@dataclass(frozen=True)
class Workers:
    """Past one machine."""

    cluster: Annotated[
        bool,
        typer.Option(
            "--cluster", help="ITEMS is a folder of Parquet shards (item_id, row, vector): map them with Ray."
        ),
    ] = False
    sample: Annotated[int, typer.Option(min=2, help="With --cluster: vectors that the codebooks are fitted on.")] = (
        200_000
    )
    workers: Annotated[int | None, typer.Option(min=1, help="With --cluster, without RAY_ADDRESS: local workers.")] = (
        None
    )


@dataclass(frozen=True)
class Reading:
    """How the catalogue is read."""

    layout: LayoutName = None
    columns: Columns = ""
    skip_bad: SkipBad = False


@app.command(epilog="Example: gti-train sids shop/ --out shop/sids --quantiser rq-vae --codes 256,256,256,256")
@unfolded
def sids(
    vectors: Vectors,
    codes: Codes,
    judged: Judged,
    workers: Workers,
    reading: Reading,
    source: Annotated[
        Path | None, typer.Argument(metavar="ITEMS", help="items.jsonl, or whatever `catalogue` reads.")
    ] = None,
    out: Out = Path("sids"),
    quiet: Quiet = False,
) -> None:
    """Turn item texts into semantic IDs, from coarse to fine, every item with a code of its own.

    The same seed gives the same codes, whatever the number of threads and the order of the items. Histories beside the
    items are used by --report alone, to judge whether neighbours in code are chosen together.
    """
    if source is None and judged.compare is None:
        raise InputError("name the items: gti-train sids ITEMS --out DIR (or two mappings: --compare A B)")
    if workers.cluster and source is not None:
        _cluster(source, out, codes, workers, quiet=quiet)
        return
    catalogue = None if source is None else _opened(source, reading)
    if judged.compare is not None:
        _compare(judged.compare, catalogue, out, vectors, seed=codes.seed, quiet=quiet)
    else:
        _make(catalogue, out, vectors, codes, report=judged.report, quiet=quiet)


def _opened(source: Path, reading: Reading) -> Any:
    from gti_train.catalogue.reading import open_catalogue

    columns = column_map(reading.columns)
    return open_catalogue(source, layout=reading.layout, columns=columns, skip_bad=reading.skip_bad).catalogue


def _make(catalogue: Any, out: Path, vectors: Vectors, codes: Codes, *, report: bool, quiet: bool) -> None:
    """The codes, in OUT, and the report on them where it is asked for."""
    from gti_train.semantic_ids.making import Wanted, make
    from gti_train.semantic_ids.quality.report import Evidence, quality

    wanted = Wanted(
        encoder=vectors.encoder,
        dimensions=vectors.dimensions,
        quantiser=codes.quantiser,
        sizes=code_sizes(codes.codes),
        unique=codes.unique,
        seed=codes.seed,
        settings=codes.settings(),
    )
    with share_bar(quiet) as progress:
        made = make(catalogue, wanted, out, codes_from=codes.codes_from, progress=progress)
    if not quiet:
        _say(made.sids, out)
    if report:
        evidence = Evidence(catalogue, made.vectors, made.quantiser)
        _write([quality(made.sids, evidence, seed=codes.seed)], out, quiet=quiet)


def _cluster(shards: Path, out: Path, codes: Codes, workers: Workers, *, quiet: bool) -> None:
    """Codebooks from a sample, codes of all shards in OUT/codes, every item its own."""
    from gti_train.semantic_ids.cluster import cluster_codes
    from gti_train.semantic_ids.quantiser import save_quantiser
    from gti_train.semantic_ids.quantisers import fit
    from gti_train.semantic_ids.shards import sample, shard_files

    sizes = code_sizes(codes.codes)
    with share_bar(quiet) as progress:
        rows = sample(shard_files(shards), workers.sample, seed=codes.seed)
        options: dict[str, Any] = {"sizes": sizes, "seed": codes.seed, "progress": progress, **codes.settings()}
        made = fit(rows, quantiser=codes.quantiser, **options).quantiser
    save_quantiser(made, out)
    done = cluster_codes(shards, made, out / "codes", workers=workers.workers)
    if not quiet:
        moved = f"{done.moved_prefixes} moved to another"
        say(f"{done.items} items under {done.prefixes} prefixes, {moved}: {out / 'codes'}")
        say(f"a worker holds batches of {done.batch_bytes / 1e6:.1f} MB, or the items of one prefix")


def _compare(pair: tuple[Path, Path], catalogue: Any, out: Path, vectors: Vectors, *, seed: int, quiet: bool) -> None:
    """Both reports and the churn, in OUT."""
    from gti_train.semantic_ids.quality.mappings import compare
    from gti_train.semantic_ids.vectors import text_vectors

    def encode(texts: Sequence[str]) -> Any:
        options: dict[str, Any] = {"encoder": vectors.encoder, "dimensions": vectors.dimensions, "seed": seed}
        return text_vectors(texts, **options, cache=out / "vectors")

    reports, churn = compare(*pair, catalogue, encode, seed=seed)
    _write(reports, out, quiet=quiet, churn=churn)


def _write(reports: list[dict[str, Any]], out: Path, *, quiet: bool, churn: dict[str, Any] | None = None) -> None:
    """The report's files, and its verdicts in words."""
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
