"""The quality report of semantic IDs: one document, from which tables, pages and figures are drawn."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from gti_train.catalogue.records import Catalogue
from gti_train.catalogue.splits import leave_one_out

from ..ids import SemanticIds, token_of
from ..quantiser import Quantiser
from ..uniqueness import collisions
from . import agreement, usage
from .churn import churn
from .judging import judge, judge_level
from .prefixes import Depth, depths

SCHEMA = 1
LISTED = 20  # groups of colliding items


@dataclass(frozen=True)
class Evidence:
    """What is known beside the codes; what is None is not judged."""

    catalogue: Catalogue
    vectors: Float[Tensor, "items dim"] | None = None
    quantiser: Quantiser | None = None


def quality(sids: SemanticIds, evidence: Evidence, *, name: str = "", seed: int = 0) -> dict[str, Any]:
    """D1 … D5, coherence, errors and a verdict a level, as one JSON document.

    Co-occurrence and popularity are those of the training events alone (all but each user's last two).

    Raises:
        ValueError: the catalogue's items are not those of the codes, in their order.
    """
    catalogue = evidence.catalogue
    if tuple(item.id for item in catalogue.items) != sids.item_ids:
        raise ValueError("the catalogue's items are not those of the semantic IDs, in their order")
    codes = sids.codes.numpy()
    train = leave_one_out(catalogue).train
    pairs = agreement.next_pairs(train.starts, train.rows)
    popularity = np.bincount(train.rows, minlength=len(codes)) if len(train.rows) else None
    directions = None if evidence.vectors is None else agreement.directions(evidence.vectors.double().numpy())
    levels = [usage.level_use(codes[:, level], len(book)) for level, book in enumerate(sids.codebooks)]
    errors = _errors(sids, evidence)
    found = []
    for depth in depths(codes):
        entry = usage.structure(depth) | _agreement(depth, directions, pairs, seed)
        entry["error"] = errors[depth.depth - 1] if depth.depth <= len(errors) else None
        entry["popularity"] = None if popularity is None else usage.popular_shares(depth, popularity)
        found.append(entry)
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "name": name,
        "items": len(codes),
        "made": dict(sids.made) | {"encoder": sids.encoder, "seed": sids.seed},
        "events": len(train.rows),
        "levels": [{"level": level + 1, **use} for level, use in enumerate(levels)],
        "prefixes": found,
        "collisions": _collisions(sids, catalogue),
        "capacity": usage.capacity(levels),
    }
    for level, prefix in zip(document["levels"], found, strict=True):
        level["verdict"] = judge_level(level, prefix)
    document["verdict"] = judge(document)
    return document


def compared(one: SemanticIds, other: SemanticIds) -> dict[str, Any]:
    """D6 between two mappings, over the items that both have.

    Raises:
        ValueError: they have no item in common.
    """
    places = {item: row for row, item in enumerate(other.item_ids)}
    rows = [(row, places[item]) for row, item in enumerate(one.item_ids) if item in places]
    if not rows:
        raise ValueError("the two mappings have no item in common")
    left, right = (list(column) for column in zip(*rows, strict=True))
    return {"items": len(rows), "depths": churn(one.codes[left].numpy(), other.codes[right].numpy())}


def _agreement(depth: Depth, directions: np.ndarray | None, pairs: agreement.Pairs, seed: int) -> dict[str, Any]:
    """Coherence of the vectors and agreement of next choices at one depth, each against chance."""

    def coherent(labels: np.ndarray) -> float | None:
        return None if directions is None else agreement.coherence(directions, labels)

    return {
        "coherence": agreement.against_chance(coherent, depth, seed=seed),
        "co_occurrence": agreement.against_chance(lambda labels: agreement.together(pairs, labels), depth, seed=seed),
    }


def _errors(sids: SemanticIds, evidence: Evidence) -> list[float | None]:
    """|x - x̂_d|² over the spread of the vectors, with the first d levels, for each depth; [] where it is unknown."""
    if evidence.vectors is None or evidence.quantiser is None or evidence.quantiser.outward is None:
        return []
    x, quantiser = evidence.vectors.double(), evidence.quantiser
    spread = float((x - x.mean(dim=0)).square().sum())
    depth = range(1, len(quantiser.books) + 1)
    codes = sids.codes[:, : len(quantiser.books)]
    backs = (quantiser.decode(codes, levels=levels) for levels in depth)
    return [None if back is None or not spread else float((x - back).square().sum()) / spread for back in backs]


def _collisions(sids: SemanticIds, catalogue: Catalogue) -> dict[str, Any]:
    """How many items share their whole code with others, and the largest such groups with titles."""
    found = collisions(sids)
    groups: dict[tuple[int, ...], list[int]] = {}
    for row, code in enumerate(map(tuple, sids.codes.tolist())):
        groups.setdefault(code, []).append(row)
    shared = sorted(
        (code for code, rows in groups.items() if len(rows) > 1), key=lambda code: (-len(groups[code]), code)
    )
    return {
        "distinct": found.distinct,
        "rate": found.rate,
        "largest": found.largest,
        "groups": [_group(code, groups[code], catalogue) for code in shared[:LISTED]],
    }


def _group(code: tuple[int, ...], rows: list[int], catalogue: Catalogue) -> Mapping[str, Any]:
    items = [{"item_id": catalogue.items[row].id, "title": catalogue.items[row].title} for row in rows[:LISTED]]
    return {
        "code": "".join(token_of(level, part) for level, part in enumerate(code)),
        "size": len(rows),
        "items": items,
    }
