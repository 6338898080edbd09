"""JSON lines: one object a line.

Items: `item_id` and `title`; optional `description`, `category` (list), `brand`, `attributes` (object), `sid` (list of
code tokens). Users: `user_id` and either `events`, a list of `{"item_id", "time"}`, or `items`, a list of ids in order.
Events: `user_id`, `item_id`, `time`.
"""

import json
from itertools import islice
from pathlib import Path
from typing import Any

from ..collecting import BadRecord, Collector, identifier_of
from ..sources import Layout, Source, json_records, opened

ENDINGS = ("*.jsonl", "*.ndjson", "*.json")


def finds(source: Source) -> str | None:
    kinds = {file: _kind(file, source) for file in source.like(*ENDINGS)}
    items = [file.name for file, kind in kinds.items() if kind == "items"]
    if not items and source.path.is_file() and source.like("*.jsonl", "*.ndjson"):
        items = [source.path.name]  # named by the user: its records will say what is wrong
    return f"{items[0]} holds one object a line with {source.ours('item_id', 'item_id')}" if items else None


def read(source: Source, collector: Collector) -> None:
    files = source.like(*ENDINGS)
    kinds = {file: _kind(file, source) for file in files}
    items = [file for file in files if kinds[file] == "items"] or ([source.path] if source.path.is_file() else [])
    for file in items:
        read_items(file, source, collector)
    for file in files:
        if kinds[file] == "histories":
            read_histories(file, source, collector)
        elif kinds[file] is None and file not in items:
            collector.notes.append(f"{file.name} was left out: its first line has neither items nor events")


def read_items(path: Path, source: Source, collector: Collector) -> None:
    """Read one file of items.

    Raises:
        InputError: as `json_records`; a record that is no item, if bad ones are not skipped.
    """
    collector.table = True
    title = source.ours("title", "title")
    names = {name: source.ours(name, name) for name in ("description", "category", "brand", "attributes")}
    for place, record in json_records(path, collector):
        with collector.at(place):
            if title not in record:
                raise BadRecord("no_title", f'no {title}; every item needs one ("" if it has none)')
            fields: dict[str, Any] = {name: record.get(theirs) for name, theirs in names.items()}
            item = collector.item(record.get(source.ours("item_id", "item_id")), title=record[title], **fields)
            if isinstance(record.get("sid"), list) and all(isinstance(part, str) for part in record["sid"]):
                collector.code(item, record["sid"])


def read_histories(path: Path, source: Source, collector: Collector) -> None:
    """Read one file of users, or of events.

    Raises:
        InputError: as `json_records`; a record that is neither, or a user on two lines, if bad ones are not skipped.
    """
    users: set[str] = set()
    item, time = source.ours("item_id", "item_id"), source.ours("time", "time")
    for place, record in json_records(path, collector):
        with collector.at(place):
            user = identifier_of(record.get(source.ours("user_id", "user_id")), "user_id")
            if item in record:
                collector.event(user, record[item], record.get(time))
                continue
            if user in users:
                raise BadRecord(
                    "duplicate_user", f"user_id {user!r} occurs a second time; put all events of a user on one line"
                )
            users.add(user)
            if "events" not in record:
                collector.timed = False
            for found in _events(record):
                with collector.at(place):
                    collector.event(user, found.get(item), found.get(time))


def _events(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The events of a user's line; a plain list of items has its order for time."""
    listed = record.get("events")
    if listed is None and isinstance(record.get("items"), list):
        return [{"item_id": item, "time": place} for place, item in enumerate(record["items"])]
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        raise BadRecord("bad_events", 'events must be a list of {"item_id", "time"} objects')
    return listed


def _kind(file: Path, source: Source) -> str | None:
    """What a file holds, from the first of its lines that is an object."""
    with opened(file) as lines:
        for line in islice(lines, 100):
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if not isinstance(record, dict):
                continue
            if source.ours("user_id", "user_id") in record:
                return "histories"
            return "items" if source.ours("item_id", "item_id") in record else None
    return None


LAYOUT = Layout("json-lines", "items.jsonl and histories.jsonl, one object a line", finds, read)
