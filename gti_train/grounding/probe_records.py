"""What a probe found: rates with intervals, and the file in which a run goes on where it was."""

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gti_diag.errors import InputError

from .probe import QUESTIONS
from .probe_geometry import EXPECTED

KIND = "gti-train probe"
Record = dict[str, Any]


def wilson(hits: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of a rate. Source: Wilson (1927).

    Raises: ValueError if nothing was counted.
    """
    if count < 1:
        raise ValueError("0 attempts have no rate")
    rate, spread = hits / count, z**2 / count
    half = z * math.sqrt(rate * (1 - rate) / count + z**2 / (4 * count**2))
    return max(0.0, (rate + spread / 2 - half) / (1 + spread)), min(1.0, (rate + spread / 2 + half) / (1 + spread))


def rates(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of each question that was asked: the share of hits over all tokens, with its 95 % interval."""
    found = {}
    for question in QUESTIONS:
        counts = [record[question] for record in records if record[question] is not None]
        hits, count = sum(c[0] for c in counts), sum(c[1] for c in counts)
        found[question] = {"value": hits / count, "interval": wilson(hits, count), "attempts": count} if count else None
    return found


def by_expectation(records: Sequence[Mapping[str, Any]]) -> dict[str, tuple[int, dict[str, Any]]]:
    """The number of tokens and the rates, apart for what their rows let one expect: distinct, crowded, dead."""
    parts = {name: [record for record in records if record["geometry"]["expected"] == name] for name in EXPECTED}
    return {name: (len(part), rates(part)) for name, part in parts.items() if part}


def probed(file: Path, run: str, ids: Sequence[int], make: Callable[[Sequence[int]], Iterator[Record]]) -> list[Record]:
    """The records of all ids: those in `file` (JSON lines, the first of which names the run) as they are; new ones are appended as
    they come. A last line that was not written to its end is made again.

    Raises:
        InputError: the file holds something else, or another run.
    """
    known = _known(file, run)
    left = [id for id in ids if id not in known]
    if not file.is_file():
        file.write_text(json.dumps({"kind": KIND, "run": run}) + "\n", encoding="utf-8")
    with file.open("a", encoding="utf-8") as lines:
        for record in make(left) if left else ():
            lines.write(json.dumps(record, ensure_ascii=False) + "\n")
            lines.flush()
            known[record["id"]] = record
    return [known[id] for id in ids]


def _known(file: Path, run: str) -> dict[int, Record]:
    if not file.is_file():
        return {}
    whole = file.read_bytes().rpartition(b"\n")[0]
    try:
        first, *records = [json.loads(line) for line in whole.decode().splitlines()]
        if first["kind"] != KIND:
            raise ValueError(first["kind"])
        known = {record["id"]: record for record in records}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} holds no records of a probe: remove it, or name another file") from error
    if first["run"] != run:
        raise InputError(f"{file} holds answers of another model, or about other tokens or texts: name another file")
    os.truncate(file, len(whole) + 1)  # what was not written to its end
    return known
