"""A scan held against the kinds that may not be found: the gate's findings, for JUnit and SARIF."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gti_diag.analysis.scan import failing
from gti_diag.analysis.scan_findings import KINDS
from gti_diag.render.scan.words import examples

from .findings import Finding, Findings

SHOWN = 8


def check_scan(scan: Mapping[str, Any], kinds: Sequence[str]) -> Findings:
    """One finding for each kind of each matrix: `fail` where it is among `kinds` and was found in a row with a token, `warn` where it
    was found otherwise, `skip` where it could not be judged, else `pass`."""
    failed = {(role, finding["kind"]) for role, finding in failing(scan, kinds)}
    found = [finding for role, matrix in scan["matrices"].items() for finding in _of(role, matrix, failed)]
    return Findings(scan["checkpoint"]["path"], "scan", None, tuple(found))


def _of(role: str, matrix: Mapping[str, Any], failed: set[tuple[str, str]]) -> Iterator[Finding]:
    found = {finding["kind"]: finding for finding in matrix["findings"]}
    for kind in KINDS:
        if kind in found:
            finding = found[kind]
            got = f"{finding['count']:,} rows ({examples(finding, SHOWN)}): {finding['evidence']}"
            words = {key: finding[key] for key in ("cause", "action", "verify")}
            yield Finding("fail" if (role, kind) in failed else "warn", role, kind, "none", got, **words)
        elif kind in matrix["undefined"]:
            yield Finding("skip", role, kind, "none", matrix["undefined"][kind])
        else:
            yield Finding("pass", role, kind, "none", f"none in {matrix['rows']:,} rows")
