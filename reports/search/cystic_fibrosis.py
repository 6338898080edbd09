"""What people reach: four judges on 4,812 pairs of Cystic Fibrosis, and, where a model is named, what it reaches after training.

python reports/search/cystic_fibrosis.py --data DIR --json FILE [--model CHECKPOINT --work WORK --epochs 2]

A third of the queries and half of the documents are held out: training knows pairs of neither, the comparison is over pairs of both.
"""

import argparse
import json
import re
import time
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from random import Random
from xml.etree import ElementTree

import torch
from scipy.stats import spearmanr

from gti_diag.document import dumps
from gti_diag.files import write_text
from gti_train.search.agreement import agreement, ceiling, graded, rounded_mean
from gti_train.search.bi_encoder import encoded, load_encoder
from gti_train.search.bm25 import BM25
from gti_train.search.collection import Collection, Document, Query
from gti_train.search.judge import JudgeConfig, judge_pairs, load_judge, train_judge
from gti_train.search.prompts import Wording

LETTERS = "abcd"
WORDING = Wording(
    "Does the abstract answer the question?",
    tail="\nMatch:",
    order="document-first",
    max_tokens=256,
    document_tokens=160,
)


def read(folder: Path) -> tuple[Collection, dict[str, torch.Tensor]]:
    """The collection with the rounded mean of the four grades, and each judge's grades of its pairs; a pair whose grades are not
    four digits (a slip of the file) is left out."""
    documents = []
    for path in sorted(folder.glob("cf7*.xml")):
        for record in ElementTree.parse(path).getroot():
            text = record.findtext("ABSTRACT") or record.findtext("EXTRACT") or ""
            identifier, title = str(int(record.findtext("RECORDNUM"))), record.findtext("TITLE")
            documents.append(Document(identifier, _plain(title), _plain(text), identifier))
    queries, judged, grades = [], {}, []
    for record in ElementTree.parse(folder / "cfquery.xml").getroot():
        number = str(int(record.findtext("QueryNumber")))
        given = {i.text: [int(c) for c in i.get("score")] for i in record.find("Records") if len(i.get("score")) == 4}
        queries.append(Query(number, _plain(record.findtext("QueryText"))))
        judged[number] = {d: int(sum(four) / 4 + 0.5) for d, four in given.items()}
        grades += given.values()
    judges = dict(zip(LETTERS, torch.tensor(grades).T, strict=True))
    return Collection(tuple(documents), tuple(queries), judged), judges


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def trained(collection: Collection, judges: dict[str, torch.Tensor], given: argparse.Namespace) -> dict:
    """A judge taught the mean grade of its pairs, beside people, similarity and BM25 on pairs that none of them saw."""
    rng = Random(0)
    queries = set(rng.sample(range(len(collection.queries)), len(collection.queries) // 3))
    documents = set(rng.sample(range(len(collection.documents)), len(collection.documents) // 2))
    pairs = [(query, place) for query, judged in enumerate(collection.relevant) for place in judged]
    means = torch.stack(list(judges.values())).double().mean(0) / 2
    learned = [i for i, (q, d) in enumerate(pairs) if q not in queries and d not in documents]
    asked = [i for i, (q, d) in enumerate(pairs) if q in queries and d in documents]
    labels = [(pairs[i], float(means[i])) for i in learned]
    config = JudgeConfig(epochs=given.epochs, batch=16, learning_rate=1e-4, warmup=5, micro_tokens=1024)
    began = time.process_time()
    if not (given.work / "judge").is_dir():
        train_judge(
            given.model, given.work / "judge", wording=WORDING, collection=collection, labels=labels, config=config,
            save_every=5, progress=lambda r, n: print(r.step, n, r.loss, flush=True),
        )  # fmt: skip
    wanted, known = [pairs[i] for i in asked], rounded_mean(list(judges.values()))
    texts, questions = [d.text for d in collection.documents], [q.text for q in collection.queries]
    encoder = load_encoder("minilm")
    vectors, near = encoded(encoder, texts), encoded(encoder, questions)
    words = BM25(texts)(questions)
    scores = {
        "trained judge": judge_pairs(*load_judge(given.work / "judge", dtype="bfloat16"), collection, wanted),
        "MiniLM": torch.stack([near[q] @ vectors[d] for q, d in wanted]),
        "BM25": torch.tensor([float(words[q][d]) for q, d in wanted]),
    }
    found = {}
    for name, values in scores.items():
        against = agreement(graded(values, known[learned]), known[asked])
        found[name] = asdict(against) | {"spearman": float(spearmanr(values, known[asked]).statistic)}
    people = {name: asdict(value) for name, value in ceiling({n: g[asked] for n, g in judges.items()}).items()}
    told = {"learned pairs": len(learned), "pairs": len(asked), "processor_s": time.process_time() - began}
    return {**told, "epochs": given.epochs, "against the rounded mean": found, "people, one against the others": people}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--model", help="a checkpoint to teach")
    parser.add_argument("--work", type=Path)
    parser.add_argument("--epochs", type=float, default=2.0)
    given = parser.parse_args()
    collection, judges = read(given.data)
    pairs = {f"{a} and {b}": asdict(agreement(judges[a], judges[b])) for a, b in combinations(LETTERS, 2)}
    found = {
        "schema": 1,
        "documents": len(collection.documents),
        "queries": len(collection.queries),
        "pairs": pairs,
        "one against the mean of the others": {name: asdict(value) for name, value in ceiling(judges).items()},
        "grades of the rounded mean": torch.bincount(rounded_mean(list(judges.values()))).tolist(),
    }
    if given.model:
        found["trained"] = trained(collection, judges, given)
        print(json.dumps(found["trained"], indent=1))
    write_text(given.json, dumps(found))
    for name, value in found["one against the mean of the others"].items():
        print(name, value)


main()
