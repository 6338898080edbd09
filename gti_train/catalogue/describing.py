"""A catalogue in numbers: how much there is, how long, how cold, how unequal."""

from typing import Any

import numpy as np
from jaxtyping import Int

from gti_diag.errors import InputError

from .reading import Reading
from .records import Catalogue
from .splits import Split, global_time, leave_one_out

QUANTILES = (0, 25, 50, 75, 100)


def describe(catalogue: Catalogue, *, timed: bool = True) -> dict[str, Any]:
    """Counts, text and history lengths, popularity, and what each split leaves cold; a number that does not exist is None.

    Without times that hold across users (`timed` False) there is no split by time.
    """
    columns = catalogue.columns
    popularity = np.bincount(columns.rows, minlength=len(catalogue.items))
    words = np.array([len(item.text.split()) for item in catalogue.items])
    pairs = columns.users * max(len(catalogue.items), 1) + columns.rows
    return {
        "items": len(catalogue.items),
        "users": len(columns),
        "events": len(columns.rows),
        "items_without_text": int((words == 0).sum()),
        "items_without_description": sum(not item.description for item in catalogue.items),
        "items_without_events": int((popularity == 0).sum()),
        "repeated_events": len(pairs) - len(np.unique(pairs)),
        "words_per_item": _spread(words),
        "history_length": _spread(np.diff(columns.starts)),
        "events_per_item": _spread(popularity),
        "popularity_gini": gini(popularity) if popularity.sum() else None,
        "time": {"first": int(columns.times.min()), "last": int(columns.times.max())}
        if timed and len(columns.times)
        else None,
        "splits": {
            "leave_one_out": _split(leave_one_out(catalogue)),
            "global_time": _by_time(catalogue) if timed else None,
        },
    }


def gini(counts: Int[np.ndarray, " items"]) -> float:
    """G = Σ_i (2i - n - 1) x_(i) / (n Σ x), x_(1) ≤ … ≤ x_(n): 0 if all are equal, 1 - 1/n if one has everything.

    Source: Gini (1912), in the sorted form of Dorfman (1979).

    Raises:
        ValueError: nothing counted.
    """
    total, ordered = counts.sum(), np.sort(counts)
    if total <= 0:
        raise ValueError("the counts are all zero: their inequality is undefined")
    ranks = 2 * np.arange(1, len(counts) + 1) - len(counts) - 1
    return float((ranks * ordered).sum() / (len(counts) * total))


def report(reading: Reading, catalogue: Catalogue) -> dict[str, Any]:
    """What `report.json` holds: where the catalogue came from, what was left out, and its numbers after filters."""
    return {
        "schema": 1,
        "layout": reading.layout,
        "why": reading.why,
        "skipped": dict(sorted(reading.skipped.items())),
        "notes": list(reading.notes),
        "items_with_codes": sum(item.id in reading.codes for item in catalogue.items),
        "read": {"items": len(reading.catalogue.items), "events": len(reading.catalogue.columns.rows)},
        **describe(catalogue, timed=reading.timed),
    }


def _spread(values: np.ndarray) -> dict[str, float] | None:
    if not len(values):
        return None
    marks = dict(
        zip(("least", "lower", "median", "upper", "most"), np.percentile(values, QUANTILES).tolist(), strict=True)
    )
    return {"mean": float(values.mean()), **marks}


def _split(split: Split) -> dict[str, Any]:
    """Events in each part, and the share of test events whose item no training event names."""
    trained = np.unique(split.train.rows)
    cold = ~np.isin(split.test.rows, trained)
    parts = {"train": len(split.train.rows), "valid": len(split.valid.rows), "test": len(split.test.rows)}
    return {**parts, "cold_share": float(cold.mean()) if len(cold) else None}


def _by_time(catalogue: Catalogue) -> dict[str, Any] | None:
    try:
        return _split(global_time(catalogue))
    except InputError:  # events have no times
        return None
