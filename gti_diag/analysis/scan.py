"""The scan document: the health of every row of a checkpoint, new or not."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gti_diag.checkpoint import Checkpoint, open_base, open_checkpoint
from gti_diag.document import SCHEMA, canonical
from gti_diag.errors import InputError
from gti_diag.measures.tiles import among_workers
from gti_diag.tokens.groups import partition

from . import scan_findings
from .diagnosis import Progress, described, versions
from .row_health import examine


@among_workers()
def scan(
    checkpoint: Checkpoint | str | Path,
    *,
    base: Checkpoint | str | Path | None = None,
    new: str = "auto",
    tensor: str | None = None,
    max_memory: int = 2 * 10**9,
    progress: Progress = lambda stage, share: None,
    command: Sequence[str] = (),
) -> dict:
    """Read every row of the input matrix and the head once, and say which are damaged: the scan document (schema 1).

    Args:
        checkpoint: an opened checkpoint, or what `open_checkpoint` takes.
        base: the checkpoint it was extended from: old rows that moved are told.
        new: which tokens are new, as for `diagnose`; a new row that equals an old one is told.
        tensor: name of the embedding tensor where the layout is unknown.
        max_memory: bytes to stay under; what is kept of a row does not grow with its length.

    Raises:
        InputError: whatever is wrong with the input, in one line.
    """
    before = base if base is None or isinstance(base, Checkpoint) else open_base(base, tensor=tensor)
    opened = (
        checkpoint if isinstance(checkpoint, Checkpoint) else open_checkpoint(checkpoint, tensor=tensor, base=before)
    )
    parts = partition(opened, new=new, base=before, scan=False)
    health = examine(opened, parts, base=before, progress=progress, max_memory=max_memory)
    return canonical(
        {
            "schema": SCHEMA,
            "checkpoint": {**described(opened, health.fingerprint), "base": before and before.path},
            "command": list(command),
            "versions": versions(),
            "tokens": {"rule": parts.rule, "notes": parts.notes, "new": health.new},
            "matrices": health.matrices,
        },
        "scan",
    )


def parse_kinds(text: str) -> tuple[str, ...]:
    """`zero,cluster` as kinds; `any` is all of them.

    Raises:
        InputError: a kind that no scan knows.
    """
    wanted = [part.strip() for part in text.split(",") if part.strip()]
    unknown = next((kind for kind in wanted if kind not in (*scan_findings.KINDS, "any")), None)
    if unknown is not None:
        raise InputError(f"--fail-on {unknown!r}: choose some of {', '.join(scan_findings.KINDS)}, or any")
    return scan_findings.KINDS if "any" in wanted else tuple(wanted)


def failing(document: Mapping[str, Any], kinds: Sequence[str]) -> list[tuple[str, dict]]:
    """(matrix, finding) of each finding of these kinds that has a row with a token: padding alone fails nothing."""
    return [
        (role, finding)
        for role, matrix in document["matrices"].items()
        for finding in matrix["findings"]
        if finding["kind"] in kinds and finding["count"] > len(finding["padding"])
    ]
