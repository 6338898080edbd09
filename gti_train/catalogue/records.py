"""Items (text) and who chose them when: one form in memory, JSON lines on disk.

`items.jsonl` holds one object a line: `item_id` and `title` are required; `description` (string), `category`
(list of names, broad to narrow), `brand` and `attributes` (object of strings) are optional, other keys are
ignored. `histories.jsonl` holds one user a line: `user_id` and `events`, a list of `{"item_id", "time"}`
(time: any integer).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


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


@dataclass(frozen=True)
class Event:
    """A user met an item; `time` orders events and has no unit."""

    item_id: str
    time: int


@dataclass(frozen=True)
class Catalogue:
    """Items in a fixed order, and for each user the events in order of time."""

    items: tuple[Item, ...]
    histories: Mapping[str, tuple[Event, ...]] = field(default_factory=dict)
