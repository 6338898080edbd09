"""The `drift` part of an analysis: which rows moved since the base checkpoint, and how far."""

import torch
from torch import Tensor

from . import relation
from .checkpoint import Checkpoint, Matrix
from .tokens import Group

LISTED = 10


def drift_summary(checkpoint: Checkpoint, base: Checkpoint, name: str, groups: dict[str, Group]) -> dict | None:
    """Per group, the rows that the base has too, matched by token string (by id where a tokenizer is missing).

    None when the base does not store this matrix.
    """
    if name not in base.matrices:
        return None
    old, new = base.matrices[name], checkpoint.matrices[name]
    if old.shape[1] != new.shape[1]:
        return {"undefined": {"groups": f"the base has {old.shape[1]} dimensions, this matrix {new.shape[1]}"}}
    place = _places(checkpoint, base)
    found: dict = {"base": base.path, "groups": {}}
    for group in groups.values():
        pairs = [(index, place[id]) for index, id in enumerate(group.ids.tolist()) if id in place]
        if pairs:
            found["groups"][group.name] = _moved(old, new, group, torch.tensor(pairs))
    return found


def _places(checkpoint: Checkpoint, base: Checkpoint) -> dict[int, int]:
    """Row in the checkpoint → row of the same token in the base."""
    rows = base.matrices["input"].shape[0]
    if checkpoint.vocabulary is None or base.vocabulary is None:
        return {id: id for id in range(rows)}
    known = {token: id for id, token in enumerate(base.vocabulary.tokens[:rows]) if token is not None}
    return {id: known[token] for id, token in enumerate(checkpoint.vocabulary.tokens) if token in known}


def _moved(old: Matrix, new: Matrix, group: Group, pairs: Tensor) -> dict:
    distances, relatives = [], []
    for part in pairs.split(8192):
        change = relation.drift(old.rows(part[:, 1]), new.rows(group.ids[part[:, 0]]))
        distances.append(change.distance)
        relatives.append(change.relative)
    distance, relative = torch.cat(distances), torch.cat(relatives)
    finite = relative[relative.isfinite()]
    worst = distance.argsort(descending=True)[:LISTED]
    worst = worst[distance[worst] > 0]
    return {
        "compared": len(pairs),
        "moved": int((distance > 0).sum()),
        "largest": float(distance.max()),
        "mean_relative": float(finite.mean()) if len(finite) else None,
        "largest_relative": float(finite.max()) if len(finite) else None,
        "farthest": [
            {"token": group.tokens[int(pairs[i, 0])], "id": int(group.ids[pairs[i, 0]]), "distance": float(distance[i])}
            for i in worst.tolist()
        ],
    }
