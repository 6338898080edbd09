"""Two arms over several studies' tables, each person once: the mean over seeds, then over tables; recall@10, paired.

python reports/studies/pooled.py gti random reports/studies/office/results reports/studies/office-held-out/results
"""

import sys
from collections import defaultdict
from pathlib import Path

import torch

from gti_train.recommend.significance import difference
from gti_train.study.results import read_results


def main(arm: str, other: str, *folders: str) -> None:
    people = defaultdict(list)
    for folder in folders:
        found = read_results(Path(folder))
        one, two, seeds = found.users(arm), found.users(other), defaultdict(list)
        for seed, user in one.keys() & two.keys():
            seeds[user].append((one[seed, user]["recall@10"], two[seed, user]["recall@10"]))
        for user, pairs in seeds.items():
            people[user].append(torch.tensor(pairs, dtype=torch.float64).mean(0))
    values = torch.stack([torch.stack(people[user]).mean(0) for user in sorted(people)])
    apart = difference(values[:, :1], values[:, 1:], seed=0)
    low, high = apart.interval[0].tolist()
    means = values.mean(0).tolist()
    print(
        f"{len(values)} people: {arm} {means[0]:.3f}, {other} {means[1]:.3f}, {float(apart.mean[0]):+.3f} [{low:+.3f}, {high:+.3f}], p {float(apart.p[0]):.4f}"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
