"""Fuzz the readers: `python reports/fuzz/run.py [CASES]` from the repository root. Writes results.json beside itself.

Each case is one damaged file of one format (see tests/gti_diag/test_checkpoint_fuzz.py), opened, partitioned and read.
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

from tests.gti_diag.test_checkpoint_fuzz import TARGETS, cases, outcome, sound

CAP = 8 << 30
NOTHING_SAVED = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}


def main(total: int) -> None:
    each = -(-total // len(TARGETS))
    counts: dict[str, Counter] = {target: Counter() for target in TARGETS}
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as home:
        for number, target in enumerate(TARGETS):
            sound(target, home)

            @seed(number)
            @settings(max_examples=each, phases=[Phase.generate], **NOTHING_SAVED)
            @given(cases(home, [target]))
            def check(case: tuple) -> None:
                name, path, data = case
                counts[name][outcome(path, data)] += 1

            resource.setrlimit(resource.RLIMIT_AS, (CAP, resource.RLIM_INFINITY))
            check()
            print(f"{target}: {dict(counts[target])}", flush=True)
    found = {
        "cases": sum(sum(count.values()) for count in counts.values()),
        "seconds": round(time.monotonic() - started, 1),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "outcomes": {target: dict(count) for target, count in counts.items()},
    }
    Path(__file__).with_name("results.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 56_000)
