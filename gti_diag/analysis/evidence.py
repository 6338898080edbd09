"""What an RSA says of structure: related to the reference, unrelated, or not tested; and how much was tested."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .thresholds import THRESHOLDS, Reason, levels_needed, reason

MEASURES = {"centred": "centred RSA", "counts_held": "RSA with counts held"}
REFERENCES = {"item_means": "the means of their items", "codebooks": "their codebook vectors"}
SHOWN = 5  # tokens left out that are named in a sentence


@dataclass(frozen=True)
class Evidence:
    """The outcome is `related`, `unrelated` or `untested`."""

    outcome: str
    reasons: tuple[Reason, ...]


def tested_levels(rsa: Mapping[str, Any]) -> list[str]:
    """The levels on which agreement could be told from chance, over enough of their tokens ("" where there are no levels)."""
    least = THRESHOLDS["tested_share"].value
    return [
        level
        for level, entry in _levels(rsa).items()
        if entry[rsa["read"]]["p_value"] is not None
        and entry["tokens"] >= least * (entry["tokens"] + entry["dropped_zero_rows"])
    ]


def evidence(rsa: Mapping[str, Any] | None) -> Evidence | None:
    """What the `rsa` part of an analysis says; None without a reference.

    Half of the levels must have an agreement that counts, and whichever levels might agree alone are set apart, what is left
    must agree too, with a p of its own. Too few tokens or levels compared: not tested.
    """
    if rsa is None:
        return None
    levels, tested = _levels(rsa), tested_levels(rsa)
    needed = levels_needed(len(levels))
    limits = tuple(_limits(rsa, tested))
    lost = [level for level in tested if levels[level][rsa["read"]]["value"] < THRESHOLDS["rsa"].value]
    if len(lost) > len(levels) - needed:
        claim = _claim(rsa, "shows no relation to", None) if levels.get("") else _lost(rsa, lost, tested)
        return Evidence("unrelated", (claim, *limits))
    if len(tested) - len(lost) < needed:
        return Evidence("untested", (_untested(rsa), *limits))
    worst = _worst(rsa)
    if worst["p_value"] is None:
        return Evidence("untested", (_untested(rsa, worst.get("reason")), *limits))
    if worst["p_value"] >= THRESHOLDS["rsa_p_value"].value:
        return Evidence("unrelated", (_claim(rsa, "shows no relation to", worst), *limits))
    agreed = _claim(rsa, "agrees with", worst)
    return Evidence("related", (agreed, *([_lost(rsa, lost, tested)] if lost else ()), *limits))


def _levels(rsa: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    return rsa["levels"] or {"": rsa}


def _worst(rsa: Mapping[str, Any]) -> Mapping[str, Any]:
    """The test that is hardest to pass: over all choices of levels set apart, or over all tokens."""
    tests = rsa["beyond"] or [
        {"apart": [], **rsa[rsa["read"]], "reason": rsa["undefined"].get(f"{rsa['read']}.p_value")}
    ]
    return max(tests, key=lambda test: 2.0 if test["p_value"] is None else test["p_value"])


def _claim(rsa: Mapping[str, Any], claim: str, worst: Mapping[str, Any] | None) -> Reason:
    worst = _worst(rsa) if worst is None else worst
    beyond = f" beyond level {' and '.join(map(str, worst['apart']))}" if worst["apart"] else ""
    p_value = "" if worst["p_value"] is None else f", p = {worst['p_value']:.3g}{beyond}"
    text = (
        f"their similarity structure {claim} {REFERENCES.get(rsa['reference_name'], 'the reference')}: "
        f"{stated(rsa)}{p_value}"
    )
    least, most = THRESHOLDS["rsa"].value, THRESHOLDS["rsa_p_value"].value
    read = rsa["read"]
    return reason(f"rsa_{read}", rsa[read]["value"], f"at least {least}, p < {most}", text)


def stated(rsa: Mapping[str, Any]) -> str:
    """`RSA with counts held 0.47 [0.43, 0.52] (level 1 0.37, level 2 0.71)`: the form that is read, over all tokens and by level."""
    read = rsa["read"]
    interval = "" if rsa[read]["interval"] is None else " [{:.2f}, {:.2f}]".format(*rsa[read]["interval"])
    by_level = ", ".join(
        f"level {level} {entry[read]['value']:.2f}"
        for level, entry in rsa["levels"].items()
        if entry[read]["value"] is not None
    )
    return f"{MEASURES[read]} {rsa[read]['value']:.2f}{interval}{f' ({by_level})' if by_level else ''}"


def _lost(rsa: Mapping[str, Any], lost: list[str], tested: list[str]) -> Reason:
    values = {level: rsa["levels"][level][rsa["read"]]["value"] for level in lost}
    named = ", ".join(f"{level} ({value:.2g})" for level, value in values.items())
    text = (
        f"on {len(lost)} of {len(tested)} levels they show no relation to the reference: "
        f"{MEASURES[rsa['read']]} of level {named}"
    )
    expected = f"at least {THRESHOLDS['rsa'].value} on each level"
    return reason(f"rsa_{rsa['read']}", min(values.values()), expected, text)


def _untested(rsa: Mapping[str, Any], why: str | None = None) -> Reason:
    total = rsa["tokens"] + rsa["dropped_zero_rows"]
    missing = rsa["tokens"] < THRESHOLDS["tested_share"].value * total
    if why is None and missing:
        why = f"{rsa['tokens']:,} of {total:,} tokens have a row and a vector to compare"
    elif why is None and rsa["levels"]:
        why = f"only {len(tested_levels(rsa))} of {len(rsa['levels'])} levels could be compared with chance"
    elif why is None:
        why = _why(rsa, rsa["read"])
    text = f"not tested: whether near tokens mean near things is not known, for {why}"
    return reason(f"rsa_{rsa['read']}", None, "half of the tokens and of the levels", text)


def _why(entry: Mapping[str, Any], read: str) -> str:
    found = (entry["undefined"].get(f"{read}.{key}") for key in ("value", "p_value"))
    return next((text for text in found if text), "too few of its tokens could be compared")


def _limits(rsa: Mapping[str, Any], tested: list[str]) -> Iterator[Reason]:
    """What the verdict does not cover: levels that were not tested, tokens left out."""
    for level, entry in rsa["levels"].items():
        if level not in tested:
            text = f"level {level} was not tested: {_why(entry, rsa['read'])}"
            yield reason("rsa", None, "every level", text)
    dropped = rsa["dropped_zero_rows"]
    if dropped:
        named = ", ".join(rsa["dropped"][:SHOWN]) + (f" and {dropped - SHOWN:,} more" if dropped > SHOWN else "")
        text = f"{dropped:,} of {rsa['tokens'] + dropped:,} tokens were not compared, a zero row or no vector: {named}"
        yield reason("rsa", rsa["tokens"], str(rsa["tokens"] + dropped), text)
