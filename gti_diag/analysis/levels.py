"""The `hierarchy` part of an analysis: do levels form blocks, and do codes whose items share a prefix lie near?"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from gti_diag.errors import InputError
from gti_diag.foreign.json_text import parse_json
from gti_diag.foreign.limits import read_small
from gti_diag.measures import geometry, hierarchy

from .group_measures import Measured


def read_items(path: str | Path, tokens: Sequence[str], levels: Tensor | None) -> Tensor:
    """Items × levels: the place among `tokens` of each item's code token on each level.

    The file is JSON: item → codes, as the sids.json of gti-train and the index files of LC-Rec and MiniOneRec have it (a
    mapping under the key "items" is taken as well). A code is a token string, or its number among the tokens of its level.

    Raises:
        InputError: unreadable, of another form, or naming a token that is not new.
    """
    file = Path(path)
    try:
        content = parse_json(read_small(file), file, finite=True)
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror or error}") from error
    table = content.get("items", content) if isinstance(content, dict) else None
    if not isinstance(table, dict) or not table or not all(isinstance(codes, list) for codes in table.values()):
        raise InputError(f"{file}: an item table maps each item to the list of its code tokens")
    if len({len(codes) for codes in table.values()}) != 1:
        raise InputError(f"{file}: some items have more codes than others; all must have as many")
    place: dict[object, int] = {token: index for index, token in enumerate(tokens)}
    if levels is not None:
        for level in levels.unique().tolist():
            members = (levels == level).nonzero()[:, 0].tolist()
            place |= {(level, number): index for number, index in enumerate(members)}
    if not all(type(code) in (int, str) for codes in table.values() for code in codes):
        raise InputError(f"{file}: a code is a token string, or its number among the tokens of its level")
    keys = [[(i, c) if isinstance(c, int) else c for i, c in enumerate(codes, 1)] for codes in table.values()]
    unknown = next((key for row in keys for key in row if key not in place), None)
    if unknown is not None:
        shown = f"code {unknown[1]} of level {unknown[0]}" if isinstance(unknown, tuple) else repr(unknown)
        raise InputError(f"{file}: {shown} is not among the {len(tokens):,} new tokens of the checkpoint")
    return torch.tensor([[place[key] for key in row] for row in keys])


def hierarchy_summary(
    rows: Tensor, levels: Tensor | None, items: Tensor | None, *, floor_reason: str | None = None
) -> dict | None:
    """Cosine contrasts by level of the rows about their centroid, and by shared prefix when items are given.

    None without levels. The centroid is removed because a direction that all new tokens share would swamp the contrast.
    `floor_reason` says why the centred rows are rounding only, if they are.
    """
    if levels is None:
        return None
    found: dict = {"levels": {}, "items": None if items is None else len(items), "undefined": {}}
    if floor_reason is not None:
        return {**found, "undefined": {"levels": floor_reason}}
    centred = rows - geometry.centroid(rows)  # in float64
    levels = levels.to(rows.device)
    try:
        contrasts = hierarchy.level_contrast(centred, levels)
        scores = hierarchy.level_silhouette(centred, levels) if len(contrasts) > 1 else None
    except ValueError as error:
        return {**found, "undefined": {"levels": str(error)}}
    for contrast in contrasts:
        level = contrast.level
        entry = Measured({"count": contrast.count, "within": contrast.within, "between": contrast.between})
        if scores is not None:
            entry.values["silhouette"] = float(scores[levels == level].mean())
        if items is not None and level > 1:
            _prefixes(entry, centred, items.to(rows.device), level)
        found["levels"][str(level)] = entry.values
        found["undefined"] |= {f"{level}.{name}": reason for name, reason in entry.undefined.items()}
    return {**found, "silhouette": None if scores is None else float(scores.mean())}


def _prefixes(entry: Measured, rows: Tensor, items: Tensor, level: int) -> None:
    entry.add("cophenetic", lambda: hierarchy.cophenetic_correlation(rows, items, level=level))
    entry.add("siblings", lambda: hierarchy.prefix_contrast(rows, items, level=level).siblings)
    entry.add("strangers", lambda: hierarchy.prefix_contrast(rows, items, level=level).strangers)
