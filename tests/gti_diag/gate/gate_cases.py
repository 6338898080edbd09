"""Analyses small enough to read, for the gate: a healthy one, and ways to spoil it."""

import copy
from typing import Any

HEALTHY: dict[str, Any] = {
    "schema": 1,
    "checkpoint": {
        "path": "runs/gti", "name": "gti", "fingerprint": "f" * 64, "format": "safetensors", "tied": True,
        "dtype": "bfloat16", "step": 300, "notes": [],
    },
    "tokens": {"rule": "gti.json lists 4 new tokens", "groups": {"text": {"count": 400}, "new": {"count": 4}}},
    "matrices": {
        "input": {
            "dtype": "bfloat16",
            "shape": [404, 48],
            "groups": {
                "text": {"count": 400, "unique_rows": 400, "dispersion": 0.8, "norm": {"mean": 0.9, "std": 0.1}, "undefined": {}},
                "new": {
                    "count": 4, "unique_rows": 4, "zero_rows": 0, "sampled": None,
                    "dispersion": 0.4, "dispersion_ratio": 0.5, "median_dispersion_ratio": 0.5, "precision_floor": 0.001,
                    "effective_rank": 3.5, "effective_rank_centred": 2.8, "mean_cosine": 0.3,
                    "norm": {"mean": 0.7, "std": 0.1, "min": 0.6, "max": 0.9}, "singular_values": [1.0, 0.5, 0.3, 0.1],
                    "undefined": {},
                },
            },
            "null": {"samples": 64, "size": 4, "measures": {
                "effective_rank_centred": {"low": 2.7, "median": 2.8, "high": 2.9},
                "dispersion": {"low": 0.7, "median": 0.8, "high": 0.9},
                "mean_cosine": {"low": 0.0, "median": 0.1, "high": 0.2},
            }},
            "map": {"new": {"tokens": ["<a_0>", "<a_1>", "<b_0>", "<b_1>"]}},
            "rsa": {
                "reference": "runs/gti/item_means.safetensors", "reference_name": "item_means", "tokens": 4, "pairs": 6,
                "read": "centred", "centred": {"value": 0.4, "interval": [0.36, 0.44], "p_value": 0.001},
                "pearson": {"value": 0.4, "interval": [0.36, 0.44], "p_value": 0.001},
                "spearman": {"value": 0.38, "interval": [0.33, 0.43], "p_value": 0.001},
                "rho_a": 0.37, "undefined": {},
                "levels": {"1": {"centred": {"value": 0.5, "interval": [0.4, 0.6], "p_value": 0.01}},
                           "2": {"centred": {"value": 0.3, "interval": [0.2, 0.4], "p_value": 0.01}}},
            },
            "rsa_references": {"codebooks": {
                "reference": "runs/gti/codebooks.safetensors", "reference_name": "codebooks", "read": "centred", "levels": {},
                "centred": {"value": 0.21, "interval": None, "p_value": 0.02},
            }},
            "drift": {"base": "runs/base", "groups": {"text": {"compared": 400, "moved": 0, "largest": 0.0, "mean_relative": 0.0,
                                                               "farthest": []}}},
            "verdict": {"label": "healthy", "reasons": [{"text": "4 of 4 rows are distinct"}], "advice": ""},
        }
    },
}  # fmt: skip


def analysis(verdict: str = "healthy", **changes: Any) -> dict:
    """The healthy analysis with some numbers replaced: `new__dispersion_ratio=0.1`, `rsa__pearson__value=0.2`, …"""
    made = copy.deepcopy(HEALTHY)
    matrix = made["matrices"]["input"]
    for name, value in changes.items():
        *path, last = name.split("__")
        place = matrix if path and path[0] in ("rsa", "drift") else matrix["groups"] if path else made["checkpoint"]
        for part in path:
            place = place[part]
        place[last] = value
    matrix["verdict"]["label"] = verdict
    return made
