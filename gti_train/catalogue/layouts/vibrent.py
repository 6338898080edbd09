"""Vibrent Clothes Rental: semicolon-separated orders (a rental is an event on the day it starts) and, where given, outfits."""

from pathlib import Path

from ..collecting import Collector, split_names
from ..sources import Layout, Lines, Source, header_of, table_rows

ORDERS = {"customer.id", "outfit.id", "rentalPeriod.start"}


def finds(source: Source) -> str | None:
    orders = _orders(source)
    return f"{orders[0].name} has the columns {', '.join(sorted(ORDERS))} of Vibrent's orders" if orders else None


def read(source: Source, collector: Collector) -> None:
    for file in source.like("*outfits*.csv"):
        if "id" in header_of(file)[0]:
            collector.table = True
            for place, row in table_rows(Lines(file, collector), ";"):
                with collector.at(place):
                    texts = {"title": row.get("name"), "description": row.get("description")}
                    names = split_names((row.get("outfit_tags") or row.get("category") or "").strip("[]"))
                    category = [name.strip("'\" ") for name in names]
                    collector.item(row["id"], **texts, category=category, brand=row.get("brand"))
    for file in _orders(source):
        for place, row in table_rows(Lines(file, collector), ";"):
            with collector.at(place):
                collector.event(row["customer.id"], row["outfit.id"], row["rentalPeriod.start"])


def _orders(source: Source) -> list[Path]:
    return [file for file in source.like("*.csv") if set(header_of(file)[0]) >= ORDERS]


LAYOUT = Layout("vibrent", "original_orders.csv, semicolon-separated, and outfits.csv", finds, read)
