"""The numbers of one matrix of an analysis under flat names, with how far resampling tokens would move each."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

NORMAL_95 = 1.96
# A measure whose sampling spread is that of another one, in the text null of the analysis.
SPREAD_OF = {
    "dispersion_ratio": "dispersion",
    "median_dispersion": "dispersion",
    "median_dispersion_ratio": "dispersion",
    "energy_effective_rank": "effective_rank",
    "energy_effective_rank_centred": "effective_rank_centred",
    "isoscore": "participation_ratio_centred",
}


@dataclass(frozen=True)
class Number:
    """A value, None with the reason where it does not exist; `noise` is the half-width of its sampling interval."""

    value: float | None
    noise: float = 0.0
    reason: str | None = None


def numbers(matrix: Mapping[str, Any]) -> dict[str, Number]:
    """`new.effective_rank`, `text.norm.mean`, `rsa.agreement`, `rsa.level_1.centred`, `drift.text.moved`: every scalar of a matrix.

    `rsa.` is agreement with the reference to judge by, `rsa.codebooks.` that with codebooks beside item means; `agreement` is the
    form that the verdict reads (`counts_held` where counts are known, else `centred`).
    """
    found: dict[str, Number] = {}
    for group, measures in matrix["groups"].items():
        found |= {f"{group}.{name}": number for name, number in _group(matrix, group, measures)}
    found |= {f"rsa.{name}": number for name, number in _rsa(matrix.get("rsa") or {})}
    for reference, rsa in (matrix.get("rsa_references") or {}).items():
        found |= {f"rsa.{reference}.{name}": number for name, number in _rsa(rsa)}
    for group, moved in ((matrix.get("drift") or {}).get("groups") or {}).items():
        found |= {f"drift.{group}.{name}": Number(value) for name, value in _scalars(moved)}
    return found


def _group(matrix: Mapping[str, Any], group: str, measures: Mapping[str, Any]) -> Iterator[tuple[str, Number]]:
    reasons = measures.get("undefined") or {}
    null = ((matrix.get("null") or {}).get("measures") or {}) if group == "new" else {}
    for name, value in _scalars(measures):
        band = null.get(SPREAD_OF.get(name, name))
        if value is None or group != "new":  # the vocabulary is the same rows every time
            yield name, Number(value, reason=reasons.get(name))
        else:
            yield name, Number(value, _noise(name, value, measures, band))
    distinct = measures.get("unique_rows")
    if distinct is not None and measures.get("count"):
        yield "distinct_share", Number(distinct / measures["count"])


def _noise(name: str, value: float, measures: Mapping[str, Any], band: Mapping[str, float] | None) -> float:
    """Half the width of the text null at this size, scaled to the value; the standard error for a mean norm.

    Text samples of the new group's size differ for no reason but which tokens are in them; another draw of new tokens,
    or of their training, differs at least as much. Cosines may be near 0, so their band is taken as it is.
    """
    if name == "norm.mean" and band is None and measures["norm"].get("std") is not None:
        return NORMAL_95 * measures["norm"]["std"] / math.sqrt(measures["count"])
    if band is None:
        return 0.0
    half = (band["high"] - band["low"]) / 2
    if "cosine" in name or band["median"] == 0:
        return half
    return half * abs(value / band["median"])


def _rsa(rsa: Mapping[str, Any], read: str | None = None) -> Iterator[tuple[str, Number]]:
    read = rsa.get("read", read)
    for name in ("pearson", "spearman", "centred", "counts_held"):
        if name in rsa:
            number = _statistic(rsa[name], (rsa.get("undefined") or {}).get(f"{name}.value"))
            yield from ((named, number) for named in ((name, "agreement") if name == read else (name,)))
    if "rho_a" in rsa:
        yield "rho_a", Number(rsa["rho_a"])
    for level, found in (rsa.get("levels") or {}).items():
        for name, number in _rsa(found, read):
            yield f"level_{level}.{name}", number


def _statistic(found: Mapping[str, Any], reason: str | None) -> Number:
    interval = found.get("interval")
    return Number(found["value"], (interval[1] - interval[0]) / 2 if interval else 0.0, reason)


def _scalars(table: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, float | None]]:
    for key, value in table.items():
        if isinstance(value, Mapping) and key not in ("undefined", "histogram"):
            yield from _scalars(value, f"{above}{key}.")
        elif value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)):
            yield f"{above}{key}", value
