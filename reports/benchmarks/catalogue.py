"""Time and memory of reading a catalogue: a generated file of events, one JSON object a line, beside its items.

python reports/benchmarks/catalogue.py --events 1000000 --folder /tmp/made
"""

import argparse
import json
import resource
import time
from pathlib import Path
from random import Random

from gti_train.catalogue.reading import open_catalogue
from gti_train.catalogue.splits import leave_one_out


def generate(folder: Path, events: int, seed: int = 0) -> None:
    """`events` lines of user, item and time: a tenth as many users, a twentieth as many items."""
    random, items, users = Random(seed), max(events // 20, 1), max(events // 10, 1)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "items.jsonl").open("w") as file:
        file.writelines(
            json.dumps({"item_id": f"i{row}", "title": f"Thing number {row}"}) + "\n" for row in range(items)
        )
    with (folder / "events.jsonl").open("w") as file:
        for time_ in range(events):
            record = {"user_id": f"u{random.randrange(users)}", "item_id": f"i{random.randrange(items)}", "time": time_}
            file.write(json.dumps(record) + "\n")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--events", type=int, default=1_000_000)
    options.add_argument("--folder", type=Path, required=True)
    asked = options.parse_args()
    if not (asked.folder / "events.jsonl").exists():
        generate(asked.folder, asked.events)
    before, spent = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    catalogue = open_catalogue(asked.folder).catalogue
    split = leave_one_out(catalogue)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"{len(catalogue.items)} items, {len(catalogue.columns.rows)} events, {len(split.test.rows)} tests: "
        f"{time.process_time() - spent:.1f} CPU s, peak {peak / 1024:.0f} MB ({before / 1024:.0f} MB before)"
    )


if __name__ == "__main__":
    main()
