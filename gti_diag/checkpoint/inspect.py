"""What is in a checkpoint, from its descriptions and a first look at a few of its rows: the data of `gti-diag inspect`."""

from collections import Counter
from typing import Any

import numpy as np

from .records import Checkpoint

SHOWN = 3
LOOKED_AT = 512  # added and special rows, and as many others


def describe(checkpoint: Checkpoint, partition: Any) -> dict[str, Any]:
    """Plain data for a table: format, matrices, tied or not, token groups and the rule that found them.

    `partition` is a `gti_diag.tokens.Partition` (made with `scan=False`, no row is read).
    """
    vocabulary = checkpoint.vocabulary
    return {
        "path": checkpoint.path,
        "format": checkpoint.format,
        "layout": checkpoint.layout,
        "tied": checkpoint.tied,
        "tensors": len(checkpoint.tensors),
        "matrices": {
            role: {
                "tensor": matrix.name,
                "shape": list(matrix.shape),
                "dtype": matrix.packing or matrix.kind,
                "bytes": matrix.stored_bytes,
            }
            for role, matrix in checkpoint.matrices.items()
        },
        "vocabulary": None
        if vocabulary is None
        else {
            "source": vocabulary.source,
            "size": vocabulary.size,
            "added": len(vocabulary.added),
            "special": len(vocabulary.special),
        },
        "sidecar": None
        if checkpoint.sidecar is None
        else {key: checkpoint.sidecar.get(key) for key in ("init", "stage", "step", "seed", "parent")},
        "tokens": {
            "rule": partition.rule,
            "groups": {name: _group(group) for name, group in partition.groups.items()},
        },
        "scan": first_look(checkpoint),
        "notes": [*(alarm.text for alarm in partition.alarms), *partition.notes],
    }


def first_look(checkpoint: Checkpoint) -> dict[str, Any]:
    """Whether a scan of all rows is worth its time: how much it reads, and what some rows show (added and special ones, and
    evenly spaced others): how many are zero, or equal to another of them. None where rows are not stored as plain bytes,
    and behind an address, where a thousand rows are a thousand requests.
    """
    size = sum(matrix.stored_bytes for matrix in checkpoint.matrices.values())
    vocabulary, zero, equal, looked = checkpoint.vocabulary, 0, 0, 0
    for matrix in checkpoint.matrices.values():
        if matrix.stored is None or "://" in str(checkpoint.path):
            return {"bytes": size, "looked_at": None, "zero": None, "equal": None}
        count = matrix.shape[0]
        known = sorted({*vocabulary.added, *vocabulary.special})[:LOOKED_AT] if vocabulary is not None else []
        ids = sorted({*(id for id in known if id < count), *range(0, count, max(1, count // LOOKED_AT))})
        rows = Counter(row.tobytes() for row in matrix.stored(np.array(ids)))
        zero += sum(number for row, number in rows.items() if not any(row))
        equal += sum(number for row, number in rows.items() if any(row) and number > 1)
        looked += len(ids)
    return {"bytes": size, "looked_at": looked, "zero": zero, "equal": equal}


def _group(group: Any) -> dict[str, Any]:
    long = group.count > 2 * SHOWN
    levels = sorted(Counter(group.level_numbers).items()) if group.level_numbers is not None else None
    return {
        "count": group.count,
        "levels": len(levels) if levels else None,
        "level_counts": [count for _, count in levels] if levels else None,
        "families": sorted(set(group.families)) if group.families else None,
        "first": list(group.tokens[:SHOWN] if long else group.tokens),
        "last": list(group.tokens[-SHOWN:]) if long else [],
    }
