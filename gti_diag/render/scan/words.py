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


def named(finding: Mapping[str, Any], place: int) -> str:
    """One token of a finding with its id and marks: `<|im_end|> 2 (special, chat template)`."""
    id = finding["ids"][place]
    marks = [
        mark
        for mark, ids in (
            ("padding", finding["padding"]),
            ("special", finding["special"]),
            ("chat template", finding["chat_template"]),
            ("in text", finding["reached"] or ()),
        )
        if id in ids
    ]
    return f"{token(finding['tokens'][place], 24)} {id}" + (f" ({', '.join(marks)})" if marks else "")


def examples(finding: Mapping[str, Any], top: int) -> str:
    """The first `top` tokens, those first that matter most: in the chat template, special, reached by text."""
    weights = [set(finding["chat_template"]), set(finding["special"]), set(finding["reached"] or ())]
    order = sorted(
        range(finding["count"]), key=lambda place: tuple(finding["ids"][place] not in group for group in weights)
    )
    more = finding["count"] - top
    return ", ".join(named(finding, place) for place in order[:top]) + (f", and {more:,} more" if more > 0 else "")


def outcome(matrix: Mapping[str, Any]) -> str:
    """`49,152 rows, no findings`."""
    found = len(matrix["findings"])
    return f"{matrix['rows']:,} rows, " + (f"{found} finding{'s' if found > 1 else ''}" if found else "no findings")
