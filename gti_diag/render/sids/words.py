"""Rows of the tables, and verdicts, in words: shared by terminal, Markdown and page."""

from collections.abc import Mapping
from typing import Any

from gti_diag.render.view import number

Document = Mapping[str, Any]
LEVELS = ("level", "used", "perplexity", "overlap", "commonest", "verdict")
DEPTHS = ("depth", "prefixes", "alone", "fan-out", "coherence (chance)", "next choice (chance)", "error")
STEPS = (("cause", "Cause"), ("action", "Do"), ("verify", "Check"))


def title(document: Document) -> str:
    return document["name"] or f"{document['made'].get('quantiser', 'codes')} on {document['made']['encoder']}"


def level_rows(document: Document) -> list[tuple[str, ...]]:
    """One row a level, under `LEVELS`."""
    return [
        (
            str(level["level"]),
            f"{level['used']} of {level['size']}",
            number(level["perplexity"]),
            number(level["overlap"]),
            f"{level['largest']} items",
            level["verdict"]["label"] or "only tells items apart",
        )
        for level in document["levels"]
    ]


def depth_rows(document: Document) -> list[tuple[str, ...]]:
    """One row a depth, under `DEPTHS`."""
    return [
        (
            str(prefix["depth"]),
            str(prefix["active"]),
            f"{prefix['alone']:.1%}",
            f"{number(prefix['fan_out']['mean'])}, at most {prefix['fan_out']['most']}",
            _against(prefix["coherence"]),
            _against(prefix["co_occurrence"]),
            "–" if prefix["error"] is None else f"{prefix['error']:.1%}",
        )
        for prefix in document["prefixes"]
    ]


def facts(document: Document) -> list[str]:
    """What one line can say: collisions, capacity, popularity, uniqueness."""
    found, capacity, moves = document["collisions"], document["capacity"], document["made"].get("moves")
    lines = [
        f"{document['items']} items, {found['distinct']} distinct codes"
        + (f"; the largest group shares one among {found['largest']}" if found["largest"] > 1 else ""),
        f"expected codeword overlap of two items {number(capacity['expected_overlap'])}; "
        f"the levels carry {capacity['bits']:.1f} of {capacity['bits_of_the_sizes']:.1f} bits",
    ]
    if moves:
        rise = "" if moves["error_rise"] is None else f", error {moves['error_rise']:+.2%}"
        lines.append(f"made unique: {moves['moved']} items moved, {moves['moved_prefixes']} to another prefix{rise}")
    shares = document["prefixes"][0]["popularity"]
    if shares:
        parts = ", ".join(f"{name} {number(share)}" for name, share in shares.items())
        lines.append(f"share of the first level over share of the items: {parts} (1 is fair)")
    return lines


def reasons(document: Document) -> list[Mapping[str, Any]]:
    return list(document["verdict"]["reasons"])


def _against(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "–"
    return f"{number(found['value'])} ({number(found['interval'][0])} … {number(found['interval'][1])})"
