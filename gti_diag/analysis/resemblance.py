"""RSA of the new rows against the reference, over all tokens and level by level, with intervals and p-values."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gti_diag.measures import alignment, rsa
from gti_diag.measures.alignment import Space
from gti_diag.measures.jackknife import jackknife_interval
from gti_diag.measures.tiles import evenly

from .evidence import tested_levels
from .group_measures import Measured
from .structure import NAMES, Generators, beyond, structure
from .thresholds import levels_needed

STATISTICS: tuple[tuple[str, Callable], ...] = (("pearson", rsa.pearson_rsa), ("spearman", rsa.spearman_rsa))
NAMED = 20  # tokens left out that are listed
CONFIDENCE = 0.95
SAMPLES = 1000
PERMUTATIONS, PERMUTATIONS_OF_MANY = 999, 119  # the least p is 0.001, and 0.0083
EXACT_TOKENS = 2048  # rank statistics are resampled up to here: memory and time grow with the square
OVERLAP_K = 10
OVERLAP_TOKENS = 2048  # neighbours are searched among this many evenly chosen tokens
ENOUGH = 20  # draws that reach the observed value: p is then above 0.02 for certain, and the verdict asks for 0.01
LEAST_ORDERS = 200  # tokens that can be permuted in fewer ways cannot reach the p of 0.01 that a verdict asks for
FEWEST = 4  # three tokens have three pairs: no correlation worth the name


@dataclass(frozen=True)
class Reference:
    """What rows should resemble: a vector a token (zeros: none is known), and where it came from."""

    name: str
    vectors: Tensor
    source: str | None


def resemblance(
    rows: Space,
    reference: Reference,
    levels: Tensor | None,
    *,
    tokens: Sequence[str],
    generator: Generators,
    counts: Tensor | None = None,
    exact: bool = False,
    papers: bool = True,
) -> dict:
    """The `rsa` part of an analysis: raw as the papers have it, about level means, and with counts held constant.

    Tokens with a zero row or a zero vector are left out and named. With several levels, tokens are permuted within their
    level for the p-values over all codes: that tokens of one level resemble each other more than those of another is no
    evidence that codes mean anything. `counts`: how many items carry each token. `exact` sorts every pair for Spearman's
    correlation, however many; without `papers` only Pearson's is taken, and no CKA, Procrustes distance or neighbours.
    """
    usable = ((rows.rows != 0).any(1) & (reference.vectors != 0).any(1)).cpu()
    if levels is not None and len(levels.unique()) < 2:
        levels = None
    statistics = STATISTICS if papers else STATISTICS[:1]

    def spaces(members: Tensor) -> tuple[Space, Space]:
        chosen = members.to(rows.rows.device)
        return Space(rows.rows[chosen], rows.name, rows.dtype), Space(reference.vectors[chosen], "the reference")

    def adjusted(purpose: str, members: Tensor, within: Tensor | None = None) -> dict:
        some = None if counts is None else counts[members]
        return structure(*spaces(members), counts=some, levels=within, generator=generator, purpose=purpose)

    within = None if levels is None else levels[usable]
    found = _agreement(spaces(usable), generator, "all", exact, statistics, within)
    left_out = [tokens[place] for place in (~usable).nonzero()[:, 0].tolist()]
    found |= {
        "reference": reference.source,
        "reference_name": reference.name,
        "read": NAMES[0] if counts is None else NAMES[1],
        "dropped_zero_rows": len(left_out),
        "dropped": left_out[:NAMED],
        "levels": {},
    }
    if papers:
        found["alignment"] = _alignment(spaces(usable), found["undefined"])  # anew: the offsets above are gone
    _join(found, adjusted("all", usable, within))
    if levels is None:
        return {**found, "beyond": []}
    for level in levels.unique().tolist():
        members = usable & (levels == level)
        entry = _agreement(spaces(members), generator, f"level {level}", exact, statistics)
        entry["dropped_zero_rows"] = int((~usable & (levels == level)).sum())
        _join(entry, adjusted(f"level {level}", members))
        found["levels"][str(level)] = entry
    found["beyond"] = []
    tested, alone = tested_levels(found), levels_needed(len(found["levels"])) - 1
    if len(tested) > alone:
        best = sorted(map(int, tested), key=lambda level: -found["levels"][str(level)][found["read"]]["value"])
        members = usable & torch.isin(levels, torch.tensor(best, dtype=levels.dtype))
        held = None if counts is None else counts[members]
        tests = beyond(
            *spaces(members), counts=held, levels=levels[members], best=best, alone=alone, generator=generator
        )
        found["beyond"] = list(tests)
    return found


def _join(found: dict, other: dict) -> None:
    """Add what was found, and the reasons for what was not."""
    found["undefined"] |= other.pop("undefined")
    found |= other


def _agreement(
    spaces: tuple[Space, Space],
    generator: Generators,
    purpose: str,
    exact: bool,
    statistics: Sequence[tuple[str, Callable]],
    within: Tensor | None = None,
) -> dict:
    n = len(spaces[0])
    found: dict[str, Any] = {
        "tokens": n,
        "pairs": n * (n - 1) // 2,
        "permuted": "within levels" if within is not None else "freely",
    }
    undefined: dict[str, str] = {}
    for name, statistic in statistics:
        entry = Measured()
        if n < FEWEST:
            entry.values = {"value": None, "interval": None, "p_value": None}
            entry.undefined = {"value": f"{n} tokens: RSA needs at least {FEWEST}"}
        else:
            draws = lambda kind, name=name: generator(f"{purpose} {name} {kind}")  # noqa: E731
            _statistic(entry, statistic, *spaces, draws, exact=exact, within=within)
        found[name] = entry.values
        undefined |= {f"{name}.{key}": reason for key, reason in entry.undefined.items()}
    if "spearman" in found:
        rank = Measured()
        if found["spearman"]["value"] is not None and n <= EXACT_TOKENS:
            rank.add("rho_a", lambda: rsa.rho_a(*spaces))
        found["rho_a"] = rank.values.get("rho_a")
    return {**found, "undefined": undefined}


def _alignment(spaces: tuple[Space, Space], undefined: dict[str, str]) -> dict:
    """Agreement beyond pairwise similarities: CKA, Procrustes distance, shared neighbours."""
    found, n = Measured(), len(spaces[0])
    found.add("cka", lambda: alignment.linear_cka(*spaces, debiased=False))
    found.add("cka_debiased", lambda: alignment.linear_cka(*spaces, debiased=True))
    found.add("procrustes", lambda: alignment.procrustes_distance(*spaces))
    some = evenly(n, OVERLAP_TOKENS).to(spaces[0].rows.device)
    few = [Space(space.rows[some], space.name, space.dtype) for space in spaces]
    found.add("neighbourhood_overlap", lambda: alignment.neighbourhood_overlap(*few, k=OVERLAP_K))
    undefined |= {f"alignment.{name}": reason for name, reason in found.undefined.items()}
    return found.values | {"neighbours": OVERLAP_K, "overlap_by_chance": OVERLAP_K / max(1, len(some) - 1)}


def _statistic(
    entry: Measured, statistic, rows: Space, vectors: Space, generator, *, exact: bool, within: Tensor | None
) -> None:
    """Value, 95 % bootstrap interval over tokens, one-sided Mantel p; the cost of the last two is kept bounded."""
    n = len(rows)
    options = {"exact": True} if exact and statistic is rsa.spearman_rsa else {}
    entry.add("value", lambda: statistic(rows, vectors, **options))
    if entry.values["value"] is None:
        entry.values |= {"interval": None, "p_value": None}
        return
    if statistic is not rsa.pearson_rsa and n > EXACT_TOKENS:
        reason = f"{n:,} tokens: rank statistics are resampled up to {EXACT_TOKENS:,}; see the Pearson interval"
        entry.values |= {"interval": None, "p_value": None}
        entry.undefined |= {"interval": reason, "p_value": reason}
        return
    many = n > EXACT_TOKENS
    if many:  # redrawing tokens costs the square of their number; leaving each out once has a closed form
        entry.add("interval", lambda: jackknife_interval(rows, vectors, confidence=CONFIDENCE))
    else:
        entry.add("interval", lambda: rsa.rsa_interval(rows, vectors, statistic=statistic, samples=SAMPLES,
                                                       confidence=CONFIDENCE, generator=generator("bootstrap")))  # fmt: skip
    groups = [n] if within is None else torch.bincount(within).tolist()
    orders = math.prod(math.factorial(min(size, 20)) for size in groups)
    if orders < LEAST_ORDERS:
        entry.values["p_value"] = None
        entry.undefined["p_value"] = f"{n} tokens have {orders} orders only: no agreement could be told from chance"
        return
    draws = PERMUTATIONS_OF_MANY if many else PERMUTATIONS
    entry.add("p_value", lambda: rsa.mantel_test(rows, vectors, statistic=statistic, permutations=draws, enough=ENOUGH,
                                                 within=within, generator=generator("mantel")).p_value)  # fmt: skip
