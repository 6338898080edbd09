"""Findings for the places that show them: JUnit XML, SARIF 2.1.0, a Markdown summary for GitHub, JSON."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote
from xml.etree import ElementTree

from gti_diag.document import dumps
from gti_diag.errors import InputError
from gti_diag.files import write_text
from gti_diag.foreign import presentable, without_secrets
from gti_diag.render.tables import escape

from .findings import Finding, Findings

SARIF = "https://json.schemastore.org/sarif-2.1.0.json"


def as_json(findings: Findings) -> str:
    return dumps(findings.document())


def seen(findings: Findings) -> Findings:
    """The same with every text as it can be shown."""
    parts = {name: presentable(value) for name, value in vars(findings).items() if name != "findings"}
    every = tuple(Finding(**presentable(vars(finding))) for finding in findings.findings)
    return replace(findings, **parts, findings=every)


def junit(findings: Findings) -> str:
    """One test case per rule: failed rules as failures, what nobody asked to fail, or could not be compared, as skipped."""
    findings = seen(findings)
    failed = str(len(findings.failures))
    skipped = str(sum(finding.status in ("skip", "warn") for finding in findings.findings))
    counts = {"tests": str(len(findings.findings)), "failures": failed, "skipped": skipped, "errors": "0"}
    root = ElementTree.Element("testsuites", {"name": "gti-diag check", **counts})
    suite = ElementTree.SubElement(root, "testsuite", {"name": findings.checkpoint, **counts})
    for finding in findings.findings:
        named = {
            "classname": f"gti-diag.{findings.policy}.{finding.matrix}",
            "name": f"{finding.measure}: {finding.expected}",
        }
        case = ElementTree.SubElement(suite, "testcase", named)
        if finding.status == "fail":
            failure = ElementTree.SubElement(case, "failure", {"message": str(finding)})
            failure.text = f"expected: {finding.expected}\ngot: {finding.got}\n{finding.steps}"
        elif finding.status in ("skip", "warn"):
            ElementTree.SubElement(case, "skipped", {"message": finding.got})
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def sarif(findings: Findings) -> str:
    """One result per rule that failed or warns, located at the checkpoint; code scanning shows them on pull requests."""
    where, findings = _uri(findings.checkpoint), seen(findings)
    rules = {_rule_id(f): f for f in findings.findings}
    log = {
        "$schema": SARIF,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "gti-diag",
                        "rules": [
                            {
                                "id": name,
                                "shortDescription": {"text": f"{finding.measure} of {finding.matrix}"},
                                "fullDescription": {"text": f"{finding.measure}: {finding.expected}"},
                            }
                            for name, finding in rules.items()
                        ],
                    }
                },
                "results": [
                    _result(findings, finding, where=where, rules=list(rules))
                    for finding in findings.findings
                    if finding.status in ("fail", "warn")
                ],
            }
        ],
    }
    return dumps(log)


def _rule_id(finding: Finding) -> str:
    return f"{finding.matrix}/{finding.measure}/{finding.expected.split(maxsplit=1)[0]}"


def _result(findings: Findings, finding: Finding, *, where: str, rules: list[str]) -> dict:
    name = _rule_id(finding)
    location = {"artifactLocation": {"uri": where}, "region": {"startLine": 1}}
    return {
        "ruleId": name,
        "ruleIndex": rules.index(name),
        "level": "error" if finding.status == "fail" else "warning",
        "message": {"text": "\n".join([str(replace(finding, cause=None)), finding.steps]).strip()},
        "locations": [{"physicalLocation": location}],
        # The same rule failing again is the same alert.
        "partialFingerprints": {"gtiDiag/v1": hashlib.sha256(f"{findings.checkpoint} {name}".encode()).hexdigest()},
    }


def _uri(checkpoint: str) -> str:
    """Relative to the working folder, as code scanning wants it, where the checkpoint lies below it."""
    path = Path(checkpoint)
    if "://" in checkpoint or not path.exists():
        return quote(without_secrets(checkpoint), safe=":/?&=#@*%+", errors="surrogatepass")
    full = path.resolve()
    below = full.is_relative_to(Path.cwd())
    return quote(os.fsencode(full.relative_to(Path.cwd()).as_posix())) if below else full.as_uri()


def markdown(findings: Findings) -> str:
    """A heading with the outcome, a table of what failed, and the rest folded away."""
    findings = seen(findings)
    outcome = "✅ passed" if findings.passed else f"❌ {len(findings.failures)} failed"
    lines = [f"## Embedding check: {outcome}", "", escape(str(findings).splitlines()[0]), ""]
    if findings.failures:
        lines += ["| matrix | measure | expected | got | likely cause |", "|---|---|---|---|---|"]
        lines += [
            _row(f.matrix, f.measure, f.expected, f.got, f.steps.replace("likely cause: ", "", 1))
            for f in findings.failures
        ]
        lines.append("")
    others = [finding for finding in findings.findings if finding.status != "fail"]
    if others:
        lines += ["<details><summary>Other checks</summary>", "", "| matrix | measure | expected | got | |", "|---|---|---|---|---|"]  # fmt: skip
        lines += [
            _row(
                f.matrix,
                f.measure,
                f.expected,
                f.got,
                {"pass": "✅", "skip": "not compared", "warn": "found"}[f.status],
            )
            for f in others
        ]
        lines += ["", "</details>", ""]
    lines += [f"- {escape(note)}" for note in findings.notes]
    return "\n".join(lines) + "\n"


def _row(*cells: str) -> str:
    return "| " + " | ".join(map(escape, cells)) + " |"


def append_github_summary(findings: Findings, environment: Mapping[str, str] = os.environ) -> Path | None:
    """Append the summary to the file named by GITHUB_STEP_SUMMARY; None where that is not set.

    Raises:
        InputError: the file cannot be written.
    """
    name = environment.get("GITHUB_STEP_SUMMARY")
    if not name:
        return None
    try:
        with Path(name).open("a", encoding="utf-8") as file:
            file.write(markdown(findings))
    except OSError as error:
        raise InputError(f"cannot append to {name} (GITHUB_STEP_SUMMARY): {error.strerror or error}") from error
    return Path(name)


WRITERS = {"junit": junit, "sarif": sarif, "summary": markdown, "json": as_json}


def write(findings: Findings, files: Mapping[str, str | os.PathLike[str] | None]) -> list[Path]:
    """Write each format named in `files` to its path; None leaves it out."""
    texts = {path: WRITERS[name](findings) for name, path in files.items() if path is not None}
    return write_texts(texts)


def write_texts(texts: Mapping[str | os.PathLike[str], str]) -> list[Path]:
    """Write each text to its path: all were made before the first is written."""
    return [write_text(path, text) for path, text in texts.items()]
