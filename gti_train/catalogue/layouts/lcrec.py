"""The layout of LC-Rec and LETTER: `X.item.json` (id → texts), `X.inter.json` (user → ids in order), `X.index.json`
(id → code tokens). Any of the three may be absent.
"""

from pathlib import Path
from typing import Any

from gti_diag.errors import InputError

from ..collecting import Collector, Place
from ..sources import Layout, Source, json_object, plain_name

PARTS = (".item.json", ".inter.json", ".index.json")


def finds(source: Source) -> str | None:
    names = source.like(*(f"*{part}" for part in PARTS))
    return f"{names[0].name} is named as LC-Rec and LETTER name theirs" if names else None


def read(source: Source, collector: Collector) -> None:
    files = _files(source, collector)
    if ".item.json" in files:
        collector.table = True
        for identifier, record in json_object(files[".item.json"]).items():
            with collector.at(Place(files[".item.json"], f"item {identifier!r}")):
                collector.item(identifier, **_fields(record))
    elif ".index.json" in files:  # the index lists every item, so it is the table
        collector.table = True
        for identifier in json_object(files[".index.json"]):
            with collector.at(Place(files[".index.json"], f"item {identifier!r}")):
                collector.item(identifier)
    if ".inter.json" in files:
        collector.timed = False
        for user, items in json_object(files[".inter.json"]).items():
            for order, item in enumerate(items if isinstance(items, list) else [items]):
                with collector.at(Place(files[".inter.json"], f"user {user!r}")):
                    collector.event(user, item, order)
    if ".index.json" in files:
        for identifier, tokens in json_object(files[".index.json"]).items():
            with collector.at(Place(files[".index.json"], f"item {identifier!r}")):
                collector.code(identifier, tokens)


def _files(source: Source, collector: Collector) -> dict[str, Path]:
    """The files of the one data set X in the source, by part.

    Raises:
        InputError: several data sets lie there.
    """
    beside = Source(source.path.parent) if source.path.is_file() else source
    sets: dict[str, dict[str, Path]] = {}
    for part in PARTS:
        for file in beside.like(f"*{part}"):
            sets.setdefault(plain_name(file).removesuffix(part), {})[part] = file
    if source.path.is_file():
        stem = next(
            plain_name(source.path).removesuffix(part) for part in PARTS if plain_name(source.path).endswith(part)
        )
        return sets[stem]
    whole = {stem: files for stem, files in sets.items() if set(files) & {".item.json", ".inter.json"}} or sets
    if len(whole) > 1:
        raise InputError(f"{source.path} holds several catalogues ({', '.join(sorted(whole))}): name a file of one")
    collector.notes.extend(
        f"{stem}.index.json was left out: no items or events beside it" for stem in sets.keys() - whole
    )
    return next(iter(whole.values()))


def _fields(record: Any) -> dict[str, Any]:
    if not isinstance(record, dict):
        return {"title": record}
    categories = record.get("categories") or []
    return {
        "title": record.get("title"),
        "description": record.get("description"),
        "brand": record.get("brand"),
        "category": [part.strip() for part in categories.split(",")] if isinstance(categories, str) else categories,
    }


LAYOUT = Layout("lc-rec", "X.item.json, X.inter.json, X.index.json (LC-Rec, LETTER)", finds, read)
