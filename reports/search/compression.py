"""Item tokens of the O*NET study, from its judge (see onet.py). `--work` keeps what is done.

python reports/search/compression.py --data ONET --work WORK --judge JUDGE --candidates WORK/frozen_train.pt --steps 30
"""

import argparse
import json
import time
from pathlib import Path

import torch

from gti_train.search.collection import apart
from gti_train.search.items.stage import make_items
from gti_train.search.items.training import ItemConfig
from gti_train.search.pairs import soft_labels
from gti_train.search.reading import read_collection


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("data", "work", "judge", "candidates"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    dev = read_collection(given.data, "dev")
    whole = read_collection(given.data, "train")
    train = apart(whole, dev)
    labels = soft_labels(train, torch.load(given.candidates)[0].tolist(), seed=given.seed)
    config = ItemConfig(
        slots=3,
        layers=8,
        align=0.0,
        labels=1.0,
        batch=8,
        family=16,
        learning_rate=2e-4,
        warmup=5,
        every=20,
        seed=given.seed,
        steps=given.steps,
    )
    began = time.process_time()

    def tell(record, steps: int) -> None:
        told = {"step": record.step, "of": steps, "loss": record.loss, **record.evaluation}
        print(json.dumps({**told, "processor_s": round(time.process_time() - began, 1)}), flush=True)

    values = make_items(
        given.judge, given.work / "items", train, labels, every=dev, config=config, save_every=10, progress=tell
    )
    print(json.dumps(values), flush=True)


main()
