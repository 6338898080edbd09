"""From a source of any layout to a catalogue."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gti_diag.errors import InputError

from .collecting import Collector
from .layouts import LAYOUTS, json_lines
from .records import Catalogue
from .sources import Layout, Source


@dataclass(frozen=True)
class Reading:
    """A catalogue, the layout it was found in and why, and what was left out."""

    catalogue: Catalogue
    layout: str
    why: str
    skipped: Mapping[str, int]
    notes: tuple[str, ...]
    codes: Mapping[str, tuple[str, ...]]  # code tokens that the source brings, by item
    timed: bool  # False: times are places in a history, and say nothing across users


def open_catalogue(
    path: str | os.PathLike[str],
    *,
    layout: str | None = None,
    columns: Mapping[str, str] | None = None,
    skip_bad: bool = False,
) -> Reading:
    """Read the catalogue at `path` in `layout`, or in the first layout whose files are there.

    `columns` maps our names (item_id, title, description, category, brand, user_id, time) to the source's.

    Raises:
        InputError: nothing there, no layout fits, or a record cannot be used and `skip_bad` is off.
    """
    source = Source(Path(path), columns or {})
    chosen, why = _chosen(source, layout)
    collector = Collector(skip_bad=skip_bad)
    chosen.read(source, collector)
    items, _ = collector.counts
    if not items:
        raise InputError(f"{path}: no item in the layout {chosen.name}; {chosen.what}")
    skipped, notes = dict(collector.skipped), tuple(collector.notes)
    return Reading(collector.catalogue(), chosen.name, why, skipped, notes, collector.codes, collector.timed)


def read_catalogue(items: str | os.PathLike[str], histories: str | os.PathLike[str] | None = None) -> Catalogue:
    """Read JSON lines of items and, if given, of histories, as `write_catalogue` writes them.

    Raises:
        InputError: a file is missing or empty, a line is not a JSON object, a required key is absent or of the
            wrong type, an item or user occurs twice, or an event names an unknown item.
    """
    collector = Collector()
    json_lines.read_items(Path(items), Source(Path(items)), collector)
    if histories is not None:
        json_lines.read_histories(Path(histories), Source(Path(histories)), collector)
    return collector.catalogue()


def read_histories(path: str | os.PathLike[str], item_ids: Iterable[str]) -> Catalogue:
    """Read JSON lines of histories alone; the items, known otherwise, have no texts.

    Raises:
        InputError: as `read_catalogue`; an event names none of `item_ids`.
    """
    collector = Collector()
    collector.table = True
    for item in item_ids:
        collector.item(item)
    json_lines.read_histories(Path(path), Source(Path(path)), collector)
    return collector.catalogue()


def _chosen(source: Source, name: str | None) -> tuple[Layout, str]:
    if name is not None:
        found = next((layout for layout in LAYOUTS if layout.name == name), None)
        if found is None:
            raise InputError(f"layout {name!r} is unknown: use one of {', '.join(layout.name for layout in LAYOUTS)}")
        if found.finds(source) is None:
            raise InputError(f"{source.path} has not the layout {name}: {found.what}")
        return found, "as asked"
    for layout in LAYOUTS:
        if why := layout.finds(source):
            return layout, why
    seen = ", ".join(file.name for file in source.files[:5]) or "no files"
    known = "; ".join(f"{layout.name}: {layout.what}" for layout in LAYOUTS)
    raise InputError(f"{source.path} ({seen}) has no layout that is known. {known}")
