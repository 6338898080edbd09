"""gti-train search prune | summaries | rank | items | encode | ladder: rankers that cost less, and what that costs in quality."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from gti_diag.cli.bundles import unfolded
from gti_diag.cli.shell import say
from gti_diag.foreign import shown

from .options import Out, Quiet
from .progress import share_bar
from .search import Data, EncoderName, HeldOut, Split, Trained, learned_part, search

Judge = Annotated[Path, typer.Argument(metavar="JUDGE", help="A checkpoint of `search judge`, `prune` or `rank`.")]


@dataclass(frozen=True)
class Cut:
    """What is pruned."""

    drop: Annotated[int, typer.Option("--drop-layers", min=0, help="Layers that go: those that change least.")] = 8
    neurons: Annotated[
        float, typer.Option("--keep-neurons", min=0.01, max=1, help="Share of each MLP's neurons that stays.")
    ] = 0.5


@dataclass(frozen=True)
class Vectors:
    """What item tokens are."""

    slots: Annotated[
        int, typer.Option("--tokens", min=1, help="Vectors that stand for a document, at first its first tokens.")
    ] = 8
    layers: Annotated[int, typer.Option("--encoder-layers", min=1, help="First layers of the ranker that encode.")] = 10
    align: Annotated[float, typer.Option(min=0, help="Weight of states like those that text gives.")] = 1.0
    labels: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the labels in what is learned; the rest says the text ranker.")
    ] = 0.5


@dataclass(frozen=True)
class Climbed:
    """With what the ladder is climbed."""

    pruned: Annotated[Path | None, typer.Option(help="From `search prune`.")] = None
    summaries: Annotated[Path | None, typer.Option(help="JSON lines from `search summaries`.")] = None
    items: Annotated[Path | None, typer.Option(help="From `search items`, of the unpruned ranker.")] = None
    items_pruned: Annotated[Path | None, typer.Option(help="From `search items`, of the pruned one.")] = None


@search.command(
    epilog="Example: gti-train search prune runs/judge --data shop --split train --test test --out runs/pruned"
)
@unfolded
def prune(
    judge: Judge, data: Data, split: Split, out: Out, cut: Cut, training: Trained, encoder: EncoderName = "minilm",
    test: HeldOut = None,
) -> None:  # fmt: skip
    """Leave out layers and neurons of a judge, then heal it: it learns what it used to say.

    Neurons go by what their loss costs after the others were fitted again by least squares. The result is a plain checkpoint.
    """
    from gti_train.search.judge import JudgeConfig
    from gti_train.search.pairs import soft_labels
    from gti_train.search.retriever import mined
    from gti_train.search.students import Pruning, prune_judge

    part = learned_part(data, split, test)
    pairs = [pair for pair, _ in soft_labels(part, mined(encoder, part), seed=training.seed)]
    with share_bar(training.quiet) as progress:
        record = prune_judge(
            judge, out, part, pairs, wanted=Pruning(cut.drop, cut.neurons), config=JudgeConfig(**training.given()),
            save_every=training.save_every, progress=lambda r, n: progress(r.step / n, f"healing, loss {r.loss:.3g}"),
        )  # fmt: skip
    say(f"{record['parameters_before']:,} parameters are {record['parameters']:,}: {out}")


@search.command(
    epilog="Example: gti-train search summaries runs/judge --data shop --split train --budget 24 --out runs/summaries.jsonl"
)
def summaries(
    judge: Judge,
    data: Data,
    split: Split,
    out: Annotated[Path, typer.Option(help="JSON lines to write; documents already in it are kept.")],
    budget: Annotated[int, typer.Option(min=1, help="Most tokens of a summary.")] = 48,
    queries: Annotated[int, typer.Option(min=1, help="Queries that a document is asked with.")] = 4,
    encoder: EncoderName = "minilm",
    quiet: Quiet = False,
) -> None:
    """Cut every document to the sentences that the judge's opinion needs, once and offline."""
    from gti_train.search.judge import load_judge
    from gti_train.search.reading import read_collection
    from gti_train.search.retriever import mined
    from gti_train.search.students import summaries_of

    part = read_collection(data, split)
    with share_bar(quiet) as progress:
        found = summaries_of(
            *load_judge(judge), part, mined(encoder, part), out, budget=budget, queries=queries,
            progress=lambda share: progress(share, "summaries"),
        )  # fmt: skip
    moved = sum(summary.moved for summary in found) / len(found)
    say(f"{len(found)} summaries, the judge's log-odds moved by {moved:.2f} in the mean: {out}")


