"""The O*NET study: retrieval and judge on 923 occupations and job titles as workers write them. `--work` keeps what is done.

python reports/search/onet.py --data ONET --work WORK judge|encoder|measure
"""

import argparse
import json
import time
from pathlib import Path

import torch

from gti_train.search.bi_encoder import encoded, load_encoder, retrieved
from gti_train.search.collection import Collection, apart
from gti_train.search.judge import JudgeConfig, train_judge
from gti_train.search.pairs import Sampling, sampled_pairs
from gti_train.search.prompts import Wording
from gti_train.search.reading import read_collection
from gti_train.search.retriever import RetrieverConfig, train_retriever

POLICY = "Does the occupation fit the job title?"
WORDING = Wording(POLICY, tail="\nMatch:", order="document-first", max_tokens=192, document_tokens=112)
TOP = 50


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
        save_every=10, progress=tell,
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


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("stage", choices=["judge", "encoder"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--model", default="HuggingFaceTB/SmolLM2-135M-Instruct")
    parser.add_argument("--epochs", type=float, default=1.0)
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    train, _ = collections(given.data)
    if given.stage == "judge":
        judge(train, given.work, given.model, given.epochs)
    else:
        encoder(train, given.work)


main()
