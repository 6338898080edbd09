"""The `drift` part of an analysis: which rows moved since the base checkpoint, and how far."""

import torch
from torch import Tensor

from gti_diag.checkpoint import Checkpoint, Matrix
from gti_diag.measures import relation
from gti_diag.tokens.groups import Group

from .group_rows import finite

LISTED = 10


def drift_summary(checkpoint: Checkpoint, base: Checkpoint, name: str, groups: dict[str, Group]) -> dict | None:
    """Per group, the rows that the base has too, matched by token string (by id where a tokenizer is missing).

    None when the base does not store this matrix.

    Raises:
        InputError: a row of either holds NaN or infinity.
    """
    if name not in base.matrices:
        return None
    old, new = base.matrices[name], checkpoint.matrices[name]
    if old.shape[1] != new.shape[1]:
        return {"undefined": {"groups": f"the base has {old.shape[1]} dimensions, this matrix {new.shape[1]}"}}
    place = places(checkpoint, base)
    found: dict = {"base": base.path, "groups": {}}
    for group in groups.values():
        pairs = [
            (index, place[id])
            for index, id in enumerate(group.numbers)
            if id < new.shape[0] and place.get(id, old.shape[0]) < old.shape[0]
        ]
        if pairs:
            found["groups"][group.name] = _moved(old, new, group, torch.tensor(pairs), (base.path, checkpoint.path))
    return found


def places(checkpoint: Checkpoint, base: Checkpoint) -> dict[int, int]:
    """Row in the checkpoint → row of the same token in the base."""
    rows = base.matrices["input"].shape[0]
    if checkpoint.vocabulary is None or base.vocabulary is None:
        return {id: id for id in range(rows)}
    known = {token: id for id, token in enumerate(base.vocabulary.tokens[:rows]) if token is not None}
    return {id: known[token] for id, token in enumerate(checkpoint.vocabulary.tokens) if token in known}


def _moved(old: Matrix, new: Matrix, group: Group, pairs: Tensor, paths: tuple[str, str]) -> dict:
    distances, relatives = [], []
    for part in pairs.split(8192):
        places, ids = part[:, 1], group.ids[part[:, 0]]
        before, after = (
            finite(matrix.rows(chosen), f"{path}: {matrix.name}", group.name, chosen)
            for matrix, path, chosen in ((old, paths[0], places), (new, paths[1], ids))
        )
        change = relation.drift(before, after)
        distances.append(change.distance)
        relatives.append(change.relative)
    distance, relative = torch.cat(distances), torch.cat(relatives)
    known = relative[relative.isfinite()]  # not of rows that were zero
    worst = distance.argsort(descending=True)[:LISTED]
    worst = worst[distance[worst] > 0]
    return {
        "compared": len(pairs),
        "moved": int((distance > 0).sum()),
        "largest": float(distance.max()),
        "mean_relative": float(known.mean()) if len(known) else None,
        "largest_relative": float(known.max()) if len(known) else None,
        "farthest": [
            {"token": group.tokens[int(pairs[i, 0])], "id": int(group.ids[pairs[i, 0]]), "distance": float(distance[i])}
            for i in worst.tolist()
        ],
    }
