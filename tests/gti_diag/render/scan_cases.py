"""A scan document small enough to read."""

import copy
from typing import Any

FINDING: dict[str, Any] = {
    "kind": "near_zero", "count": 3, "ids": [2, 7, 9], "tokens": ["</s>", " red", "<|pad|>"], "norms": [1e-9, 2e-9, 0.0],
    "evidence": "norms of at most 2e-09", "cause": "never trained", "action": "gti-train repair ckpt", "verify": "gti-diag scan repaired",
    "special": [2], "chat_template": [2], "padding": [9], "reached": [7], "groups": [],
}  # fmt: skip
SCAN: dict[str, Any] = {
    "schema": 1,
    "checkpoint": {"path": "runs/<b>", "name": "<b>", "fingerprint": "f" * 64, "format": "safetensors", "tied": True,
                   "dtype": "bfloat16", "step": None, "notes": [], "base": None},
    "command": ["gti-diag", "scan", "runs/<b>"],
    "versions": {"gti-diag": "1"},
    "tokens": {"rule": "no new tokens", "notes": [], "new": 0},
    "matrices": {
        "input": {
            "tensor": "embed", "dtype": "bfloat16", "shape": [400, 48], "rows": 400,
            "norms": {"median": 1.0, "min": 1e-9, "max": 2.0, "gaps": {"near_zero": {"low": 2e-9, "high": 0.7, "beyond": 3}, "giant": None},
                      "histogram": {"log10_edges": [-9.0, -6.0, -3.0, 0.0, 0.4], "counts": [2, 0, 0, 398]}},
            "findings": [FINDING],
            "undefined": {"untrained": "0 rows are known to be never trained: 8 are needed to tell others by them"},
        }
    },
}  # fmt: skip


def scan(**changes: Any) -> dict:
    """The document with the finding changed."""
    made = copy.deepcopy(SCAN)
    made["matrices"]["input"]["findings"][0] |= changes
    return made
