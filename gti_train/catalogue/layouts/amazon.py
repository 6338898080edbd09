"""Amazon reviews as published in 2014, 2018 and 2023: JSON lines of reviews and of product data, under changing names.

A review is an event. The product data of 2014 are Python literals, not JSON; both are read. Without product data, items
are those of the reviews and have no text.
"""

import ast
import json
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from ..collecting import Collector
from ..sources import Layout, Source, json_records, opened

ENDINGS = ("*.json", "*.jsonl")


@dataclass(frozen=True)
class Edition:
    """The names of one year's fields; a product's `category` may be a list, or a list of paths."""

    year: str
    user: str
    item: str
    time: str
    product: str  # id in the product data
    category: str
    brand: str


EDITIONS = (
    Edition("2023", user="user_id", item="parent_asin", time="timestamp", product="parent_asin", category="categories", brand="store"),
    Edition("2018", user="reviewerID", item="asin", time="unixReviewTime", product="asin", category="category", brand="brand"),
    Edition("2014", user="reviewerID", item="asin", time="unixReviewTime", product="asin", category="categories", brand="brand"),
)  # fmt: skip


def finds(source: Source) -> str | None:
    for file in source.like(*ENDINGS):
        record = _first(file)
        for edition in EDITIONS:
            if {edition.user, edition.item, edition.time} <= record.keys():
                return f"{file.name} has {edition.user}, {edition.item} and {edition.time}, as Amazon's reviews have"
    return None


def read(source: Source, collector: Collector) -> None:
    reviews: list[tuple[Path, Edition]] = []
    for file in source.like(*ENDINGS):
        record = _first(file)
        review = next((e for e in EDITIONS if {e.user, e.item, e.time} <= record.keys()), None)
        product = next((e for e in EDITIONS if {e.product, e.category} <= record.keys()), None)
        product = product or next((e for e in EDITIONS if {e.product, "title"} <= record.keys()), None)
        if review:
            reviews.append((file, review))
        elif product:
            _read_products(file, product, collector)
        else:
            collector.notes.append(f"{file.name} was left out: neither reviews nor products")
    for file, edition in reviews:
        for place, record in json_records(file, collector, parse=_parsed):
            with collector.at(place):
                collector.event(record.get(edition.user), record.get(edition.item), record.get(edition.time))


def _read_products(file: Path, edition: Edition, collector: Collector) -> None:
    collector.table = True
    for place, record in json_records(file, collector, parse=_parsed):
        with collector.at(place):
            category = record.get(edition.category) or []
            if category and isinstance(category[0], list):  # several paths: the first one
                category = category[0]
            fields = {name: record.get(name) for name in ("title", "description")}
            collector.item(record.get(edition.product), **fields, category=category, brand=record.get(edition.brand))


def _parsed(line: str) -> Any:
    """JSON, or the Python literal that 2014 wrote in its place."""
    try:
        return json.loads(line)
    except ValueError:
        if not line.lstrip().startswith("{'"):
            raise
        return ast.literal_eval(line.strip())


def _first(file: Path) -> dict[str, Any]:
    with opened(file) as lines:
        for line in islice(lines, 100):
            try:
                record = _parsed(line.decode("utf-8"))
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
            return record if isinstance(record, dict) else {}
    return {}


LAYOUT = Layout("amazon", "reviews and product data of 2014, 2018 or 2023 as JSON lines", finds, read)
