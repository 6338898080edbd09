"""The pytest plugin, in a pytest of its own: it loads without weight and fails readably."""

import json
import os
import subprocess
import sys

from tests.gti_diag.gate.gate_cases import HEALTHY, analysis

TESTS = """
from gti_diag.gate.pytest_plugin import assert_healthy_embeddings as imported

def test_good(assert_healthy_embeddings):
    assert assert_healthy_embeddings("good.json").passed

def test_bad(assert_healthy_embeddings):
    assert_healthy_embeddings("bad.json", policy="strict")

def test_imported_is_the_fixture(assert_healthy_embeddings):
    assert imported is assert_healthy_embeddings
"""


def test_the_fixture_passes_and_fails_with_expected_got_and_cause(tmp_path):
    (tmp_path / "good.json").write_text(json.dumps(HEALTHY))
    (tmp_path / "bad.json").write_text(json.dumps(analysis("collapsed", new__dispersion_ratio=3e-5)))
    (tmp_path / "test_it.py").write_text(TESTS)
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "gti_diag.gate.pytest_plugin", "-p", "no:cacheprovider", "test_it.py"],
        cwd=tmp_path, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert "1 failed, 2 passed" in done.stdout, done.stdout + done.stderr
    assert "input verdict: expected not collapsed, degenerate, unstructured, got collapsed" in done.stdout
    assert "input new.dispersion_ratio: expected at least 0.02" in done.stdout
    assert "likely cause: as close together as resize_token_embeddings" in done.stdout
    assert "def assert_healthy_embeddings" not in done.stdout, "a user wants the findings, not our source"


def test_importing_the_plugin_loads_nothing_heavy_and_no_core():
    code = (
        "import sys, gti_diag.gate.pytest_plugin; "
        "print(sorted(m for m in sys.modules if m.split('.')[0] in ('torch', 'transformers', 'numpy', 'typer', 'gti_diag')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['gti_diag', 'gti_diag.errors', 'gti_diag.gate', 'gti_diag.gate.pytest_plugin']"
