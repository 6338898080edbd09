"""The O*NET study: retrieval and judge on 923 occupations and job titles as workers write them. `--work` keeps what is done.

python reports/search/onet.py --data ONET --work WORK judge|encoder|measure|rerank|label
"""

import argparse
import json
import time
from pathlib import Path

import torch

from gti_diag.document import dumps
from gti_diag.files import write_text
from gti_train.search.bi_encoder import encoded, load_encoder, retrieved
from gti_train.search.bm25 import BM25
from gti_train.search.collection import Collection, apart
from gti_train.search.evaluation import quality, report, reranked
from gti_train.search.judge import JudgeConfig, judge_pairs, load_judge, train_judge
from gti_train.search.pairs import Sampling, sampled_pairs
from gti_train.search.prompts import Wording
from gti_train.search.reading import read_collection
from gti_train.search.retriever import RetrieverConfig, geometry, train_retriever
from gti_train.search.runs import Run, write_run
from gti_train.search.signals import combine

POLICY = "Does the occupation fit the job title?"
WORDING = Wording(
    POLICY, tail="\nMatch:", order="document-first", max_tokens=896
)  # documents whole: 390 tokens in the mean, 828 at most
TOP, JUDGED, ASKED = (
    50,
    20,
    200,
)  # documents that are mined from; documents that the judge reranks, for how many queries


def collections(data: Path) -> tuple[Collection, Collection]:
    """What is learned from, which knows nothing of the 95 occupations that the dev queries are after, and the dev part."""
    dev = read_collection(data, "dev")
    return apart(read_collection(data, "train"), dev), dev


def found_by(name: str, part: Collection, work: Path, label: str, k: int = TOP) -> torch.Tensor:
    """The k documents that an encoder finds for each query, kept in `work`."""
    path = work / f"{label}.pt"
    if not path.is_file():
        encoder = load_encoder(name)
        queries, documents = (encoded(encoder, [x.text for x in xs]) for xs in (part.queries, part.documents))
        torch.save(retrieved(queries, documents, k), path)
    return torch.load(path)[0]


def judge(train: Collection, work: Path, model: str, epochs: float) -> None:
    candidates = found_by("minilm", train, work, "frozen_train")
    pairs = sampled_pairs(train, candidates.tolist(), Sampling(), seed=0)
    labels = [(pair, grade / 4) for pair, grade in pairs]
    print(len(train.documents), "documents,", len(train.queries), "queries,", len(labels), "pairs", flush=True)
    began = time.process_time()

    def tell(record, steps: int) -> None:
        if record.step % 5 == 0:
            told = {"step": record.step, "of": steps, "loss": record.loss, "processor_s": time.process_time() - began}
            print(json.dumps(told), flush=True)

    train_judge(
        model, work / "judge", wording=WORDING, collection=train, labels=labels, config=JudgeConfig(epochs=epochs, learning_rate=1.5e-4, warmup=5, micro_tokens=1024),
        save_every=6, progress=tell,
    )  # fmt: skip
    (work / "judge_cost.json").write_text(json.dumps({"processor_s_of_the_last_run": time.process_time() - began}))


def encoder(train: Collection, work: Path) -> None:
    candidates = found_by("minilm", train, work, "frozen_train")
    began = time.process_time()

    def tell(record, steps: int) -> None:
        if record.step % 10 == 0:
            told = {"step": record.step, "of": steps, "loss": record.loss, "processor_s": time.process_time() - began}
            print(json.dumps(told), flush=True)

    train_retriever(
        "minilm", work / "encoder", collection=train, config=RetrieverConfig(), candidates=candidates.tolist(),
        save_every=20, progress=tell,
    )  # fmt: skip


def halves(dev: Collection) -> torch.Tensor:
    """Which queries settings may be fixed on: those of every third occupation; numbers are of the others, and of all."""
    groups = sorted({group for best in dev.best_groups for group in best})
    tuning = set(groups[::3])
    return torch.tensor([bool(best & tuning) for best in dev.best_groups])


def measure(dev: Collection, work: Path, out: Path) -> None:
    """Every ranking of all documents for all dev queries."""
    texts, titles = [d.text for d in dev.documents], [d.title for d in dev.documents]
    asked = [q.text for q in dev.queries]
    frozen, tuned = load_encoder("minilm"), load_encoder(str(work / "encoder"))
    vectors = {name: encoded(model, texts) for name, model in (("frozen", frozen), ("tuned", tuned))}
    queries = {name: encoded(model, asked) for name, model in (("frozen", frozen), ("tuned", tuned))}
    signals = torch.stack(
        [queries["tuned"] @ vectors["tuned"].T, queries["tuned"] @ encoded(tuned, titles).T, BM25(texts)(asked).float()]
    )
    tuning = halves(dev)
    part = dev.asking(q for q, chosen in zip(dev.queries, tuning.tolist(), strict=True) if chosen)
    combined = combine(("text", "title", "bm25"), signals[:, tuning], part)
    rankings = {
        "bm25": signals[2].sort(dim=1, descending=True, stable=True)[1],
        "frozen MiniLM": (queries["frozen"] @ vectors["frozen"].T).sort(dim=1, descending=True, stable=True)[1],
        "tuned MiniLM": signals[0].sort(dim=1, descending=True, stable=True)[1],
        "combination": combined.top(signals, len(texts)),
    }
    names = ["bm25", "frozen MiniLM"]
    values = {name: quality(places, dev) for name, places in rankings.items()}
    told = {
        "schema": 1,
        "queries": {"all": len(dev.queries), "settings": int(tuning.sum()), "numbers": int((~tuning).sum())},
        "all": report(values, seed=0, against=names),
        "numbers": report({name: v[~tuning] for name, v in values.items()}, seed=0, against=names),
        "weights": dict(zip(combined.names, combined.weights, strict=True)),
        "geometry": {name: geometry(rows) for name, rows in vectors.items()},
    }
    write_text(out / "onet.json", dumps(told))
    torch.save({"places": {name: places[:, :TOP] for name, places in rankings.items()}, "tuning": tuning,
                "cosines": signals[0].gather(1, rankings["tuned MiniLM"][:, :TOP])}, work / "rankings.pt")  # fmt: skip
    for name, found in told["numbers"].items():
        print(
            name, found["ndcg"], f"best {found['best']['value']:.3f}", f"all {told['all'][name]['ndcg']['value']:.3f}"
        )
    print(told["weights"], told["geometry"])


