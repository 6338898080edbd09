"""What of the agreement with a reference is structure: about level means, counts held, beyond the best levels, told from chance."""

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from gti_diag.measures.alignment import Space
from gti_diag.measures.partial import Agreement, Cosines, cosines

SAMPLES = 1000
PERMUTATIONS = 999  # the least p is 0.001
ENOUGH = 20  # draws that reach the value: p is then above 0.02 for certain, and the verdict asks for 0.01
MOST = 1024  # tokens that are compared, drawn where there are more: what is held is tokens × tokens
LEAST_ARRANGEMENTS = 200  # fewer that differ cannot reach the p of 0.01 that a verdict asks for
MOST_CHOICES = 20  # of levels set apart: up to 6 levels, all are tried
NAMES = ("centred", "counts_held")
NOTHING: dict[str, Any] = {"value": None, "interval": None, "p_value": None}

Generators = Callable[[str], torch.Generator]


def structure(
    rows: Space,
    vectors: Space,
    *,
    counts: Tensor | None,
    levels: Tensor | None = None,
    generator: Generators,
    purpose: str = "all",
    intervals: bool = True,
) -> dict:
    """`centred` and `counts_held`: value, interval, p, and under `undefined` why one of them does not exist.

    With `levels` shuffles stay within them. Of more than `MOST` tokens so many are drawn; `compared` counts them.
    """
    chosen = _drawn(len(rows), generator(f"{purpose} drawn"))
    found: dict[str, Any] = {"compared": len(chosen)}
    undefined: dict[str, str] = {}
    compared: Cosines | None = None
    for name in NAMES:
        found[name] = dict(NOTHING)
        if name == "counts_held" and counts is None:
            undefined[f"{name}.value"] = "how many items carry each token is not known (--items, or counts in gti.json)"
            continue
        try:
            compared = compared or _compared(rows, vectors, chosen, levels)
            made = compared.agreement(counts=None if name == "centred" else _some(counts, chosen))
            found[name]["value"] = made.value
        except ValueError as error:
            undefined[f"{name}.value"] = str(error)
            continue
        draws = lambda kind, name=name: generator(f"{purpose} {name} {kind}")  # noqa: E731
        found[name]["p_value"] = _p_value(made, draws("shuffles"), undefined, name)
        if intervals:
            try:
                found[name]["interval"] = list(made.interval(SAMPLES, generator=draws("bootstrap")))
            except ValueError as error:
                undefined[f"{name}.interval"] = str(error)
    return {**found, "undefined": undefined}


def beyond(
    rows: Space,
    vectors: Space,
    *,
    counts: Tensor | None,
    levels: Tensor,
    best: Sequence[int],
    alone: int,
    generator: Generators,
) -> Iterator[dict]:
    """One test for each choice of `alone` levels, which may agree without proving a thing: is there agreement beyond those?

    The levels chosen are set apart: their tokens stay, their own pairs do not count, and the others are shuffled within their
    level. Where no more than the levels set apart have structure p is uniform, so of groups with structure on `alone` levels or
    fewer at most one in a hundred has p < 0.01 for all choices. Where there are many choices only the `best` levels (in the
    order of their agreement) are set apart, which is exact only if those with structure are among them.
    """
    chosen = _drawn(len(rows), generator("beyond drawn"))
    choices = list(combinations(sorted(best), alone))
    compared: Cosines | None = None
    for apart in choices if len(choices) <= MOST_CHOICES else [tuple(sorted(best[:alone]))]:
        entry: dict[str, Any] = {"apart": list(apart), "value": None, "p_value": None}
        try:
            compared = compared or _compared(rows, vectors, chosen, levels)
            made = compared.agreement(counts=_some(counts, chosen), apart=apart)
            entry["value"] = made.value
            where = "beyond " + " ".join(map(str, apart))
            entry["p_value"] = _p_value(made, generator(where), entry, "reason")
        except ValueError as error:
            entry["reason"] = str(error)
        yield entry


def _drawn(tokens: int, generator: torch.Generator) -> Tensor:
    """Which tokens are compared."""
    return torch.randperm(tokens, generator=generator)[:MOST].sort().values if tokens > MOST else torch.arange(tokens)


def _compared(rows: Space, vectors: Space, chosen: Tensor, levels: Tensor | None) -> Cosines:
    places = chosen.to(rows.rows.device)
    few = [Space(space.rows[places], space.name, space.dtype) for space in (rows, vectors)]
    return cosines(*few, levels=_some(levels, chosen))


def _some(values: Tensor | None, chosen: Tensor) -> Tensor | None:
    return None if values is None else values[chosen.to(values.device)]


def _p_value(made: Agreement, generator: torch.Generator, undefined: dict[str, Any], name: str) -> float | None:
    """The p, or None where so few arrangements differ that no agreement could be told from chance."""
    test = made.permutation_test(PERMUTATIONS, enough=ENOUGH, generator=generator)
    if test.arrangements >= LEAST_ARRANGEMENTS:
        return test.p_value
    reason = f"about {test.arrangements:.0f} arrangements of the tokens differ: no agreement could be told from chance"
    undefined[name if name == "reason" else f"{name}.p_value"] = reason
    return None
