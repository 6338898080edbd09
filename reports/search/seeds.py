"""The search demonstration under several seeds, with more kinds of item tokens: does geometry say what a rung keeps? WORK keeps what is done.

python reports/search/seeds.py --work WORK [--seeds 0 1 2] [--results FILE]

Each seed has products, queries, a judge and everything made of it of its own. Rungs rerank what BM25 finds for all queries of the test.
"""

import argparse
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from scipy.stats import rankdata

from gti_diag.document import dumps
from gti_diag.files import atomic, write_text
from gti_diag.measures.alignment import linear_cka
from gti_diag.measures.rsa import pearson_rsa
from gti_diag.render.style import METADATA, canvas, colour, using
from gti_train.recommend.significance import difference, interval
from gti_train.search.collection import Collection, apart
from gti_train.search.items.stage import make_items
from gti_train.search.items.tokens import load_items
from gti_train.search.items.training import GEOMETRY, RANKER, ItemConfig
from gti_train.search.judge import load_judge
from gti_train.search.ladder import Rung, climb
from gti_train.search.pairs import soft_labels
from gti_train.search.reading import read_collection
from gti_train.search.retriever import ranked
from gti_train.search.rungs import TEACHER, Folders, rungs
from gti_train.study.search_demo import SearchDemo, search_demo
from gti_train.study.stages import run_stages

VARIANTS = {  # of the item tokens that the demonstration makes: 8, labels and the judge's opinion in equal shares, aligned
    "items-1": {"slots": 1},
    "items-2": {"slots": 2},
    "items-4": {"slots": 4},
    "items-16": {"slots": 16},
    "items-labels": {"labels": 1.0, "align": 0.0},
}
SLOTS = {1: "items-1", 2: "items-2", 4: "items-4", 8: "items", 16: "items-16"}
SHUFFLED = "items-shuffled"
TEXT = {TEACHER: "judge, whole text", SHUFFLED: "8 vectors of other items"}
LEFT_OUT = {"ranker", "ladder"}  # stages: the one is no rung, the other is climbed here, by quality alone
DRAWS = 9999


def made(config: SearchDemo, home: Path) -> None:
    """Everything that rungs of one seed are made of."""
    stages = [stage for stage in search_demo(config) if stage.output not in LEFT_OUT]
    run_stages(
        stages, home, progress=lambda stage, share, detail: share == 1 and print(home.name, stage.title, flush=True)
    )
    part = apart(read_collection(home / "collection", "train"), read_collection(home / "collection", "test"))
    labels = soft_labels(part, ranked("bm25", part, config.found).places.tolist(), seed=config.seed)
    steps = round(0.7 * config.steps)  # as the demonstration's own
    usual = ItemConfig(
        steps=steps, layers=config.encoder_layers, batch=config.batch, family=config.family, warmup=2, every=steps, seed=config.seed
    )  # fmt: skip
    for name, changes in VARIANTS.items():
        if not (home / name / GEOMETRY).is_file():  # written last
            whole = read_collection(home / "collection", "test")
            make_items(home / "judge", home / name, part, labels, every=whole, config=replace(usual, **changes))
            print(home.name, name, flush=True)


def measured(config: SearchDemo, home: Path) -> dict[str, dict]:
    """NDCG of each query and last states, by rung."""
    test = read_collection(home / "collection", "test")
    places = ranked("bm25", test, config.found).places
    found = [rung for rung in every(test, home) if rung.same_scores is None or rung.name == TEACHER]
    out = home / "quality"
    for name in climb(found, test, places, out, parts=["quality"]):
        print(home.name, name, flush=True)
    read = {}
    for rung in found:
        values = json.loads((out / "rungs" / f"{rung.name}.quality.json").read_text(encoding="utf-8"))
        read[rung.name] = {"ndcg": values["ndcg"], "states": torch.load(out / "rungs" / f"{rung.name}.pt")["states"]}
        if (home / rung.name / GEOMETRY).is_file():
            read[rung.name]["geometry"] = json.loads((home / rung.name / GEOMETRY).read_text(encoding="utf-8"))
    return read


def every(test: Collection, home: Path) -> list[Rung]:
    """The demonstration's rungs, the variants, and item tokens that are those of other documents."""
    given = Folders(home / "judge", home / "pruned", home / "summaries.jsonl", home / "items", home / "items-pruned")
    more = {name: (home / name, load_items(home / name)) for name in VARIANTS}
    more[SHUFFLED] = (home / "items", load_items(home / "items").shuffled(int(home.name.rpartition("-")[2])))
    return [
        *rungs(test, given),
        *(Rung(n, n, "shared-prefix", partial(load_judge, f / RANKER), items=i) for n, (f, i) in more.items()),
    ]


