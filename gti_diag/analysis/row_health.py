"""The health of every row of a checkpoint's matrices, as plain data: what the scan document holds, and an analysis in short."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from gti_diag.checkpoint import Checkpoint
from gti_diag.checkpoint.records import Fingerprint
from gti_diag.measures import norm_gap
from gti_diag.tokens.groups import Partition
from gti_diag.tokens.readable import display
from gti_diag.tokens.unused import NAMED, NAMELESS, reserved

from . import scan_findings
from .base_rows import moved
from .remedies import remedy
from .row_facts import Progress, read_facts
from .scan_findings import Finding, MatrixFacts

MOST_ENCODED = 10_000  # tokens of a finding whose strings are encoded again
BINS = 60
SHORT = 12  # tokens of a finding in the short form
FOR_EACH_ROW = ("ids", "tokens", "norms")
MARKS = ("special", "chat_template", "padding", "reached")


@dataclass(frozen=True)
class Health:
    """What was found in each matrix by role, and the checkpoint's fingerprint, made along the way."""

    fingerprint: str
    matrices: Mapping[str, dict[str, Any]]
    new: int  # how many rows are new

    def short(self, role: str) -> dict[str, Any]:
        """The same of one matrix with the most telling tokens of each finding alone."""
        whole = self.matrices[role]
        return {**whole, "findings": [_shortened(finding) for finding in whole["findings"]]}


def examine(
    checkpoint: Checkpoint,
    parts: Partition,
    *,
    base: Checkpoint | None = None,
    progress: Progress = lambda stage, share: None,
    max_memory: int = 2 * 10**9,
) -> Health:
    """Read every row of every matrix once, and say which are damaged."""
    names = Names(checkpoint, parts)
    fingerprint = Fingerprint(checkpoint)
    rows: dict[str, MatrixFacts] = {}
    for role, matrix in sorted(checkpoint.matrices.items()):
        fingerprint.begin(role)
        unused, new = names.unused(matrix.shape[0]), names.new[names.new < matrix.shape[0]]
        facts = read_facts(matrix, unused=unused, seen=fingerprint.update, progress=progress, max_memory=max_memory)
        rows[role] = MatrixFacts(matrix, facts, unused, new)
    found = {role: scan_findings.find(side) for role, side in rows.items()}
    if base is not None:
        for role in rows:
            found[role] += moved(checkpoint, base, role, names.new)
    for role, other in (("input", "output"), ("output", "input")):
        if role in rows and other in rows:
            found[role] += scan_findings.disagreements(rows[role], found[role], rows[other], found[other])
    told = {role: _told(side, found[role], names, checkpoint.path) for role, side in rows.items()}
    return Health(fingerprint.hex, told, len(names.new))


def _told(side: MatrixFacts, found: Sequence[Finding], names: "Names", path: str) -> dict[str, Any]:
    return {
        "tensor": side.matrix.name,
        "dtype": side.matrix.packing or side.matrix.kind,
        "shape": side.matrix.shape,
        "rows": side.matrix.shape[0],
        "norms": distribution(side),
        "findings": [names.told(finding, side.facts.norms, path) for finding in found],
        "undefined": side.undefined,
    }


def _shortened(finding: Mapping[str, Any]) -> dict[str, Any]:
    """Those tokens that are in the chat template, special or reached by text come first."""
    known = [set(finding[mark] or ()) for mark in ("chat_template", "special", "reached")]
    order = sorted(range(finding["count"]), key=lambda place: tuple(finding["ids"][place] not in ids for ids in known))
    kept = {key: [finding[key][place] for place in order[:SHORT]] for key in FOR_EACH_ROW}
    marks = {mark: finding[mark] and [id for id in finding[mark] if id in kept["ids"]] for mark in MARKS}
    return {**finding, **kept, **marks, "groups": []}


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
