"""What claims more than it holds is refused, or described, in little memory and one line."""

import subprocess
import sys

import pytest

import gti_diag
from gti_diag.errors import InputError
from tests.gti_diag.checkpoint import bombs

MOST = 500  # MB
INSPECT = """
import re, sys
from pathlib import Path
from gti_diag import cli
sys.argv = ["gti-diag", "inspect", sys.argv[1]]
try:
    cli.main()
finally:
    # not getrusage: that counts what the parent took before this program began
    print(int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) // 1024)
"""
SLOW = {
    bombs.pickle_of_lists,
    bombs.pickle_that_inflates,
    bombs.tokenizer_of_lists,
}  # seconds to write; measured in reports/fuzz


def inspected(folder) -> tuple[int, str, int]:
    """Exit code, standard error and peak memory (MB) of `gti-diag inspect`."""
    done = subprocess.run([sys.executable, "-c", INSPECT, str(folder)], capture_output=True, text=True, timeout=100)
    return done.returncode, done.stderr, int(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("make", [make for make in bombs.MAKERS if make not in SLOW], ids=lambda make: make.__name__)
def test_inspect_stays_small(tmp_path, make):
    make(tmp_path)
    code, said, peak = inspected(tmp_path)
    assert peak < MOST
    assert code in (0, 2)
    assert said.count("\n") == (1 if code else 0), said
    assert "not foreseen" not in said


def test_analyze_asks_before_it_names_fifty_million_rows(tmp_path):
    bombs.sparse_rows(tmp_path)
    with pytest.raises(InputError, match=r"has 50,000,000 rows .* about 50 GB .* --max-memory 50GB"):
        gti_diag.diagnose(tmp_path)
