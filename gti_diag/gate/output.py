"""Findings for the places that show them: JUnit XML, SARIF 2.1.0, a Markdown summary for GitHub, JSON."""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

from gti_diag.errors import InputError
from gti_diag.files import write_text

from .findings import Finding, Findings

SARIF = "https://json.schemastore.org/sarif-2.1.0.json"
# What XML 1.0 cannot hold, even escaped; token strings may.
UNWRITABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def as_json(findings: Findings) -> str:
    return json.dumps(findings.document(), indent=1, ensure_ascii=False) + "\n"


def junit(findings: Findings) -> str:
    """One test case per rule: failed rules as failures, rules without anything to compare as skipped."""
    failed = str(len(findings.failures))
    skipped = str(sum(finding.status == "skip" for finding in findings.findings))
    counts = {"tests": str(len(findings.findings)), "failures": failed, "skipped": skipped, "errors": "0"}
    root = ElementTree.Element("testsuites", {"name": "gti-diag check", **counts})
    suite = ElementTree.SubElement(root, "testsuite", {"name": _plain(findings.checkpoint), **counts})
    for finding in findings.findings:
        named = {
            "classname": f"gti-diag.{findings.policy}.{finding.matrix}",
            "name": f"{finding.measure}: {finding.expected}",
        }
        case = ElementTree.SubElement(suite, "testcase", {key: _plain(value) for key, value in named.items()})
        if finding.status == "fail":
            failure = ElementTree.SubElement(case, "failure", {"message": _plain(str(finding))})
            failure.text = _plain(f"expected: {finding.expected}\ngot: {finding.got}\nlikely cause: {finding.cause}")
        elif finding.status == "skip":
            ElementTree.SubElement(case, "skipped", {"message": _plain(finding.got)})
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _plain(text: str) -> str:
    return UNWRITABLE.sub("�", text)


def sarif(findings: Findings) -> str:
    """One result per failed rule, located at the checkpoint; code scanning shows them on pull requests."""
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
                "results": [_result(findings, finding, list(rules)) for finding in findings.failures],
            }
        ],
    }
    return json.dumps(log, indent=1, ensure_ascii=False) + "\n"


def _rule_id(finding: Finding) -> str:
    return f"{finding.matrix}/{finding.measure}/{finding.expected.split(maxsplit=1)[0]}"


def _result(findings: Findings, finding: Finding, rules: list[str]) -> dict:
    name = _rule_id(finding)
    location = {"artifactLocation": {"uri": _uri(findings.checkpoint)}, "region": {"startLine": 1}}
    return {
        "ruleId": name,
        "ruleIndex": rules.index(name),
        "level": "error",
        "message": {"text": str(finding)},
        "locations": [{"physicalLocation": location}],
        # The same rule failing again is the same alert.
        "partialFingerprints": {"gtiDiag/v1": hashlib.sha256(f"{findings.checkpoint} {name}".encode()).hexdigest()},
    }


def _uri(checkpoint: str) -> str:
    """Relative to the working folder, as code scanning wants it, where the checkpoint lies below it."""
    path = Path(checkpoint)
    if "://" in checkpoint or not path.exists():
        return checkpoint
    full = path.resolve()
    return full.relative_to(Path.cwd()).as_posix() if full.is_relative_to(Path.cwd()) else full.as_uri()


def markdown(findings: Findings) -> str:
    """A heading with the outcome, a table of what failed, and the rest folded away."""
    outcome = "✅ passed" if findings.passed else f"❌ {len(findings.failures)} failed"
    lines = [f"## Embedding check: {outcome}", "", _cell(str(findings).splitlines()[0]), ""]
    if findings.failures:
        lines += ["| matrix | measure | expected | got | likely cause |", "|---|---|---|---|---|"]
        lines += [_row(f.matrix, f.measure, f.expected, f.got, f.cause or "") for f in findings.failures]
        lines.append("")
    others = [finding for finding in findings.findings if finding.status != "fail"]
    if others:
        lines += ["<details><summary>Other checks</summary>", "", "| matrix | measure | expected | got | |", "|---|---|---|---|---|"]  # fmt: skip
        lines += [
            _row(f.matrix, f.measure, f.expected, f.got, {"pass": "✅", "skip": "not compared"}[f.status])
            for f in others
        ]
        lines += ["", "</details>", ""]
    lines += [f"- {note}" for note in findings.notes]
    return "\n".join(lines) + "\n"


def _row(*cells: str) -> str:
    return "| " + " | ".join(map(_cell, cells)) + " |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


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
    return [write_text(path, text) for path, text in texts.items()]
