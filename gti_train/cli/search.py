"""gti-train search …: a judge of relevance, retrieval, and how good their rankings are."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gti_diag.cli.bundles import unfolded
from gti_diag.cli.shell import say

if TYPE_CHECKING:
    from gti_train.search.collection import Collection

from .app import app
from .options import Dtype, Out, Quiet, RunDtype, SaveEvery, Schedule, Seed, Warmup
from .progress import share_bar

search = typer.Typer(
    name="search",
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Judge, retrieve and rank documents with a small language model, up to items as a few embedding tokens.",
)
app.add_typer(search)

Data = Annotated[
    Path, typer.Option(help="Folder of a collection: documents.jsonl, queries.SPLIT.jsonl, qrels.SPLIT.tsv; or BEIR's.")
]
Split = Annotated[str, typer.Option(help="Which queries and judgements of the collection.")]
HeldOut = Annotated[
    str | None,
    typer.Option(
        "--test", metavar="SPLIT", help="Learn nothing of the documents that this split asks for, nor of their groups."
    ),
]
EncoderName = Annotated[
    str, typer.Option("--encoder", metavar="minilm|DIR|HUB_ID", help="A sentence encoder; minilm lies in its wheel.")
]
Runs = Annotated[list[Path], typer.Argument(metavar="RUN…", help="Rankings, as `retrieve` and `rerank` write them.")]


@dataclass(frozen=True)
class Asked:
    """How a judge is asked."""

    policy: Annotated[Path | None, typer.Option(help="Text file that says what counts as a match.")] = None
    yes: Annotated[str, typer.Option(help="Answer to a match; its first token is read.")] = " Yes"
    no: Annotated[str, typer.Option(help="Answer to anything else; must begin with another token.")] = " No"
    order: Annotated[
        str,
        typer.Option(
            metavar="query-first|document-first",
            help="Which text is run once and shared: the query of many documents, or the document of many queries.",
        ),
    ] = "query-first"
    max_tokens: Annotated[int, typer.Option(min=8, help="Most tokens of a prompt; the document is cut.")] = 512
    document_tokens: Annotated[int | None, typer.Option(min=1, help="Most tokens of a document.")] = None


@dataclass(frozen=True)
class Trained:
    """How judge and retriever train."""

    epochs: Annotated[float, typer.Option(min=0, help="How often each pair is met.")] = 1.0
    batch: Annotated[
        int | None,
        typer.Option(
            "--batch-size",
            min=1,
            help="Families of pairs that share a text, in a step.",
            show_default="8; retriever 12",
        ),
    ] = None
    learning_rate: Annotated[
        float | None, typer.Option("--lr", help="Learning rate of every weight.", show_default="1e-4; retriever 3e-5")
    ] = None
    warmup: Warmup = 10
    schedule: Schedule = "linear"
    save_every: SaveEvery = 0
    seed: Seed = 0
    quiet: Quiet = False

    def given(self) -> dict:
        """The keyword arguments of both configurations; what is not said keeps each one's default."""
        named = {"batch": self.batch, "learning_rate": self.learning_rate}
        return {
            "epochs": self.epochs, "warmup": self.warmup, "schedule": self.schedule, "seed": self.seed,
            **{name: value for name, value in named.items() if value is not None},
        }  # fmt: skip


@search.command(epilog="Example: gti-train search collection --out shop")
def collection(
    out: Out,
    items: Annotated[int, typer.Option(min=81, help="Products.")] = 400,
    queries: Annotated[int, typer.Option(min=10, help="Queries.")] = 600,
    share: Annotated[
        float, typer.Option(min=0.01, max=0.9, help="Share of the shelves that only the test asks for.")
    ] = 0.25,
    seed: Seed = 0,
) -> None:
    """Write a collection to try things on: invented products, queries after them, grades 0-4 that follow from how both were made."""
    from gti_train.search.collection import split, write_collection
    from gti_train.search.world import product_search

    whole = product_search(items=items, queries=queries, seed=seed)
    train, test = split(whole, share=share, seed=seed)
    write_collection({"test": test, "train": whole.asking(train.queries)}, out)
    say(f"{items} products, {len(train.queries)} queries to learn from and {len(test.queries)} to test: {out}")


