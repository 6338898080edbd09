"""Items (text) and who chose them when: one form in memory, JSON lines on disk.

A `Catalogue` holds items in a fixed order and, for each user, events in order of time. Its histories are a mapping
`user -> (Event, …)`; `Histories` is that mapping held in columns, 12 bytes an event, for catalogues of any size.

`items.jsonl` holds one object a line: `item_id` and `title` are required; `description` (string), `category`
(list of names, broad to narrow), `brand` and `attributes` (object of strings) are optional, other keys are
ignored. `histories.jsonl` holds one user a line: `user_id` and `events`, a list of `{"item_id", "time"}`
(time: any integer).
"""

from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Item:
    """One thing that a semantic ID will stand for."""

    id: str
    title: str
    description: str = ""
    category: tuple[str, ...] = ()
    brand: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """Title, category path and description, as the text encoders read them."""
        parts = (self.title, ", ".join(self.category), self.description)
        return ". ".join(part for part in parts if part)


@dataclass(frozen=True, slots=True)
class Event:
    """A user met an item; `time` orders events and has no unit."""

    item_id: str
    time: int


@dataclass(frozen=True, eq=False)
class Histories(Mapping[str, tuple[Event, ...]]):
    """A mapping of users to their events, held in columns.

    The events of user u are the positions `starts[u] : starts[u + 1]` of `rows` and `times`, in order of time; `rows`
    are places in `item_ids`. Equal to any mapping with the same users and events.
    """

    user_ids: tuple[str, ...]
    item_ids: tuple[str, ...]
    starts: np.ndarray  # int64, users + 1
    rows: np.ndarray  # int32, events
    times: np.ndarray  # int64, events

    def __getitem__(self, user: str) -> tuple[Event, ...]:
        place = self._places[user]
        span = slice(self.starts[place], self.starts[place + 1])
        pairs = zip(self.rows[span].tolist(), self.times[span].tolist(), strict=True)
        return tuple(Event(self.item_ids[row], time) for row, time in pairs)

    def __iter__(self) -> Iterator[str]:
        return iter(self.user_ids)

    def __len__(self) -> int:
        return len(self.user_ids)

    @cached_property
    def _places(self) -> dict[str, int]:
        return {user: place for place, user in enumerate(self.user_ids)}

    @property
    def users(self) -> np.ndarray:
        """The place in `user_ids` of the user of each event."""
        return np.repeat(np.arange(len(self.user_ids)), np.diff(self.starts))

    def where(self, kept: np.ndarray) -> "Histories":
        """Only the events that the mask `kept` names; users whom it leaves none are gone."""
        counts = np.bincount(self.users[kept], minlength=len(self.user_ids))
        stay = np.flatnonzero(counts)
        starts = np.concatenate([[0], counts[stay].cumsum()]).astype(np.int64)
        users = tuple(self.user_ids[place] for place in stay.tolist())
        return Histories(users, self.item_ids, starts, self.rows[kept], self.times[kept])


@dataclass(frozen=True)
class Catalogue:
    """Items in a fixed order, and for each user the events in order of time."""

    items: tuple[Item, ...]
    histories: Mapping[str, tuple[Event, ...]] = field(default_factory=dict)

    @property
    def columns(self) -> Histories:
        """The histories in columns, whose `item_ids` are those of `items`."""
        if isinstance(self.histories, Histories):
            return self.histories
        gathered = Gathering(item.id for item in self.items)
        for user, events in self.histories.items():
            for event in events:
                gathered.add(user, event.item_id, event.time)
        return gathered.histories()


class Gathering:
    """Events as they come, in any order, gathered into columns: 16 bytes an event until `histories` sorts them."""

    def __init__(self, item_ids: Iterable[str] = ()) -> None:
        self.items = {item: row for row, item in enumerate(item_ids)}
        self._users: dict[str, int] = {}
        self._columns = array("i"), array("i"), array("q")

    def add(self, user: str, item: str, time: int) -> None:
        """An event of a known item.

        Raises:
            KeyError: no such item.
        """
        users, rows, times = self._columns
        rows.append(self.items[item])
        users.append(self._users.setdefault(user, len(self._users)))
        times.append(time)

    def __len__(self) -> int:
        return len(self._columns[0])

    def histories(self) -> Histories:
        """Users in order of their first appearance, events in order of time; equal times keep the order they came in."""
        users, rows = (np.frombuffer(column, dtype=np.int32) if column else np.zeros(0, np.int32)
                       for column in self._columns[:2])  # fmt: skip
        times = np.frombuffer(self._columns[2], dtype=np.int64) if self._columns[2] else np.zeros(0, np.int64)
        order = np.lexsort((times, users))  # stable
        counts = np.bincount(users, minlength=len(self._users))
        starts = np.concatenate([[0], counts.cumsum()]).astype(np.int64)
        return Histories(tuple(self._users), tuple(self.items), starts, rows[order], times[order])
