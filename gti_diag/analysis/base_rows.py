"""Old rows against the base checkpoint: which are still what they were."""

import torch
from torch import Tensor

from gti_diag.checkpoint import Checkpoint

from .drift_summary import places
from .scan_findings import Finding

READ = 1 << 22  # numbers read at a time


def moved(checkpoint: Checkpoint, base: Checkpoint, role: str, new: Tensor) -> list[Finding]:
    """The old rows (tokens that the base has too) whose values differ from the base's; none where it lacks the matrix."""
    if role not in base.matrices or base.matrices[role].shape[1] != checkpoint.matrices[role].shape[1]:
        return []
    now, before = checkpoint.matrices[role], base.matrices[role]
    at, fresh = places(checkpoint, base), set(new.tolist())
    ids = [id for id in range(now.shape[0]) if id not in fresh and at.get(id, before.shape[0]) < before.shape[0]]
    differ, distances = [], []
    for part in torch.tensor(ids, dtype=torch.long).split(max(1, READ // now.shape[1])):
        there = torch.tensor([at[id] for id in part.tolist()])
        change = torch.linalg.vector_norm(now.rows(part).double() - before.rows(there).double(), dim=1)
        some = change != 0  # NaN too
        differ += part[some].tolist()
        distances += change[some].tolist()
    if not differ:
        return []
    finite = [distance for distance in distances if distance == distance]
    farthest = f"farthest by {max(finite):.3g}" if finite else "none to a finite place"
    text = f"{len(differ):,} of {len(ids):,} old rows differ from {base.path}, {farthest}"
    if len(differ) > len(ids) / 2:
        text += "; nearly all: the whole matrix was trained"
    return [Finding("old_row_moved", differ, text)]
