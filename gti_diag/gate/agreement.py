"""Agreement with each reference in a line, for whoever reads what the gate found."""

from collections.abc import Iterator, Mapping
from typing import Any

from gti_diag.analysis.evidence import REFERENCES, stated


def agreements(analysis: Mapping[str, Any]) -> Iterator[str]:
    """Of each matrix and reference, the one to judge by first: the form that the verdict reads, over all tokens and by level."""
    for name, matrix in analysis["matrices"].items():
        for rsa in filter(None, (matrix.get("rsa"), *(matrix.get("rsa_references") or {}).values())):
            if "read" in rsa and rsa[rsa["read"]]["value"] is not None:
                against = REFERENCES.get(rsa["reference_name"], "the reference")
                yield f"{name} rows against {against}: {stated(rsa)}"
