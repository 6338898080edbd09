"""Fuzz the readers: `python reports/fuzz/run.py [CASES [KIND…]]`, by default 56,000 over all kinds of files.

Writes results.json beside itself; the kinds named are done again, the others keep their record.

Each case is one damaged file of one format (see tests/gti_diag/checkpoint/test_fuzz.py), opened, partitioned and read.
Address space is capped, so an absurd allocation fails the run as loudly as a traceback would.
"""

import json
import platform
import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.gti_diag.checkpoint.test_fuzz import TARGETS, cases, outcome, sound

CAP = 8 << 30
NOTHING_SAVED = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}


def main(total: int, targets: list[str]) -> None:
    each = -(-total // len(TARGETS))
    out = Path(__file__).with_name("results.json")
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as home:
        for target in targets:
            sound(target, home)  # before the cap: libraries map much address space while they load
            counts, started = Counter(), time.monotonic()

            @seed(list(TARGETS).index(target))
            @settings(max_examples=each, phases=[Phase.generate], **NOTHING_SAVED)
            @given(cases(home, [target]))
            def check(case: tuple) -> None:
                counts[outcome(*case[1:])] += 1  # noqa: B023  (called in this turn of the loop)

            resource.setrlimit(resource.RLIMIT_AS, (CAP, resource.RLIM_INFINITY))
            check()
            found = json.loads(out.read_text()) if out.is_file() else {"outcomes": {}}
            found["outcomes"][target] = {**counts, "seconds": round(time.monotonic() - started, 1)}
            every = found["outcomes"].values()
            found["cases"] = sum(count.get("read", 0) + count.get("refused", 0) for count in every)
            found["versions"] = {"python": platform.python_version(), "torch": torch.__version__}
            found["peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            out.write_text(json.dumps(found, indent=1) + "\n")
            print(f"{target}: {dict(counts)}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 56_000, sys.argv[2:] or list(TARGETS))
