"""The O*NET study's rankers that cost less, from its judge (see onet.py), and what each keeps. OUT keeps what is done.

python reports/search/compression.py items|pruned|summaries|measure|report|speed|figure --data ONET --work WORK --out OUT

WORK holds judge/, frozen_train.pt, judge.run and tuned.run, as onet.py leaves them. Queries are those that the judge was measured on, in
random order, in parts of 20: the first parts are a sample of all.
"""

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from random import Random

import torch

from gti_diag.document import dumps
from gti_diag.files import write_text
from gti_diag.measures.alignment import linear_cka
from gti_diag.measures.rsa import pearson_rsa
from gti_diag.render import climbed
from gti_diag.render.ladder import table
from gti_train.search.collection import Collection, apart
from gti_train.search.evaluation import quality, report, reranked
from gti_train.search.items.stage import make_items
from gti_train.search.items.tokens import load_items
from gti_train.search.items.training import ItemConfig
from gti_train.search.judge import JudgeConfig, load_judge
from gti_train.search.ladder import Rung, climb, document, judged, second_reading
from gti_train.search.pairs import Pair, soft_labels
from gti_train.search.reading import read_collection
from gti_train.search.rungs import TEACHER, Folders
from gti_train.search.rungs import rungs as ladder_rungs
from gti_train.search.runs import Run, read_run
from gti_train.search.students import Pruning, prune_judge, summaries_of
from gti_train.search.summaries import read_summaries

PART = 20  # queries
HEALED, TOGETHER = 256, 16  # documents that a pruned judge is healed on, pairs of each
BUDGET = 48  # tokens of a summary


def learned(given: argparse.Namespace) -> tuple[Collection, list[list[int]], list[tuple[Pair, float]]]:
    """What is learned from, which knows nothing of what the dev queries are after, what MiniLM finds there, and graded pairs."""
    train = apart(read_collection(given.data, "train"), read_collection(given.data, "dev"))
    near = torch.load(given.work / "frozen_train.pt")[0].tolist()
    return train, near, soft_labels(train, near, seed=1)


def asked(given: argparse.Namespace) -> tuple[Collection, Run]:
    """The 200 dev queries in random order, with the judge's ranking of their 20 documents."""
    dev = read_collection(given.data, "dev")
    known = {line.split()[0] for line in (given.work / "judge.run").read_text(encoding="utf-8").splitlines()}
    queries = [query for query in dev.queries if query.id in known]
    Random(0).shuffle(queries)
    part = dev.asking(queries)
    return part, read_run(given.work / "judge.run", part)


def tell() -> Callable:
    began = time.process_time()

    def told(record, steps: int) -> None:
        line = {"step": record.step, "of": steps, "loss": record.loss, **record.evaluation}
        print(json.dumps({**line, "processor_s": round(time.process_time() - began, 1)}), flush=True)

    return told


def items(given: argparse.Namespace) -> None:
    """k vectors a document, from labels alone."""
    train, _, labels = learned(given)
    config = ItemConfig(
        slots=given.tokens, layers=8, align=0.0, labels=1.0, batch=8, family=16, learning_rate=given.rate, warmup=4, every=0,
        steps=given.steps,
    )  # fmt: skip
    source, end = (given.out / "pruned", "-pruned") if given.of_pruned else (given.work / "judge", "")
    values = make_items(
        source, given.out / f"items-{given.tokens}{end}", train, labels,
        every=read_collection(given.data, "dev"), config=config, save_every=5, progress=tell(),
    )  # fmt: skip
    print(json.dumps(values), flush=True)


def pruned(given: argparse.Namespace) -> None:
    """8 of 30 layers and half the neurons go; healed on what the judge says of 16 pairs of each of some documents."""
    train, _, labels = learned(given)
    by_document: dict[int, list[Pair]] = defaultdict(list)
    for pair, _ in labels:
        by_document[pair[1]].append(pair)
    chosen = Random(0).sample(sorted(d for d, pairs in by_document.items() if len(pairs) >= TOGETHER), HEALED)
    pairs = [pair for d in chosen for pair in Random(d).sample(by_document[d], TOGETHER)]
    config = JudgeConfig(
        steps=given.steps, batch=8, family=TOGETHER, learning_rate=given.rate, warmup=4, micro_tokens=2048
    )
    prune_judge(
        given.work / "judge", given.out / "pruned", train, pairs, wanted=Pruning(8, 0.5, 48), config=config,
        save_every=5, progress=tell(),
    )  # fmt: skip


