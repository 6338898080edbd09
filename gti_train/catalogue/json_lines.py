"""Catalogues as JSON lines."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gti_diag.errors import InputError
from gti_diag.files import write_text

from .records import Catalogue, Event, Item


def read_catalogue(items: str | os.PathLike[str], histories: str | os.PathLike[str] | None = None) -> Catalogue:
    """Read `items` and, if given, `histories`.

    Raises:
        InputError: a file is missing or empty, a line is not a JSON object, a required key is absent or of the
            wrong type, an item or user occurs twice, or an event names an unknown item.
    """
    found: dict[str, Item] = {}
    for where, record in _records(Path(items)):
        item = _item(record, where)
        if item.id in found:
            raise InputError(f"{where}: item_id {item.id!r} occurs a second time; ids must be unique")
        found[item.id] = item
    users: dict[str, tuple[Event, ...]] = {}
    for where, record in _records(Path(histories)) if histories is not None else ():
        user = _identifier(record, "user_id", where)
        if user in users:
            raise InputError(f"{where}: user_id {user!r} occurs a second time; put all events of a user on one line")
        users[user] = _events(record, where, found)
    return Catalogue(tuple(found.values()), users)


def write_catalogue(catalogue: Catalogue, folder: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Write `items.jsonl` and `histories.jsonl` into `folder`; equal catalogues give identical bytes.

    Raises:
        InputError: the folder cannot be written.
    """
    items = [
        {
            "item_id": item.id,
            "title": item.title,
            "description": item.description,
            "category": list(item.category),
            "brand": item.brand,
            "attributes": dict(item.attributes),
        }
        for item in catalogue.items
    ]
    users = [
        {"user_id": user, "events": [{"item_id": event.item_id, "time": event.time} for event in events]}
        for user, events in catalogue.histories.items()
    ]
    return (
        write_text(Path(folder) / "items.jsonl", _lines(items)),
        write_text(Path(folder) / "histories.jsonl", _lines(users)),
    )


def _lines(records: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def _records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (`file, line n`, object) for every line that is not blank."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; give a JSON-lines file of items") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text ({error})") from error
    empty = True
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        empty, where = False, f"{path}, line {number}"
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{where}: not JSON ({error.msg}); each line holds one object") from error
        if not isinstance(record, dict):
            raise InputError(f'{where}: a JSON {type(record).__name__}, not an object like {{"item_id": …}}')
        yield where, record
    if empty:
        raise InputError(f"{path}: empty; at least one JSON object is needed")


def _identifier(record: dict[str, Any], key: str, where: str) -> str:
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
        raise InputError(f"{where}: {key} is {value!r}; it must be a string or an integer")
    return str(value)


def _text(record: dict[str, Any], key: str, where: str) -> str:
    value = record.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InputError(f"{where}: {key} is a {type(value).__name__}; it must be a string")
    return " ".join(value.split())


def _item(record: dict[str, Any], where: str) -> Item:
    title = _text(record, "title", where)
    if not title:
        raise InputError(f"{where}: no title; every item needs one")
    category = record.get("category") or []
    attributes = record.get("attributes") or {}
    if not isinstance(category, list) or not all(isinstance(name, str) for name in category):
        raise InputError(f"{where}: category is {category!r}; it must be a list of names, broad to narrow")
    if not isinstance(attributes, dict):
        raise InputError(f"{where}: attributes is a {type(attributes).__name__}; it must be an object")
    return Item(
        id=_identifier(record, "item_id", where),
        title=title,
        description=_text(record, "description", where),
        category=tuple(category),
        brand=_text(record, "brand", where),
        attributes={str(name): str(value) for name, value in attributes.items()},
    )


def _events(record: dict[str, Any], where: str, items: Mapping[str, Item]) -> tuple[Event, ...]:
    listed = record.get("events")
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        raise InputError(f'{where}: events must be a list of {{"item_id", "time"}} objects')
    events = []
    for entry in listed:
        item, time = _identifier(entry, "item_id", where), entry.get("time")
        if item not in items:
            raise InputError(f"{where}: event of unknown item {item!r}; items and histories do not belong together")
        if isinstance(time, bool) or not isinstance(time, int):
            raise InputError(f"{where}: event time {time!r} is not an integer")
        events.append(Event(item, time))
    return tuple(sorted(events, key=lambda event: event.time))  # stable: equal times keep the order of the file
