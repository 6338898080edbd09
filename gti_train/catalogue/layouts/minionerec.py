"""MiniOneRec's own files: `info` text (code, title and id, with tabs) and CSVs of histories with their next item.

Each row of a CSV holds what a user had chosen before (its last few items) and the item chosen next, in files for training,
validation and test. Put together in that order they give the history back: a row's items follow what is known of the user
with the longest overlap.
"""

import json
import re
from pathlib import Path

from ..collecting import BadRecord, Collector, Place
from ..sources import Layout, Lines, Source, header_of, table_rows

INFO = re.compile(r"((?:<[a-z]_\d+>)+)\t(.*)\t(\S+)")
COLUMNS = {"user_id", "history_item_id", "item_id"}
ORDER = ("train", "valid", "test")


def finds(source: Source) -> str | None:
    info = next(iter(_infos(source)), None)
    return f"{info.name} has a code, a title and an id on each line, as MiniOneRec writes them" if info else None


def read(source: Source, collector: Collector) -> None:
    for file in _infos(source):
        _read_info(file, collector)
    histories: dict[str, list[str]] = {}
    for file in sorted(_histories(source), key=_order):
        lines = Lines(file, collector)
        for place, row in table_rows(lines, ","):
            with collector.at(place):
                history = _ids(row["history_item_id"])
                known = histories.setdefault(row["user_id"], [])
                known[:] = [*joined(known, history), row["item_id"]]
    collector.timed = False
    for user, items in histories.items():
        for order, item in enumerate(items):
            with collector.at(Place(source.path, f"user {user!r}")):
                collector.event(user, item, order)


def joined(known: list[str], seen: list[str]) -> list[str]:
    """`known` continued by what `seen` adds: the longest end of `known` that `seen` begins with is not repeated."""
    if len(seen) < len(known) and _contains(known, seen):
        return known
    overlap = next(
        size for size in range(min(len(known), len(seen)), -1, -1) if known[len(known) - size :] == seen[:size]
    )
    return known + seen[overlap:]


def _contains(known: list[str], seen: list[str]) -> bool:
    return known[len(known) - len(seen) :] == seen


def _read_info(file: Path, collector: Collector) -> None:
    collector.table = True
    lines = Lines(file, collector)
    for line in lines:
        if not line.strip():
            continue
        with collector.at(lines.place):
            found = INFO.fullmatch(line.rstrip("\r\n"))
            if not found:
                raise BadRecord("bad_row", "not a code, a title and an id with tabs between")
            item = collector.item(found[3], title=found[2])
            collector.code(item, re.findall(r"<[a-z]_\d+>", found[1]))


def _ids(text: str) -> list[str]:
    try:
        return [str(item) for item in json.loads(text)]
    except (ValueError, TypeError):
        raise BadRecord("bad_row", f"history_item_id {text[:40]!r} is not a list of ids") from None


def _infos(source: Source) -> list[Path]:
    return [
        file
        for file in source.like("*.txt")
        if INFO.fullmatch(next(iter(Lines(file, Collector(skip_bad=True))), "").strip())
    ]


def _histories(source: Source) -> list[Path]:
    return [file for file in source.like("*.csv") if set(header_of(file)[0]) >= COLUMNS]


def _order(file: Path) -> int:
    """Training before validation before test; what says none of them comes last."""
    words = f"{file.parent.name} {file.name}".lower()
    return next((place for place, word in enumerate(ORDER) if word in words), len(ORDER))


LAYOUT = Layout("minionerec", "info.txt with codes and CSVs of histories (MiniOneRec)", finds, read)
