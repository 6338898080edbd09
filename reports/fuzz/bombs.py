"""Peak memory and time of `gti-diag inspect` on checkpoints that claim more than they hold: `python reports/fuzz/bombs.py`.

Writes bombs.json beside itself.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.gti_diag.checkpoint.bombs import MAKERS
from tests.gti_diag.checkpoint.test_bombs import inspected


def main() -> None:
    found = {}
    for make in MAKERS:
        with tempfile.TemporaryDirectory() as home:
            folder = Path(home)
            make(folder)
            stored = sum(file.stat().st_blocks * 512 for file in folder.iterdir())
            began = time.monotonic()
            code, said, peak = inspected(folder)
            found[make.__name__] = {
                "stored_bytes": stored,
                "exit_code": code,
                "seconds": round(time.monotonic() - began, 1),
                "peak_memory_mb": peak,
                "said": said.strip().replace(home, "CKPT"),
            }
            print(make.__name__, found[make.__name__], flush=True)
    Path(__file__).with_name("bombs.json").write_text(
        json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main()
