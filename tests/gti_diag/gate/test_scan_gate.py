"""A scan as findings of the gate: JUnit and SARIF."""

import json
from xml.etree import ElementTree

from gti_diag.gate.output import junit, sarif
from gti_diag.gate.scan_gate import check_scan
from tests.gti_diag.render.scan_cases import SCAN, scan


def statuses(found):
    return {finding.measure: finding.status for finding in found.findings}


def test_what_was_asked_for_fails_and_the_rest_warns():
    assert statuses(check_scan(SCAN, ["near_zero"])) == {
        "not_finite": "pass", "zero": "pass", "near_zero": "fail", "giant": "pass", "copies": "pass", "cluster": "pass",
        "untrained": "skip", "copy_of_old": "pass", "old_row_moved": "pass", "input_head_disagree": "pass",
    }  # fmt: skip
    assert statuses(check_scan(SCAN, ["zero"]))["near_zero"] == "warn"
    assert statuses(check_scan(scan(padding=[2, 7, 9]), ["near_zero"]))["near_zero"] == "warn"


def test_junit_fails_exactly_where_the_exit_code_does():
    root = ElementTree.fromstring(junit(check_scan(SCAN, ["near_zero"])))
    assert root.attrib["failures"] == "1" and root.attrib["skipped"] == "1"
    text = next(root.iter("failure")).text
    assert "likely cause: never trained\nto do: gti-train repair ckpt\ncheck: gti-diag scan repaired" in text
    assert ElementTree.fromstring(junit(check_scan(SCAN, []))).attrib["failures"] == "0"


def test_sarif_has_errors_and_warnings_with_all_steps():
    for kinds, level in ((["near_zero"], "error"), ([], "warning")):
        (result,) = json.loads(sarif(check_scan(SCAN, kinds)))["runs"][0]["results"]
        assert result["level"] == level and result["ruleId"].startswith("input/near_zero")
        assert "</s> 2" in result["message"]["text"] and result["message"]["text"].count("likely cause") == 1
        assert "check: gti-diag scan repaired" in result["message"]["text"]