def reading(rows: list[dict], measure: str, *, without: set[str]) -> dict[str, float | int]:
    """Spearman's ρ of a measure with NDCG among the rungs of a seed, the mean over seeds, and its two-sided p from permutations
    within seeds."""
    sides = []
    for seed in sorted({row["seed"] for row in rows}):
        own = [r for r in rows if r["seed"] == seed and r["rung"] not in without and r.get(measure) is not None]
        ranks = [rankdata([row[key] for row in own]) for key in (measure, "ndcg")]
        sides.append([(side - side.mean()) / np.linalg.norm(side - side.mean()) for side in ranks])
    rho, random = float(np.mean([a @ b for a, b in sides])), np.random.default_rng(0)
    draws = np.array([np.mean([random.permutation(a) @ b for a, b in sides]) for _ in range(DRAWS)])
    p = float((1 + (np.abs(draws) >= abs(rho) - 1e-12).sum()) / (1 + DRAWS))
    return {"rho": rho, "p": p, "points": sum(len(a) for a, _ in sides), "by_seed": [float(a @ b) for a, b in sides]}


def minus(values: torch.Tensor, others: torch.Tensor) -> list[float]:
    """Mean of the paired difference, its interval, and p."""
    found = difference(values, others, seed=0)
    return [float(found.mean[0]), *found.interval[0].tolist(), float(found.p[0])]


def told(known: dict[int, dict[str, dict]]) -> dict:
    """Rows by seed and rung, rungs over all seeds' queries, and what geometry says."""
    rows = []
    for seed, found in known.items():
        judge = found[TEACHER]["states"]
        for name, one in found.items():
            same = name == TEACHER
            row = {"seed": seed, "rung": name, "queries": len(one["ndcg"]), "ndcg": float(np.mean(one["ndcg"]))}
            row["rsa"] = 1.0 if same else pearson_rsa(one["states"], judge)
            row["cka"] = 1.0 if same else linear_cka(one["states"], judge, debiased=True)
            rows.append(row | {"geometry": one.get("geometry")})
    names, over = list(next(iter(known.values()))), {}
    pooled = {
        n: torch.tensor([v for f in known.values() for v in f[n]["ndcg"]], dtype=torch.float64)[:, None] for n in names
    }
    for name, values in pooled.items():
        over[name] = {
            "queries": len(values), "ndcg": float(values.mean()), "interval": interval(values, seed=0)[0].tolist(),
            "share": float(values.mean() / pooled[TEACHER].mean()),
            "minus": {other: minus(values, pooled[other]) for other in (TEACHER, "items-labels") if other != name},
        }  # fmt: skip
    readings = {
        measure: {
            "rungs": reading(rows, measure, without={TEACHER, SHUFFLED}),
            "and_judge": reading(rows, measure, without={SHUFFLED}),
            "and_shuffled": reading(rows, measure, without={TEACHER}),
        }
        for measure in ("rsa", "cka")
    }
    ranks = [row | {"rank": (row["geometry"] or {}).get("effective_rank_centred")} for row in rows]
    readings["effective_rank_centred"] = {"items": reading(ranks, "rank", without=set())}
    return {"schema": 1, "teacher": TEACHER, "over_seeds": over, "rows": rows, "readings": readings}


def figure(found: dict, path: Path) -> None:
    """NDCG by vectors an item, a line a seed, and over all; beside it the rungs that read text."""
    seeds = sorted({row["seed"] for row in found["rows"]})
    with using("paper") as look:
        drawn, axes = canvas(look["column"], 2.6)
        for seed in seeds:
            ndcg = {row["rung"]: row["ndcg"] for row in found["rows"] if row["seed"] == seed}
            axes.plot(
                list(SLOTS), [ndcg[name] for name in SLOTS.values()], color=look["muted"], lw=0.7, label="one seed"
            )
        over = [found["over_seeds"][name] for name in SLOTS.values()]
        low, high = zip(*(row["interval"] for row in over), strict=True)
        axes.fill_between(list(SLOTS), low, high, color=colour(look, 0), alpha=0.2, lw=0)
        axes.plot(
            list(SLOTS),
            [row["ndcg"] for row in over],
            "o-",
            ms=4,
            color=colour(look, 0),
            label=f"{len(seeds)} seeds, 95 %",
        )
        for place, (name, title) in enumerate(TEXT.items(), 1):
            axes.axhline(
                found["over_seeds"][name]["ndcg"],
                color=colour(look, place),
                ls=("--", ":")[place - 1],
                label=title,
            )
        axes.set(xscale="log", xlabel="vectors an item", ylabel="NDCG@8", xticks=list(SLOTS), xticklabels=list(SLOTS))
        axes.minorticks_off()
        handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
        drawn.legend(handles.values(), handles, loc="outside lower center", ncols=2)
        with atomic(path) as temporary:
            drawn.savefig(temporary, format="png", metadata=METADATA["png"])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--results", type=Path, default=Path("reports/search/results/demo_seeds.json"))
    given = parser.parse_args()
    known = {}
    for seed in given.seeds:
        config, home = SearchDemo(seed=seed), given.work / f"seed-{seed}"
        made(config, home)
        known[seed] = measured(config, home)
        found = told(known)
        write_text(given.results, dumps(found))
    figure(found, given.results.parent.parent / "figures" / "slots.png")
    for name, row in found["over_seeds"].items():
        print(f"{name:18} {row['ndcg']:.3f} {row['interval']} {row['share']:.1%} {row['minus']}")
    print(json.dumps(found["readings"], indent=1))


if __name__ == "__main__":
    main()