@search.command(
    epilog="Example: gti-train search rank runs/judge --data shop --split train --test test --out runs/ranker"
)
@unfolded
def rank(
    judge: Judge, data: Data, split: Split, out: Out, training: Trained, encoder: EncoderName = "minilm",
    test: HeldOut = None, order: Annotated[str | None, typer.Option(metavar="query-first|document-first", help="Which text prompts begin with.", show_default="the judge's")] = None,
) -> None:  # fmt: skip
    """A ranker taught by two teachers at once: the judge, and what users would do, which is SIMULATED.

    Clicks and applications come from a position-based model over the judgements and a popularity; nobody clicked. A teacher of
    engagement learns from them; the ranker begins as the judge and learns both. OUT.engagement.json says how.
    """
    import torch

    from gti_train.search.engagement import Engagement
    from gti_train.search.judge import JudgeConfig
    from gti_train.search.retriever import mined
    from gti_train.search.students import LEARNED, train_ranker

    part = learned_part(data, split, test)
    candidates = torch.tensor(mined(encoder, part))[:, :LEARNED]
    with share_bar(training.quiet) as progress:
        train_ranker(
            judge, out, part, candidates, config=JudgeConfig(**training.given()), engagement=Engagement(seed=training.seed),
            order=order, save_every=training.save_every,
            progress=lambda r, n: progress(r.step / n, f"two teachers, loss {r.loss:.3g}"),
        )  # fmt: skip
    say(f"taught on {candidates.numel()} pairs, engagement simulated: {out}")


@search.command(
    epilog="Example: gti-train search items runs/judge --data shop --split train --test test --out runs/items"
)
@unfolded
def items(
    judge: Judge, data: Data, split: Split, out: Out, vectors: Vectors, training: Trained, encoder: EncoderName = "minilm",
    test: HeldOut = None,
) -> None:  # fmt: skip
    """Turn every document into a few vectors, and teach a ranker to read them in place of the text; questions keep its order.

    OUT holds the ranker (a plain checkpoint), the encoder, items.safetensors (half precision) and request.json, which asks a
    server that takes embedding overrides. Item tokens that collapse, repeat or are not read are told while they train.
    """
    from gti_train.search.items.stage import make_items
    from gti_train.search.items.training import ItemConfig
    from gti_train.search.pairs import soft_labels
    from gti_train.search.reading import read_collection
    from gti_train.search.retriever import mined

    part = learned_part(data, split, test)
    labels = soft_labels(part, mined(encoder, part), seed=training.seed)
    named = {k: v for k, v in training.given().items() if k in ItemConfig.__dataclass_fields__}
    config = ItemConfig(vectors.slots, vectors.layers, vectors.align, vectors.labels, **named)
    with share_bar(training.quiet) as progress:
        values = make_items(
            judge, out, part, labels, every=read_collection(data, split), config=config, save_every=training.save_every,
            progress=lambda r, n: progress(r.step / n, f"items, loss {r.loss:.3g}"),
        )  # fmt: skip
    say(f"{_told(values)}: {out}")


@search.command(epilog="Example: gti-train search encode runs/items --data shop --split new --out runs/items-new")
def encode(
    items: Annotated[Path, typer.Argument(metavar="ITEMS", help="What `search items` wrote.")],
    data: Data,
    split: Split,
    out: Out,
    quiet: Quiet = False,
) -> None:
    """Vectors of documents that came later, by the encoder that was taught with the ranker; no training.

    OUT holds items.safetensors (documents × vectors × dim, half precision) and items.json (their ids), for the ranker in ITEMS.
    """
    import torch

    from gti_train.model.directories import atomic_directory, check_place
    from gti_train.model.matrices import matrices
    from gti_train.search.items.alarms import alarms, item_geometry
    from gti_train.search.items.tokens import save_items
    from gti_train.search.items.training import load_hybrid, some_rows
    from gti_train.search.reading import read_collection

    check_place(out)
    collection = read_collection(data, split)
    hybrid, _ = load_hybrid(items, dtype=torch.float32)  # multiplied in the fast type, as when it was taught
    with share_bar(quiet) as progress:
        made = hybrid.items(
            collection, progress=lambda share: progress(share, f"{len(collection.documents)} documents")
        )
    values = item_geometry(made.vectors, some_rows(matrices(hybrid.ranker)["input"]))
    with atomic_directory(out) as folder:
        save_items(made, folder)
    say(f"{len(made.ids)} documents, {_told(values)}: {out}")
    for line in alarms(values):
        say(f"warning: {line}", err=True)


