"""How a scan's kinds are called, and how its tokens are shown: the same on every surface."""

from collections.abc import Mapping
from typing import Any

from gti_diag.render.view import token

TITLES = {
    "not_finite": "not finite",
    "zero": "exactly zero",
    "near_zero": "near zero",
    "giant": "giant",
    "copies": "identical rows",
    "cluster": "nearly identical rows",
    "untrained": "never trained",
    "copy_of_old": "new row equal to an old one",
    "old_row_moved": "old row moved",
    "input_head_disagree": "dead on one side only",
}
STEPS = (("cause", "probably"), ("action", "to do"), ("verify", "check"))


def named(finding: Mapping[str, Any], place: int) -> str:
    """One token of a finding with its id and marks: `<|im_end|> 2 (special, chat template)`."""
    id = finding["ids"][place]
    told = ", ".join(marks(finding, id))
    return f"{token(finding['tokens'][place], 24)} {id}" + (f" ({told})" if told else "")


def marks(finding: Mapping[str, Any], id: int) -> list[str]:
    """What makes a row matter more, or less."""
    listed = {"padding": "padding", "special": "special", "chat_template": "chat template", "reached": "in text"}
    return [mark for key, mark in listed.items() if id in (finding[key] or ())]


def examples(finding: Mapping[str, Any], top: int) -> str:
    """The first `top` tokens, those first that matter most: in the chat template, special, reached by text."""
    weights = [set(finding["chat_template"]), set(finding["special"]), set(finding["reached"] or ())]
    order = sorted(
        range(len(finding["ids"])), key=lambda place: tuple(finding["ids"][place] not in group for group in weights)
    )
    more = finding["count"] - min(top, len(order))
    return ", ".join(named(finding, place) for place in order[:top]) + (f", and {more:,} more" if more > 0 else "")


def outcome(matrix: Mapping[str, Any]) -> str:
    """`49,152 rows, no findings`."""
    found = len(matrix["findings"])
    return f"{matrix['rows']:,} rows, " + (f"{found} finding{'s' if found > 1 else ''}" if found else "no findings")
