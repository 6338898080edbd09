"""Findings as JUnit, SARIF, Markdown and JSON: what the readers of those formats insist on."""

import json
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from gti_diag.errors import InputError
from gti_diag.gate import findings as gate
from gti_diag.gate import output as gate_output
from tests.gti_diag.gate.gate_cases import HEALTHY, analysis


@pytest.fixture
def failed() -> gate.Findings:
    return gate.check(analysis("collapsed", new__dispersion_ratio=3e-5))


def test_junit_counts_agree_with_its_cases(failed):
    root = ElementTree.fromstring(gate_output.junit(failed))
    suite = root.find("testsuite")
    cases = suite.findall("testcase")
    assert root.tag == "testsuites"
    assert int(suite.get("tests")) == len(cases) == len(failed.findings)
    assert int(suite.get("failures")) == len(suite.findall("testcase/failure")) == len(failed.failures)
    assert int(suite.get("skipped")) == len(suite.findall("testcase/skipped"))
    assert "likely cause: as close together" in suite.find("testcase/failure").text


def test_junit_survives_token_strings_that_xml_cannot_hold(failed):
    odd = replace(failed.failures[0], got="token '\x00\x1b<&\udcff' is odd")
    root = ElementTree.fromstring(gate_output.junit(replace(failed, findings=(odd,))))
    assert "token '\\u0000\\u001b<&\\udcff' is odd" in root.find(".//failure").text


def test_sarif_results_point_at_their_rules_and_the_checkpoint(failed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "models" / "ckpt"
    folder.mkdir(parents=True)
    log = json.loads(gate_output.sarif(replace(failed, checkpoint=str(folder))))
    run = log["runs"][0]
    rules = run["tool"]["driver"]["rules"]
    assert log["version"] == "2.1.0"
    assert len({rule["id"] for rule in rules}) == len(rules) == len(failed.findings)
    assert len(run["results"]) == len(failed.failures)
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "models/ckpt"


def test_sarif_of_a_pass_has_rules_and_no_results():
    run = json.loads(gate_output.sarif(gate.check(HEALTHY)))["runs"][0]
    assert run["results"] == []
    assert run["tool"]["driver"]["rules"]


def test_markdown_tables_keep_their_columns_whatever_the_text(failed):
    odd = replace(failed.failures[0], got="a | b\nc <script>")
    text = gate_output.markdown(replace(failed, findings=(odd, *failed.findings[1:])))
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert {line.replace("\\|", "").count("|") for line in rows} == {6}
    assert "<script>" not in text
    assert "## Embedding check: ❌ 2 failed" in text


def test_markdown_of_a_pass_says_so():
    assert gate_output.markdown(gate.check(HEALTHY)).startswith("## Embedding check: ✅ passed\n")


def test_json_holds_every_finding(failed):
    document = json.loads(gate_output.as_json(failed))
    assert (document["schema"], document["passed"]) == (1, False)
    assert len(document["findings"]) == len(failed.findings)
    keys = {"status", "matrix", "measure", "expected", "got", "cause", "action", "verify"}
    assert set(document["findings"][0]) == keys


def test_the_github_summary_is_appended_only_where_github_asks(failed, tmp_path):
    file = tmp_path / "summary"
    assert gate_output.append_github_summary(failed, {}) is None
    for _ in range(2):
        assert gate_output.append_github_summary(failed, {"GITHUB_STEP_SUMMARY": str(file)}) == file
    assert file.read_text().count("## Embedding check") == 2
    with pytest.raises(InputError, match="GITHUB_STEP_SUMMARY"):
        gate_output.append_github_summary(failed, {"GITHUB_STEP_SUMMARY": str(tmp_path / "no" / "folder")})