@search.command(epilog="Example: gti-train search tune --data shop --split train --test test --out runs/encoder")
@unfolded
def tune(
    data: Data, split: Split, out: Out, training: Trained, encoder: EncoderName = "minilm", test: HeldOut = None
) -> None:
    """Tune an encoder for retrieval: InfoNCE with in-batch and mined negatives, and a margin between grades.

    The result is a folder of sentence-transformers. With --save-every, a killed run goes on where it was.
    """
    from gti_train.search.retriever import RetrieverConfig, train_retriever

    learned = learned_part(data, split, test)
    with share_bar(training.quiet) as progress:
        train_retriever(
            encoder, out, collection=learned, config=RetrieverConfig(**training.given()), save_every=training.save_every,
            progress=lambda record, steps: progress(record.step / steps, f"tuning, loss {record.loss:.3g}"),
        )  # fmt: skip
    say(f"tuned on {len(learned.queries)} queries: {out}")


@search.command(
    epilog="Example: gti-train search retrieve --data shop --split test --encoder runs/encoder --out runs/tuned.run"
)
def retrieve(
    data: Data,
    split: Split,
    out: Annotated[Path, typer.Option(help="Run to write, in the format of trec_eval.")],
    encoder: Annotated[
        str, typer.Option(metavar="bm25|minilm|DIR|HUB_ID", help="What ranks all documents.")
    ] = "minilm",
    k: Annotated[int, typer.Option(min=1, help="Documents of each query.")] = 50,
    quiet: Quiet = False,
) -> None:
    """Rank all documents for each query, exactly, and keep the best."""
    from gti_train.search.reading import read_collection
    from gti_train.search.retriever import ranked
    from gti_train.search.runs import write_run

    part = read_collection(data, split)
    with share_bar(quiet) as progress:
        run = ranked(encoder, part, k, progress=lambda share: progress(share, encoder))
    write_run(run, part, out, name=Path(encoder).name)
    say(f"{run.places.shape[1]} documents for each of {len(part.queries)} queries: {out}")


@search.command(
    epilog="Example: gti-train search judge smollm2 --data shop --split train --test test --policy policy.txt --out runs/judge"
)
@unfolded
def judge(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A language model: hub id, folder or .gguf file.")],
    data: Data,
    split: Split,
    out: Out,
    asked: Asked,
    training: Trained,
    encoder: EncoderName = "minilm",
    test: HeldOut = None,
    dtype: Dtype = None,
) -> None:
    """Teach a language model to answer whether a document matches a query, from graded judgements.

    Grades become probabilities of the first answer. Each query is shown with judged documents, with those that --encoder takes
    for relevant, and with any others. What pairs share is computed once. The result is an ordinary checkpoint, with judge.json
    beside it: how it is asked.
    """
    from gti_train.search.judge import JudgeConfig, train_judge
    from gti_train.search.pairs import soft_labels
    from gti_train.search.prompts import POLICY, Wording, read_policy
    from gti_train.search.retriever import mined

    policy = POLICY if asked.policy is None else read_policy(asked.policy)
    wording = Wording(
        policy,
        asked.yes,
        asked.no,
        order=asked.order,
        max_tokens=asked.max_tokens,
        document_tokens=asked.document_tokens,
    )
    learned = learned_part(data, split, test)
    labels = soft_labels(learned, mined(encoder, learned), seed=training.seed)
    with share_bar(training.quiet) as progress:
        train_judge(
            model, out, wording=wording, collection=learned, labels=labels, config=JudgeConfig(**training.given()),
            dtype=dtype, save_every=training.save_every,
            progress=lambda record, steps: progress(record.step / steps, f"teaching, loss {record.loss:.3g}"),
        )  # fmt: skip
    say(f"taught {len(labels)} pairs of {len(learned.queries)} queries: {out}")


