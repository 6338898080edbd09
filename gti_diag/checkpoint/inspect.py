"""What is in a checkpoint, from its descriptions alone: the data of `gti-diag inspect`."""

from collections import Counter
from typing import Any

from .records import Checkpoint

SHOWN = 3


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
        "notes": [*(alarm.text for alarm in partition.alarms), *partition.notes],
    }


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