def summaries(given: argparse.Namespace) -> None:
    """Of the documents that the first parts rank, each asked with one training query, or its title where none is for it."""
    train, near, _ = learned(given)
    part, run = asked(given)
    wanted = {part.documents[d].id for d in set(run.places[: given.parts * PART].flatten().tolist())}
    kept = tuple(d for d in part.documents if d.id in wanted)
    grades = {q: {d: g for d, g in row.items() if d in wanted} for q, row in train.judgements.items()}
    small = Collection(kept, train.queries, grades)
    places = [[small.places[train.documents[d].id] for d in row if train.documents[d].id in wanted] for row in near]
    began = time.process_time()
    model, prompter = load_judge(given.work / "judge", dtype="bfloat16")
    found = summaries_of(
        model, prompter, small, places, given.out / "summaries.jsonl", budget=BUDGET, queries=1,
        progress=lambda share: print(f"{share:.3f} {time.process_time() - began:.0f} s", flush=True),
    )  # fmt: skip
    print(len(found), "summaries moved the log-odds by", sum(s.moved for s in found) / len(found))


def rungs(given: argparse.Namespace, part: Collection) -> dict[str, Rung]:
    """Everything that OUT has, by name."""

    @cache
    def loaded(folder: Path):
        return load_judge(folder, dtype="bfloat16")

    judge, small = given.work / "judge", given.out / "pruned"
    prompter = loaded(judge)[1]
    full = [d.text for d in part.documents]
    tokens = [prompter.tokens(f" {text}") for text in full]
    first = {k: [prompter.tokenizer.decode(ids[:k]) for ids in tokens] for k in (BUDGET, 16, 8)}
    path = given.out / "summaries.jsonl"
    known = {s.doc_id: s.text for s in read_summaries(path)} if path.is_file() else {}
    short = [known.get(d.id, "") for d in part.documents]
    text = {
        "judge": (judge, full),
        "pruned": (small, full),
        "summaries": (judge, short),
        "pruned summaries": (small, short),
    }
    text |= {f"first {k}": (judge, texts) for k, texts in first.items()} | {
        f"pruned first {BUDGET}": (small, first[BUDGET])
    }
    found = {n: Rung(n, n, "shared-prefix", lambda f=f: loaded(f), texts=t) for n, (f, t) in text.items() if f.is_dir()}
    for folder in sorted(given.out.glob("items-*")):
        if (folder / "items.json").is_file():
            own = load_items(folder)
            for name, vectors in ((folder.name, own), (f"{folder.name} shuffled", own.shuffled(0))):
                load = lambda f=folder / "ranker": loaded(f)  # noqa: E731
                found[name] = Rung(name, name, "shared-prefix", load, items=vectors)
    return found


def measure(given: argparse.Namespace) -> None:
    """Scores of the rungs asked for, part by part, and the last states of the first part."""
    part, run = asked(given)
    home = given.out / "quality"
    home.mkdir(parents=True, exist_ok=True)
    known = rungs(given, part)
    for number in range(given.parts):
        chosen = slice(number * PART, (number + 1) * PART)
        for name in given.rungs or known:
            path, texts = home / f"{name}.{number}.pt", known[name].texts
            lacks = texts and not all(
                texts[d] for d in run.places[chosen].flatten().tolist()
            )  # no summary of a document
            if path.is_file() or lacks or (name == "judge" and number):
                continue
            began = time.process_time()
            few = part.asking(part.queries[chosen])
            scores, states = judged(known[name], few, run.places[chosen])
            kept = {"scores": scores, "states": states if number == 0 else None}
            torch.save(kept | {"processor_s": time.process_time() - began}, path)
            ndcg = quality(reranked(run.places[chosen], scores), few)[:, 0].mean()
            best = quality(run.places[chosen], few)[:, 0].mean()
            print(f"{name} {number}: {ndcg:.3f}, judge {best:.3f}, {time.process_time() - began:.0f} s", flush=True)


def speed(given: argparse.Namespace) -> None:
    """Items a second of every rung, on a quiet machine; a document's first tokens in the place of a summary."""
    part, run = asked(given)
    prompter = load_judge(given.work / "judge")[1]
    short = given.out / f"first-{BUDGET}.jsonl"
    cut = (prompter.tokenizer.decode(prompter.tokens(f" {d.text}")[:BUDGET]) for d in part.documents)
    lines = ({"doc_id": d.id, "text": text, "moved": 0.0} for d, text in zip(part.documents, cut, strict=True))
    write_text(short, "".join(json.dumps(line) + "\n" for line in lines))
    items = given.out / f"items-{given.tokens}"
    folders = Folders(given.work / "judge", given.out / "pruned", short, items, items.with_name(f"{items.name}-pruned"))
    found, home = ladder_rungs(part, folders), given.out / "ladder"
    wanted = [rung for rung in found if rung.name in (given.rungs or [rung.name])]
    for name in climb(wanted, part, run.places, home, parts=["speed"], items=given.documents):
        print(name, flush=True)
    ladder = document(found, home, teacher=TEACHER)
    write_text(given.results.with_name("ladder_speed.json"), dumps(ladder))
    print(table(ladder))