def _told(values: Mapping[str, float]) -> str:
    spread, rank = values["dispersion_ratio"], values["effective_rank_centred"]
    return f"spread {spread:.2f} of the vocabulary's, effective rank {rank:.0f}"


@search.command(
    epilog="Example: gti-train search ladder runs/judge runs/tuned.run --data shop --split test --pruned runs/pruned --out runs/ladder"
)
@unfolded
def ladder(
    judge: Judge,
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Documents to rank for each query, from `search retrieve`.")],
    data: Data,
    split: Split,
    out: Out,
    climbed: Climbed,
    parts: Annotated[str, typer.Option(metavar="speed,quality", help="What to measure now; rungs keep what they have.")] = "speed,quality",
    documents: Annotated[int, typer.Option(min=1, help="Documents ranked for the query that is timed.")] = 64,
    top: Annotated[int, typer.Option(min=2, help="Documents of the run that are ranked for each query.")] = 20,
    queries: Annotated[int | None, typer.Option(min=1, help="Queries, evenly chosen.", show_default="all")] = None,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    """Climb from full text, one pair at a time, to item tokens: speed, NDCG and geometry of every rung, one table and figure.

    Every rung's numbers are kept as soon as they are there; the same command goes on, with more folders too. Speeds want a
    quiet machine.
    """
    from gti_train.search.ladder import chosen_queries, climb, document, go_on, write_ladder
    from gti_train.search.reading import read_collection
    from gti_train.search.rungs import TEACHER, Folders, rungs
    from gti_train.search.runs import read_run
    from gti_train.study.stages import fingerprint

    part = read_collection(data, split)
    part, places = chosen_queries(part, read_run(run, part).places, queries=queries, top=top)
    given = Folders(judge, climbed.pruned, climbed.summaries, climbed.items, climbed.items_pruned)
    files = {
        "JUDGE": judge,
        "RUN": run,
        "--data": data,
        **{f"--{k.replace('_', '-')}": v for k, v in vars(climbed).items()},
    }
    asked = {name: fingerprint(path) for name, path in files.items() if path is not None}
    go_on(out, {**asked, "--split": split, "--documents": documents, "--top": top, "--queries": queries})
    found = rungs(part, given)
    wanted = [name.strip() for name in parts.split(",")]
    with share_bar(quiet) as progress:
        for number, name in enumerate(climb(found, part, places, out, parts=wanted, items=documents), 1):
            progress(number / len(found), name)
    told = document(found, out, teacher=TEACHER)
    write_ladder(told, out)
    show_ladder(told, out)


def show_ladder(told: Mapping[str, Any], out: Path) -> None:
    """What a terminal of 80 characters has room for; the rest is in `out`."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from gti_diag.render.ladder import length

    table = Table(box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for name in ("", "items/s", "×", "MB", f"NDCG@{length(told)}, 95 %", "judge's", "RSA"):
        table.add_column(name, justify="right" if name else "left", no_wrap=bool(name))
    for rung in told["rungs"]:
        speed, quality = rung["speed"] or {}, rung["quality"] or {}
        values = [
            (speed.get("items_s"), ".1f"), (rung["over"].get("one-by-one"), ".1f"),
            (speed.get("kept_bytes") and speed["kept_bytes"] / 1e6, ".2f"),
            *((None if rung["same_scores"] else quality.get(name), form) for name, form in (("ndcg", ".3f"), ("share", ".0%"), ("rsa", ".2f"))),
        ]  # fmt: skip
        cells = ["" if value is None else format(value, form).removeprefix("0") for value, form in values]
        if cells[3]:
            cells[3] += " [dim]" + "–".join(f"{end:.2f}".removeprefix("0") for end in quality["interval"]) + "[/dim]"
        table.add_row(shown(rung["title"]), *cells)
    Console().print(table)
    say(
        "×: of one pair at a time; MB: kept of a document. Rows without NDCG have the scores of the row above or below them."
    )
    say(f"all numbers, and the figure: {out}")
