"""The health of every row of a checkpoint, new or not: the scan document."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gti_diag.checkpoint import Checkpoint, open_checkpoint
from gti_diag.checkpoint.records import Fingerprint
from gti_diag.document import SCHEMA, canonical
from gti_diag.errors import InputError
from gti_diag.measures import norm_gap
from gti_diag.tokens.groups import Partition, partition
from gti_diag.tokens.readable import display
from gti_diag.tokens.unused import NAMED, NAMELESS, reserved

from . import scan_findings
from .base_rows import moved
from .diagnosis import Progress, described, versions
from .remedies import remedy
from .row_facts import read_facts
from .scan_findings import Finding, MatrixFacts

MOST_ENCODED = 10_000  # tokens of a finding whose strings are encoded again
BINS = 60


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
    opened = checkpoint if isinstance(checkpoint, Checkpoint) else open_checkpoint(checkpoint, tensor=tensor)
    before = base if base is None or isinstance(base, Checkpoint) else open_checkpoint(base)
    parts = partition(opened, new=new, base=before, scan=False)
    names = Names(opened, parts)
    fingerprint = Fingerprint(opened)
    rows: dict[str, MatrixFacts] = {}
    for role, matrix in sorted(opened.matrices.items()):
        fingerprint.begin(role)
        facts = read_facts(
            matrix,
            unused=names.unused(matrix.shape[0]),
            seen=fingerprint.update,
            progress=progress,
            max_memory=max_memory,
        )
        own = names.new[names.new < matrix.shape[0]]
        rows[role] = MatrixFacts(matrix, facts, names.unused(matrix.shape[0]), own)
    found = {role: scan_findings.find(side) for role, side in rows.items()}
    if before is not None:
        for role in rows:
            found[role] += moved(opened, before, role, names.new)
    for role, other in (("input", "output"), ("output", "input")):
        if role in rows and other in rows:
            found[role] += scan_findings.disagreements(rows[role], found[role], rows[other], found[other])
    return canonical(
        {
            "schema": SCHEMA,
            "checkpoint": {**described(opened, fingerprint.hex), "base": before and before.path},
            "command": list(command),
            "versions": versions(),
            "tokens": {"rule": parts.rule, "notes": parts.notes, "new": len(names.new)},
            "matrices": {
                role: {
                    "tensor": side.matrix.name,
                    "dtype": side.matrix.packing or side.matrix.kind,
                    "shape": side.matrix.shape,
                    "rows": side.matrix.shape[0],
                    "norms": distribution(side),
                    "findings": [names.told(finding, side.facts.norms, opened.path) for finding in found[role]],
                    "undefined": side.undefined,
                }
                for role, side in rows.items()
            },
        },
        "scan",
    )


class Names:
    """What the tokenizer says of rows: their strings, and which are special, new, unused, or in the chat template."""

    def __init__(self, checkpoint: Checkpoint, parts: Partition) -> None:
        self.vocabulary = checkpoint.vocabulary
        self.tokenizer = checkpoint.tokenizer
        self.rule = "head" if "output" in checkpoint.matrices else "mean"
        self.count = max(matrix.shape[0] for matrix in checkpoint.matrices.values())
        self.strings = display(checkpoint.vocabulary, self.count)
        fresh = [group.ids for name, group in parts.groups.items() if name not in ("text", "reserved")]
        self.new = torch.cat(fresh).sort().values if fresh else torch.empty(0, dtype=torch.long)
        chosen = set(self.new.tolist())
        causes = reserved(checkpoint.vocabulary, self.count)
        self.idle = {id: cause for id, cause in causes.items() if cause in (NAMED, NAMELESS) and id not in chosen}

    def unused(self, rows: int) -> Tensor:
        """Ids of rows that no text trains: padding, and placeholders."""
        return torch.tensor(sorted(id for id in self.idle if id < rows), dtype=torch.long)

    def told(self, finding: Finding, norms: Tensor, path: str) -> dict[str, Any]:
        """One finding of the document."""
        special = self.vocabulary.special if self.vocabulary is not None else frozenset()
        return {
            "kind": finding.kind,
            "count": len(finding.ids),
            "ids": finding.ids,
            "tokens": [self.strings[id] for id in finding.ids],
            "norms": [norm if math.isfinite(norm) else None for norm in norms[finding.ids].tolist()],
            "evidence": finding.evidence,
            **remedy(finding.kind, path, rule=self.rule),
            "special": [id for id in finding.ids if id in special],
            "chat_template": [id for id in finding.ids if self._in_template(id)],
            "padding": [id for id in finding.ids if self.idle.get(id) == NAMELESS],
            "reached": self._reached(finding.ids),
            "groups": finding.together,
        }

    def _in_template(self, id: int) -> bool:
        """Whether the template holds the string of this added or special token."""
        template, vocabulary = self.tokenizer.chat_template, self.vocabulary
        if not template or vocabulary is None or not (id in vocabulary.added or id in vocabulary.special):
            return False
        return bool(self.strings[id].strip()) and self.strings[id] in template

    def _reached(self, ids: Sequence[int]) -> list[int] | None:
        """Those that ordinary text becomes: encoding the token's own string gives the token back. None: not known."""
        encode = self.tokenizer.encoder if self.vocabulary is not None else None
        if encode is None or len(ids) > MOST_ENCODED:
            return None
        return [id for id in ids if self.idle.get(id) != NAMELESS and encode(self.strings[id]) == [id]]


def distribution(side: MatrixFacts) -> dict[str, Any]:
    """Of the norms, on a logarithmic scale, with the gaps; zeros and rows that are not finite are left out."""
    values = side.facts.norms[side.positive]
    if not len(values):
        return {"median": None, "min": None, "max": None, "gaps": {}, "histogram": None}
    logs = values.log10()
    low, high = float(logs.min()), float(logs.max())
    if high - low < 1e-6:
        low, high = low - 0.5, high + 0.5
    counts = torch.histc(logs, BINS, low, high)
    edges = torch.linspace(low, high, BINS + 1, dtype=torch.float64)
    return {
        "median": float(values.median()),
        "min": float(values.min()),
        "max": float(values.max()),
        "gaps": {"near_zero": _gap(norm_gap.low_gap(values)), "giant": _gap(norm_gap.high_gap(values))},
        "histogram": {"log10_edges": edges, "counts": counts.long()},
    }


def _gap(gap: norm_gap.Gap | None) -> dict[str, float] | None:
    return None if gap is None else asdict(gap)


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
