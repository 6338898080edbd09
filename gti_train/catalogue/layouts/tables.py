"""Tables of any origin: CSV, TSV and Parquet, with a header; `columns` maps our field names to theirs.

A file with a user column holds events, another one with an item column holds items; several of a kind are read one after
the other, as shards are.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gti_diag.errors import InputError

from ..collecting import Collector, Place, split_names
from ..sources import Layout, Lines, Source, header_of, plain_name, table_rows

TEXTS, PARQUET = ("*.csv", "*.tsv"), "*.parquet"
FIELDS: Mapping[str, tuple[str, ...]] = {  # ours, and what it is called elsewhere, in small letters
    "item_id": ("item_id", "itemid", "product_id", "productid", "movieid", "sku", "asin", "parent_asin", "item", "id"),
    "title": ("title", "name", "product_name", "item_title"),
    "description": ("description", "text", "body", "item_description"),
    "category": ("category", "categories", "genres"),
    "brand": ("brand", "maker", "store"),
    "user_id": ("user_id", "userid", "customer_id", "visitor_id", "session_id", "user"),
    "time": ("time", "timestamp", "date", "datetime", "event_time", "ts"),
}
BATCH = 8192  # rows of a Parquet file in memory


@dataclass(frozen=True)
class Table:
    """A file, what its columns mean (ours → theirs) and, for texts, what stands between them."""

    file: Path
    fields: Mapping[str, str]
    between: str

    @property
    def holds(self) -> str | None:
        if {"user_id", "item_id"} <= self.fields.keys():
            return "events"
        return (
            "items"
            if {"item_id", "title"} <= self.fields.keys() or {"item_id", "description"} <= self.fields.keys()
            else None
        )


def finds(source: Source) -> str | None:
    files = source.like(*TEXTS, PARQUET)
    tables = [table for table in map(_table(source), files) if table.holds]
    if not tables and files and source.path.is_file():
        return f"{source.path.name} is a table"
    return f"{tables[0].file.name} is a table of {tables[0].holds}" if tables else None


def read(source: Source, collector: Collector) -> None:
    tables = [_table(source)(file) for file in source.like(*TEXTS, PARQUET)]
    kinds = {kind: [table for table in tables if table.holds == kind] for kind in ("items", "events", None)}
    if not kinds["items"] and not kinds["events"]:
        raise InputError(_unclear(tables[0]))
    collector.notes.extend(f"{table.file.name} was left out: neither items nor events" for table in kinds[None])
    for table in kinds["items"]:
        collector.table = True
        for place, row in _rows(table, collector):
            with collector.at(place):
                category = row.get("category")
                row["category"] = split_names(category) if isinstance(category, str) else category
                collector.item(row.pop("item_id"), **{key: row[key] for key in row if key not in ("user_id", "time")})
    for table in kinds["events"]:
        if "time" not in table.fields:
            collector.timed = False
            collector.notes.append(f"{table.file.name} names no time: its rows count as being in order")
        for order, (place, row) in enumerate(_rows(table, collector)):
            with collector.at(place):
                collector.event(row["user_id"], row["item_id"], row.get("time", order))


def _table(source: Source):
    def look(file: Path) -> Table:
        names, between = _parquet_names(file) if plain_name(file).endswith(".parquet") else header_of(file)
        lower = {name.lower(): name for name in names}
        if asked := [name for name in source.columns.values() if name not in names and source.path.is_file()]:
            raise InputError(f"{file} has no column {asked[0]!r}; its columns are {', '.join(names)}")
        fields: dict[str, str] = {}
        for ours, others in FIELDS.items():
            wanted = source.columns.get(ours)
            found = (
                wanted if wanted in names else None if wanted else next((lower[n] for n in others if n in lower), None)
            )
            if found is not None and found not in fields.values():
                fields[ours] = found
        return Table(file, fields, between)

    return look


def _unclear(table: Table) -> str:
    known = ", ".join(f"{ours}={theirs}" for ours, theirs in table.fields.items()) or "none known"
    return (
        f"{table.file}: no column for item_id with title, or with user_id ({known}); name them, --columns title=NAME,…"
    )


def _rows(table: Table, collector: Collector) -> Iterator[tuple[Place, dict[str, Any]]]:
    if plain_name(table.file).endswith(".parquet"):
        yield from _parquet_rows(table)
        return
    for place, row in table_rows(Lines(table.file, collector), table.between):
        yield place, {ours: row[theirs] for ours, theirs in table.fields.items()}


def _parquet_names(file: Path) -> tuple[list[str], str]:
    return list(_parquet(file).schema_arrow.names), ""


def _parquet_rows(table: Table) -> Iterator[tuple[Place, dict[str, Any]]]:
    number = 0
    for batch in _parquet(table.file).iter_batches(batch_size=BATCH, columns=list(table.fields.values())):
        for row in batch.to_pylist():
            number += 1
            yield Place(table.file, f"row {number}"), {ours: row[theirs] for ours, theirs in table.fields.items()}


def _parquet(file: Path):
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise InputError(f"{file}: Parquet needs pyarrow; run `pip install gti-diag[recommend]`") from None
    try:
        return ParquetFile(file)
    except (OSError, ArrowException) as error:
        raise InputError(f"{file}: no Parquet file ({str(error).splitlines()[0]})") from error


LAYOUT = Layout("tables", "CSV, TSV or Parquet with a header (--columns title=NAME,…)", finds, read)
