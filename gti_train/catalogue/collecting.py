"""What adapters hand over, record by record: checked once, here, whatever the layout.

A record that cannot be used raises `BadRecord`; `Collector.at` turns it into an error with file and line, or counts it
where the user allows that.
"""

import contextlib
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

from gti_diag.errors import InputError

from .records import Catalogue, Gathering, Item

HALF = re.compile("[\ud800-\udfff]")


class BadRecord(ValueError):
    """One record cannot be used; `kind` is what it is counted under."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Place(NamedTuple):
    """Where a record stands; formatted only when somebody must be told."""

    path: Path
    at: str | int

    def __str__(self) -> str:
        return f"{self.path}, line {self.at}" if isinstance(self.at, int) else f"{self.path}, {self.at}"


class Collector:
    """Items, events and brought codes as they come; `skip_bad` counts what cannot be used instead of raising."""

    def __init__(self, *, skip_bad: bool = False) -> None:
        self.skip_bad = skip_bad
        self.skipped: Counter[str] = Counter()
        self.notes: list[str] = []
        self.codes: dict[str, tuple[str, ...]] = {}
        self.table = False  # an item table was read: events of other items are then errors
        self.timed = True  # False: times are places in a history, and say nothing across users
        self._items: list[Item] = []
        self._events = Gathering()

    @contextlib.contextmanager
    def at(self, place: Place) -> Iterator[None]:
        """Raise or count what is wrong with the record at `place`.

        Raises:
            InputError: a record cannot be used and `skip_bad` is off.
        """
        try:
            yield
        except BadRecord as bad:
            if not self.skip_bad:
                raise InputError(f"{place}: {bad}") from bad
            self.skipped[bad.kind] += 1

    def item(self, identifier: object, *, title: object = "", description: object = "", category: object = (),
             brand: object = "", attributes: object = None) -> str:  # fmt: skip
        """One row of the item table; returns its id.

        Raises:
            BadRecord: no usable id, an id for the second time, or a field of another type.
        """
        name = identifier_of(identifier, "item_id")
        if name in self._events.items:
            raise BadRecord("duplicate_item", f"item_id {name!r} occurs a second time; ids must be unique")
        made = Item(
            id=name,
            title=text_of(title, "title"),
            description=text_of(description, "description"),
            category=names_of(category),
            brand=text_of(brand, "brand"),
            attributes=_attributes(attributes),
        )
        self._keep(made)
        return name

    def event(self, user: object, item: object, time: object) -> None:
        """User met item. Without an item table the item is made on its first appearance, without text.

        Raises:
            BadRecord: no usable id or time, or an item that the table lacks.
        """
        name, moment, who = identifier_of(item, "item_id"), time_of(time), identifier_of(user, "user_id")
        if name not in self._events.items:
            if self.table:
                raise BadRecord(
                    "unknown_item", f"event of unknown item {name!r}; items and histories do not belong together"
                )
            self._keep(Item(name, ""))
        self._events.add(who, name, moment)

    def code(self, item: object, tokens: Sequence[str]) -> None:
        """The code sequence that the source brings for an item.

        Raises:
            BadRecord: not a list of strings.
        """
        if not isinstance(tokens, (list, tuple)) or not tokens or not all(isinstance(part, str) for part in tokens):
            raise BadRecord("bad_code", f"code {tokens!r} is not a list of tokens such as <a_1>")
        self.codes[identifier_of(item, "item_id")] = tuple(_whole(part, "code") for part in tokens)

    @property
    def counts(self) -> tuple[int, int]:
        """Items and events so far."""
        return len(self._items), len(self._events)

    def catalogue(self) -> Catalogue:
        return Catalogue(tuple(self._items), self._events.histories())

    def _keep(self, item: Item) -> None:
        self._events.items[item.id] = len(self._items)
        self._items.append(item)


def identifier_of(value: object, key: str) -> str:
    """An id as text; numbers of a table that came as floats lose their `.0`."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
        raise BadRecord(f"no_{key}", f"{key} is {value!r}; it must be a string or an integer")
    return _whole(str(value), key)


def text_of(value: object, key: str) -> str:
    """A text on one line; a list of texts is joined, None is empty."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, (list, tuple)) and all(isinstance(part, str) for part in value):
        value = " ".join(value)
    if not isinstance(value, str):
        raise BadRecord(f"bad_{key}", f"{key} is a {type(value).__name__}; it must be a string")
    return _whole(" ".join(value.split()), key)


def _whole(text: str, key: str) -> str:
    """`text`, if every character of it is whole: JSON can spell half of one, which no tokenizer takes and no file."""
    if not text.isascii() and (half := HALF.search(text)):
        raise BadRecord(
            "half_character", f"{key} holds half a character, \\u{ord(half[0]):04x}; write it whole or drop it"
        )
    return text


def names_of(value: object) -> tuple[str, ...]:
    """A path of names, broad to narrow."""
    if value is None:
        return ()
    if not isinstance(value, (list, tuple)) or not all(isinstance(name, str) for name in value):
        raise BadRecord("bad_category", f"category is {value!r}; it must be a list of names, broad to narrow")
    return tuple(_whole(name, "category") for name in value if name)


def split_names(text: str | None) -> list[str]:
    """The names of a path written in one field, with `>`, `|`, `;` or `,` between: the first of these that occurs."""
    mark = next((mark for mark in (">", "|", ";") if mark in (text or "")), ",")
    return [part.strip() for part in (text or "").split(mark) if part.strip()]


def time_of(value: object) -> int:
    """An integer as it is, a whole or decimal number rounded down, a date as seconds since 1970 (UTC)."""
    if isinstance(value, str):
        text = value.strip()
        try:
            return int(text)
        except ValueError:
            pass
        try:
            value = float(text)
        except ValueError:
            value = _moment(text)
    if isinstance(value, datetime):
        value = value.replace(tzinfo=value.tzinfo or timezone.utc).timestamp()
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise BadRecord("bad_time", f"event time {value!r} is not an integer or a date like 2024-05-31")
    if not -(2**63) <= value < 2**63:
        raise BadRecord("bad_time", f"event time {value!r} does not fit in 64 bits")
    return math.floor(value)


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise BadRecord("bad_time", f"event time {text!r} is not an integer or a date like 2024-05-31") from None


def _attributes(value: Any) -> dict[str, str]:
    if not value:
        return {}
    if not isinstance(value, Mapping):
        raise BadRecord("bad_attributes", f"attributes is a {type(value).__name__}; it must be an object")
    return {_whole(str(name), "attributes"): _whole(str(content), "attributes") for name, content in value.items()}
