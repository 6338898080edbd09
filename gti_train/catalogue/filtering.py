"""Less of a catalogue: users and items met often enough, and repeats dropped where asked."""

from collections.abc import Callable, Mapping

import numpy as np

from gti_diag.errors import InputError

from .records import Catalogue, Histories


def k_core(catalogue: Catalogue, *, users: int = 0, items: int = 0) -> Catalogue:
    """The largest part in which every user has at least `users` events and every item at least `items`.

    Dropping an item may leave a user with too few events, and so on; the rounds go on until nothing changes. With
    `items` 0 no item is dropped, not even one without events.

    Raises:
        InputError: nothing is left.
    """
    columns, kept = catalogue.columns, np.ones(len(catalogue.columns.rows), dtype=bool)
    owners = columns.users
    while True:
        per_user = np.bincount(owners[kept], minlength=len(columns))
        per_item = np.bincount(columns.rows[kept], minlength=len(catalogue.items))
        enough = (per_user[owners] >= users) & (per_item[columns.rows] >= items)
        if not (kept & ~enough).any():
            break
        kept &= enough
    if not kept.any():
        raise InputError(f"no event is left with {users} events a user and {items} an item: ask for fewer")
    return _only(catalogue, columns.where(kept), per_item >= items)


def repeats(catalogue: Catalogue, keep: str) -> Catalogue:
    """The catalogue with some repeats of an item in a user's history gone; see `REPEATS`.

    Raises:
        InputError: `keep` is no rule.
    """
    if keep not in REPEATS:
        raise InputError(f"--repeats {keep!r} is unknown: use one of {', '.join(REPEATS)}")
    columns = catalogue.columns
    return Catalogue(catalogue.items, columns.where(REPEATS[keep](columns)))


def _all(columns: Histories) -> np.ndarray:
    return np.ones(len(columns.rows), dtype=bool)


def _first(columns: Histories) -> np.ndarray:
    pairs = columns.users * max(len(columns.item_ids), 1) + columns.rows
    kept = np.zeros(len(columns.rows), dtype=bool)
    kept[np.unique(pairs, return_index=True)[1]] = True
    return kept


def _changes(columns: Histories) -> np.ndarray:
    same = (columns.users[1:] == columns.users[:-1]) & (columns.rows[1:] == columns.rows[:-1])
    return np.concatenate([np.ones(min(len(columns.rows), 1), dtype=bool), ~same])


REPEATS: Mapping[str, Callable[[Histories], np.ndarray]] = {
    "all": _all,  # keep them
    "first": _first,  # the first time that a user meets an item
    "changes": _changes,  # of an item several times in a row, the first
}


def _only(catalogue: Catalogue, columns: Histories, kept: np.ndarray) -> Catalogue:
    """The items that `kept` names; `columns` must hold no others."""
    items = tuple(item for item, stays in zip(catalogue.items, kept.tolist(), strict=True) if stays)
    places = np.cumsum(kept) - 1
    rows = places[columns.rows].astype(np.int32)
    return Catalogue(
        items, Histories(columns.user_ids, tuple(i.id for i in items), columns.starts, rows, columns.times)
    )