def figure(given: argparse.Namespace) -> None:
    """Speeds beside the NDCG of the rungs that all queries were asked; both parts have to be there."""
    ladder = json.loads(given.results.with_name("ladder_speed.json").read_text(encoding="utf-8"))
    known = json.loads(given.results.read_text(encoding="utf-8"))["rungs"]
    items = f"items-{given.tokens}"
    values = {TEACHER: known[items]["judge"], "items": known[items], "items-pruned": known[f"{items}-pruned"]}
    for rung in ladder["rungs"]:
        ndcg = values.get(rung["same_scores"] or rung["name"], {}).get("ndcg")
        rung["quality"] = ndcg and {"ndcg": ndcg["value"], "interval": ndcg["interval"]}
    print(*climbed(ladder, given.results.parent.parent / "figures", formats=("png",)))


def told(given: argparse.Namespace) -> None:
    """Every rung over the queries it was asked, beside the judge on the same, and what went with it."""
    part, run = asked(given)
    tuned, found = read_run(given.work / "tuned.run", part), {}
    near = tuned.scores.gather(1, (run.places[:, :, None] == tuned.places[:, None]).int().argmax(2))
    for name in sorted({path.name.rsplit(".", 2)[0] for path in (given.out / "quality").glob("*.pt")} - {"judge"}):
        done = [n for n in range(len(part.queries) // PART) if (given.out / "quality" / f"{name}.{n}.pt").is_file()]
        places = torch.cat([torch.arange(n * PART, (n + 1) * PART) for n in done])
        scores = torch.cat([torch.load(given.out / "quality" / f"{name}.{n}.pt")["scores"] for n in done])
        few = part.asking(part.queries[i] for i in places.tolist())
        close = near[places]
        values = {
            "judge": quality(run.places[places], few),
            "retrieval": quality(reranked(run.places[places], close), few),
            name: quality(reranked(run.places[places], scores), few),
            "with similarity": quality(reranked(run.places[places], standard(scores) + standard(close)), few),
        }  # equal shares: nothing was fitted
        both = report(values, seed=0, against=["judge", "retrieval"])
        share = both[name]["ndcg"]["value"] / both["judge"]["ndcg"]["value"]
        found[name] = {"queries": len(places), **both.pop(name), **both, "share": share, **alike(given, name)}
        if (geometry := given.out / name / "geometry.json").is_file():
            found[name]["geometry"] = json.loads(geometry.read_text(encoding="utf-8"))
            lines = (given.out / name / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
            found[name]["losses"] = [round(json.loads(line)["loss"], 4) for line in lines]
    rows = [
        {"quality": {**v, "ndcg": v["share"]}, "same_scores": None} for n, v in found.items() if "shuffled" not in n
    ]
    reading = second_reading([{"quality": {"ndcg": 1.0, "rsa": 1.0, "cka": 1.0}, "same_scores": None}, *rows])
    write_text(given.results, dumps({"schema": 1, "rungs": found, "second_reading": reading}))
    for name, value in found.items():
        told = {
            key: [round(value[key]["ndcg"]["value"], 3), value[key]["ndcg"].get("interval")]
            for key in ("judge", "retrieval", "with similarity")
        }
        minus = {key: value[key]["ndcg"] for key in value if key.startswith("minus")}
        print(name, value["queries"], value["ndcg"], f"share {value['share']:.3f}", minus, told)
        print(
            "    with similarity", {k: v["ndcg"] for k, v in value["with similarity"].items() if k.startswith("minus")}
        )
    print(reading)


def standard(scores: torch.Tensor) -> torch.Tensor:
    return (scores - scores.mean(1, keepdim=True)) / scores.std(1, keepdim=True)


def alike(given: argparse.Namespace, name: str) -> Mapping[str, float]:
    """RSA and CKA of last states with the judge's, over the pairs of the first part."""
    own, judge = (given.out / "quality" / f"{n}.0.pt" for n in (name, "judge"))
    if not own.is_file() or not judge.is_file():
        return {}
    states, reference = torch.load(own)["states"], torch.load(judge)["states"]
    return {"rsa": pearson_rsa(states, reference), "cka": linear_cka(states, reference, debiased=True)}


def main() -> None:
    stages = {
        "items": items,
        "pruned": pruned,
        "summaries": summaries,
        "measure": measure,
        "report": told,
        "speed": speed,
        "figure": figure,
    }
    parser = argparse.ArgumentParser()
    parser.add_argument("stage", choices=stages)
    for name in ("data", "work", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--results", type=Path, default=Path("reports/search/results/onet_ladder.json"))
    parser.add_argument("--tokens", type=int, default=8)
    parser.add_argument("--of-pruned", action="store_true")
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--rate", type=float, default=1e-4, help="learning rate")
    parser.add_argument("--documents", type=int, default=64, help="that are timed")
    parser.add_argument("--parts", type=int, default=10, help="how many times 20 queries")
    parser.add_argument("--rungs", nargs="*", help="which are asked or timed; all, if none is named")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    stages[given.stage](given)


if __name__ == "__main__":
    main()
