"""Catalogues to disk: the JSON lines that every later stage opens."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gti_diag.files import atomic

from .records import Catalogue


def write_catalogue(catalogue: Catalogue, folder: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Write `items.jsonl` and `histories.jsonl` into `folder`; equal catalogues give identical bytes.

    Raises:
        InputError: the folder cannot be written.
    """
    items = (
        {
            "item_id": item.id,
            "title": item.title,
            "description": item.description,
            "category": list(item.category),
            "brand": item.brand,
            "attributes": dict(item.attributes),
        }
        for item in catalogue.items
    )
    users = (
        {"user_id": user, "events": [{"item_id": event.item_id, "time": event.time} for event in events]}
        for user, events in catalogue.histories.items()
    )
    return _write(Path(folder) / "items.jsonl", items), _write(Path(folder) / "histories.jsonl", users)


def _write(path: Path, records: Iterable[dict[str, Any]]) -> Path:
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    return path