def rerank(dev: Collection, work: Path, out: Path) -> None:
    """The judge on the first documents of the tuned encoder, for some of the queries that no setting was fixed on."""
    kept = torch.load(work / "rankings.pt")
    free = (~kept["tuning"]).nonzero()[:, 0]
    chosen = free[torch.randperm(len(free), generator=torch.Generator().manual_seed(0))[:ASKED]].sort().values
    part = dev.asking(dev.queries[i] for i in chosen.tolist())
    top = Run(kept["places"]["tuned MiniLM"][chosen, :JUDGED], kept["cosines"][chosen, :JUDGED])
    path = work / "judged_dev.pt"
    if not path.is_file():
        model, prompter = load_judge(work / "judge", dtype="bfloat16")
        began = time.process_time()
        scores = judge_pairs(model, prompter, part, top.pairs)
        torch.save({"scores": scores, "processor_s": time.process_time() - began}, path)
    found = torch.load(path)
    by_judge = top.rescored(found["scores"])
    both = standard(found["scores"].view(top.places.shape)) + standard(top.scores)  # equal shares: nothing was fitted
    places = {name: value[chosen] for name, value in kept["places"].items()}
    places |= {"judge": by_judge.places, "judge and similarity": reranked(top.places, both)}
    write_run(by_judge, part, work / "judge.run", name="judge")
    write_run(top, part, work / "tuned.run", name="tuned")
    told = report({name: quality(value, part) for name, value in places.items()}, seed=0, against=list(places)[:3])
    ceiling = quality(reranked(top.places, grades_of(part, top.places)), part)[:, 0].mean()
    about = {
        "queries": len(part.queries),
        "documents": JUDGED,
        "processor_s": found["processor_s"],
        "perfect": float(ceiling),
    }
    write_text(out / "onet_judge.json", dumps({"schema": 1, **about, "rankings": told}))
    for name, value in told.items():
        print(name, value["ndcg"], value.get("minus frozen MiniLM", {}).get("ndcg"))


def grades_of(part: Collection, places: torch.Tensor) -> torch.Tensor:
    relevant = part.relevant
    return torch.tensor([[float(relevant[q].get(d, 0)) for d in row] for q, row in enumerate(places.tolist())])


def standard(scores: torch.Tensor) -> torch.Tensor:
    return (scores - scores.mean(1, keepdim=True)) / scores.std(1, keepdim=True)


def label(train: Collection, work: Path, count: int) -> None:
    """The judge's probabilities of pairs of training queries, for those who learn from it."""
    candidates = found_by("minilm", train, work, "frozen_train")
    pairs = [pair for pair, _ in sampled_pairs(train, candidates.tolist(), Sampling(), seed=1)]
    queries = set(torch.randperm(len(train.queries), generator=torch.Generator().manual_seed(0))[:count].tolist())
    pairs = [pair for pair in pairs if pair[0] in queries]
    model, prompter = load_judge(work / "judge", dtype="bfloat16")
    chances = judge_pairs(model, prompter, train, pairs).sigmoid().tolist()
    lines = [
        json.dumps({"query_id": train.queries[q].id, "doc_id": train.documents[d].id, "p": round(p, 5),
                    "grade": train.relevant[q].get(d, 0)}) + "\n"
        for (q, d), p in zip(pairs, chances, strict=True)
    ]  # fmt: skip
    write_text(work / "labels.train.jsonl", "".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("stage", choices=["judge", "encoder", "measure", "rerank", "label"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("reports/search/results"))
    parser.add_argument("--model", default="HuggingFaceTB/SmolLM2-135M-Instruct")
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--queries", type=int, default=1500, help="training queries that are labelled")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    train, dev = collections(given.data)
    if given.stage == "judge":
        judge(train, given.work, given.model, given.epochs)
    elif given.stage == "encoder":
        encoder(train, given.work)
    elif given.stage == "measure":
        measure(dev, given.work, given.out)
    elif given.stage == "rerank":
        rerank(dev, given.work, given.out)
    else:
        label(train, given.work, given.queries)


main()
