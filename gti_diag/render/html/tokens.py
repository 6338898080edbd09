"""Tokens, coordinates and neighbours in the least space: a report of 24,576 tokens has to open at once."""

from collections.abc import Sequence
from typing import Any

from gti_diag.render.view import View, token

PLACES = 10_000  # coordinates are whole numbers of this many steps across the map: finer than any screen


class Lists:
    """Lists that several checkpoints share (the same tokens, mostly), kept once."""

    def __init__(self) -> None:
        self.lists: list[list] = []
        self._known: dict[tuple, int] = {}

    def add(self, items: Sequence[Any]) -> int:
        """The place of a list, stored unless an equal one is."""
        key = tuple(items)
        if key not in self._known:
            self._known[key] = len(self.lists)
            self.lists.append(list(items))
        return self._known[key]


def token_map(view: View, lists: Lists) -> dict[str, Any] | None:
    """One checkpoint's map for the page; None when the analysis has none."""
    plan = view.body.get("map")
    if not plan:
        return None
    new, text = plan.get("new") or {}, plan.get("text") or {}
    near = _near(view, new)
    return {
        "name": view.name,
        "text": _group(text, lists),
        "new": {
            **_group(new, lists),
            "levels": lists.add(new["levels"]) if new.get("levels") else None,
            "near": None if near is None else _packed(near, lists),
        },
    }


def _group(group: dict[str, Any], lists: Lists) -> dict[str, Any]:
    count = len(group.get("x") or [])
    tokens = group.get("tokens")
    ids = group.get("ids")
    return {
        "x": _coordinates(group.get("x") or []),
        "y": _coordinates(group.get("y") or []),
        "tokens": lists.add([token(t, 32) for t in tokens]) if tokens else None,
        "ids": _ids(ids, lists) if ids else None,
        "count": count,
    }


def _ids(ids: Sequence[int], lists: Lists) -> dict[str, int]:
    """`{"from": first}` for a run of ids, else `{"list": place}`."""
    if list(ids) == list(range(ids[0], ids[0] + len(ids))):
        return {"from": ids[0]}
    return {"list": lists.add(ids)}


def _coordinates(values: Sequence[float]) -> dict[str, Any]:
    """Whole steps from the least value: value = from + step × at."""
    if not values:
        return {"from": 0, "step": 0, "at": []}
    low, high = min(values), max(values)
    step = (high - low) / PLACES
    return {"from": low, "step": step, "at": [round((value - low) / step) if step else 0 for value in values]}


def _near(view: View, new: dict[str, Any]) -> list | None:
    """Nearest text tokens of every new token on the map: the map's own, else those of the neighbour table."""
    if new.get("nearest"):
        return [entry[:3] for entry in new["nearest"]]
    table = {
        entry["id"]: [[near["token"], near["cosine"]] for near in (entry.get("nearest") or [])[:3]]
        for entry in view.body.get("neighbours") or []
    }
    return [table.get(i, []) for i in new.get("ids") or []] if table else None


def _packed(near: Sequence[Sequence], lists: Lists) -> dict[str, Any]:
    """Words once; per token up to three places among them and their cosines in thousandths."""
    words: dict[str, int] = {}
    at = [[words.setdefault(token(word), len(words)) for word, _ in entry] for entry in near]
    cosines = [[round(1000 * cosine) for _, cosine in entry] for entry in near]
    return {"words": lists.add(list(words)), "at": at, "cos": cosines}


def neighbours(view: View) -> dict[str, Any] | None:
    """The neighbour table of one checkpoint: [token, level, id, [[text token, cosine], …]]."""
    rows = [
        [
            token(entry["token"], 32), entry.get("level"), entry["id"],
            [[token(near["token"], 24), round(near["cosine"], 3)] for near in entry["nearest"]],
        ]
        for entry in view.body.get("neighbours") or []
        if entry.get("nearest")
    ]  # fmt: skip
    return {"name": view.name, "rows": rows} if rows else None