@search.command(
    epilog="Example: gti-train search rerank runs/judge runs/tuned.run --data shop --split test --out runs/judged.run"
)
def rerank(
    checkpoint: Annotated[Path, typer.Argument(metavar="JUDGE", help="A checkpoint of `gti-train search judge`.")],
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The documents to score for each query.")],
    data: Data,
    split: Split,
    out: Annotated[Path, typer.Option(help="Run to write, in the format of trec_eval.")],
    dtype: RunDtype = None,
    quiet: Quiet = False,
) -> None:
    """Rank the documents of a run by a judge: log-odds of its two answers, prefill only, what prompts share run once."""
    from gti_train.search.judge import judge_pairs, load_judge
    from gti_train.search.reading import read_collection
    from gti_train.search.runs import read_run, write_run

    part = read_collection(data, split)
    found = read_run(run, part)
    model, prompter = load_judge(checkpoint, dtype=dtype)
    with share_bar(quiet) as progress:
        scores = judge_pairs(model, prompter, part, found.pairs, progress=lambda share: progress(share, "judging"))
    write_run(found.rescored(scores), part, out, name=checkpoint.name)
    say(f"{len(scores)} pairs judged: {out}")


@search.command(
    epilog="Example: gti-train search evaluate runs/tuned.run runs/judged.run --data shop --split test --json runs/quality.json"
)
def evaluate(
    runs: Runs,
    data: Data,
    split: Split,
    k: Annotated[int, typer.Option(min=1, help="How far down rankings count.")] = 10,
    json: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
    seed: Seed = 0,
) -> None:
    """NDCG of rankings with 95 % intervals, and how much each is better than the first.

    Gain is 2^grade − 1, unjudged documents have grade 0. `best` is the share of queries with a document of their best grade
    among the first --k.
    """
    from gti_diag.document import dumps
    from gti_diag.files import write_text
    from gti_train.search.evaluation import quality, report
    from gti_train.search.reading import read_collection
    from gti_train.search.runs import read_run

    part = read_collection(data, split)
    values = {str(path): quality(read_run(path, part).places, part, k=k) for path in runs}
    told = report(values, seed=seed, against=[str(runs[0])])
    if json is not None:
        write_text(json, dumps({"schema": 1, "k": k, "queries": len(part.queries), "runs": told}))
    for name, found in told.items():
        low, high = found["ndcg"]["interval"]
        line = (
            f"{name}: NDCG@{k} {found['ndcg']['value']:.3f} [{low:.3f}, {high:.3f}], best {found['best']['value']:.3f}"
        )
        apart = found.get(f"minus {runs[0]}")
        say(
            line
            if apart is None
            else f"{line}; {apart['ndcg']['value']:+.3f} against {runs[0]} (p = {apart['ndcg']['p']:.4f})"
        )


@search.command(
    epilog="Example: gti-train search agree runs/judge --data cf --split test --like train --judges a.tsv --judges b.tsv"
)
def agree(
    checkpoint: Annotated[Path, typer.Argument(metavar="JUDGE", help="A checkpoint of `gti-train search judge`.")],
    data: Data,
    split: Split,
    like: Annotated[str, typer.Option(metavar="SPLIT", help="Scores become grades in the shares of this split's.")],
    judges: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Judgements of one person; three or more give a ceiling.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
    dtype: RunDtype = None,
) -> None:
    """How well a judge agrees with people on all judged pairs: weighted kappa and Spearman, beside what people reach.

    The ceiling is each person against the rounded mean of the others.
    """
    from dataclasses import asdict

    from gti_diag.document import dumps
    from gti_diag.files import write_text
    from gti_train.search.agreement import ceiling, judge_agreement
    from gti_train.search.judge import load_judge
    from gti_train.search.reading import read_collection, read_judgements

    part = read_collection(data, split)
    people = {path.name: read_judgements(path, part) for path in judges or ()}
    found = {"judge": judge_agreement(*load_judge(checkpoint, dtype=dtype), part, like=read_collection(data, like))}
    found |= {f"person {name}": value for name, value in (ceiling(people) if people else {}).items()}
    if json is not None:
        write_text(json, dumps({"schema": 1, **{name: asdict(value) for name, value in found.items()}}))
    for name, value in found.items():
        say(f"{name}: quadratic κ {value.quadratic_kappa:.3f}, linear κ {value.linear_kappa:.3f}, "
            f"Spearman {value.spearman:.3f} on {value.pairs} pairs")  # fmt: skip


def learned_part(data: Path, split: str, test: str | None) -> "Collection":
    """The part to learn from, without what the test asks for."""
    from gti_train.search.collection import apart
    from gti_train.search.reading import read_collection

    learned = read_collection(data, split)
    return learned if test is None else apart(learned, read_collection(data, test))
