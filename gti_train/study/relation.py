"""Does the geometry of the new rows say how well a run recommends? A rank correlation over all arms and seeds.

Source: Spearman 1904; two-sided p by all or 20,000 permutations of the runs (ties take mean ranks).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import rankdata

from .results import Results

DRAWS = 20_000
# name -> (whether it is a corrected form, where it stands in the analysis of a matrix)
MEASURES: dict[str, tuple[bool, Callable[[Mapping[str, Any]], float | None]]] = {
    "effective rank": (False, lambda m: m["groups"]["new"].get("effective_rank")),
    "effective rank, centred": (True, lambda m: m["groups"]["new"].get("effective_rank_centred")),
    "spread / vocabulary's": (False, lambda m: m["groups"]["new"].get("dispersion_ratio")),
    "RSA, raw Pearson": (False, lambda m: _rsa(m, "pearson")),
    "RSA, raw Spearman": (False, lambda m: _rsa(m, "spearman")),
    "RSA about level means": (True, lambda m: _rsa(m, "centred")),
    "RSA, counts held": (True, lambda m: _rsa(m, "counts_held")),
}


@dataclass(frozen=True)
class Relation:
    """A measure, of the start or after fine-tuning, against a metric over `runs` runs."""

    measure: str
    corrected: bool
    when: str
    rho: float
    p: float
    runs: int


def relations(results: Results, metric: str, *, seed: int = 0) -> list[Relation]:
    """Every measure before and after fine-tuning against `metric`; measures that differ in no two runs are left out."""
    found = []
    for when in ("start", "tuned"):
        runs = list(_runs(results, when, metric))
        for name, (corrected, read) in MEASURES.items():
            pairs = [(value, outcome) for matrix, outcome in runs if (value := read(matrix)) is not None]
            x, y = np.array(pairs, dtype=float).reshape(-1, 2).T
            if len(x) >= 4 and np.ptp(x) > 0 and np.ptp(y) > 0:
                found.append(Relation(name, corrected, when, *spearman(x, y, seed=seed), len(x)))
    return found


def spearman(x: np.ndarray, y: np.ndarray, *, seed: int) -> tuple[float, float]:
    """ρ and its two-sided permutation p.

    Raises:
        ValueError: a side is constant.
    """
    a, b = (rankdata(side) - (len(side) + 1) / 2 for side in (x, y))
    scale = float(np.sqrt((a @ a) * (b @ b)))
    if not scale:
        raise ValueError("all values of one side are equal: no rank correlation")
    rho, random = float(a @ b) / scale, np.random.default_rng(seed)
    draws = np.array([random.permutation(a) @ b for _ in range(DRAWS)]) / scale
    return rho, float((1 + (np.abs(draws) >= abs(rho) - 1e-12).sum()) / (1 + DRAWS))


def _runs(results: Results, when: str, metric: str):
    for arm, seeds in results.judged.items():
        for seed, judged in seeds.items():
            place, name = (results.starts, judged["start"]) if when == "start" else (results.tuned, arm)
            analysis = place.get(name, {}).get(seed)
            if analysis is not None:
                yield analysis["matrices"]["input"], judged["metrics"][metric]["value"]


def _rsa(matrix: Mapping[str, Any], name: str) -> float | None:
    entry = (matrix.get("rsa") or {}).get(name)
    return entry and entry.get("value")
