"""Which rows a repair writes: from what a scan found, or by their ids."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gti_diag.errors import InputError

KINDS = (
    "not_finite",
    "zero",
    "near_zero",
    "giant",
    "copy_of_old",
    "input_head_disagree",
)  # by default: those that are surely damage
ALSO = ("copies", "cluster", "untrained")  # which of them is the right one, only a person knows


@dataclass(frozen=True)
class Plan:
    """Which rows of each matrix are written anew, and which are no example for others."""

    ids: Mapping[str, list[int]]
    damaged: frozenset[int]
    left: tuple[str, ...] = field(default=())  # kinds that were found and are not repaired


def plan(document: Mapping[str, Any], *, ids: Sequence[int] | None, kinds: Sequence[str]) -> Plan:
    """From a scan: the rows of these kinds that are not padding; or, of every matrix, the rows `ids`.

    Raises:
        InputError: nothing to repair.
    """
    every = {id for matrix in document["matrices"].values() for f in matrix["findings"] for id in f["ids"]}
    if ids is not None:
        return Plan({role: sorted(set(ids)) for role in document["matrices"]}, frozenset(every | set(ids)))
    chosen, left = {}, set()
    for role, matrix in document["matrices"].items():
        found = [finding for finding in matrix["findings"] if finding["kind"] in kinds]
        left |= {finding["kind"] for finding in matrix["findings"]} - set(kinds)
        own = {id for finding in found for id in finding["ids"] if id not in finding["padding"]}
        if own:
            chosen[role] = sorted(own)
    if not chosen:
        others = f"; it found {', '.join(sorted(left))}: name them with --kinds" if left else ""
        raise InputError(f"nothing to repair: the scan found none of {', '.join(kinds)} in a row with a token{others}")
    return Plan(chosen, frozenset(every), tuple(sorted(left)))
