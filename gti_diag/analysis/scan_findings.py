"""What is wrong with which rows of a matrix: one function a kind, from the facts of its rows."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gti_diag.checkpoint import Matrix
from gti_diag.measures import norm_gap, twins, untrained

from .row_facts import RowFacts

KINDS = ("not_finite", "zero", "near_zero", "giant", "copies", "cluster", "untrained", "copy_of_old", "old_row_moved",
         "input_head_disagree")  # fmt: skip
# Shares of the spread of all rows: what is closer is one point to the model, in any storage type; what is farther is not, in none.
NEAREST, FARTHEST = 0.01, 0.05
PAIR_NUMBERS = 1 << 22  # numbers of rows compared at a time


@dataclass(frozen=True)
class Finding:
    """Rows of one kind: their ids in order, one sentence of evidence, and ids that belong together (clusters, pairs)."""

    kind: str
    ids: list[int]
    evidence: str
    together: list[list[int]] = field(default_factory=list)


@dataclass(frozen=True)
class MatrixFacts:
    """A matrix, the facts of its rows, and which of them are known to be unused or are new."""

    matrix: Matrix
    facts: RowFacts
    unused: Tensor
    new: Tensor
    undefined: dict[str, str] = field(default_factory=dict)

    @property
    def positive(self) -> Tensor:
        return self.facts.finite & (self.facts.norms > 0)

    def typical(self) -> float:
        """Median norm of the rows that are finite and not zero; 0 if none is."""
        norms = self.facts.norms[self.positive]
        return float(norms.median()) if len(norms) else 0.0


def ids_where(mask: Tensor) -> list[int]:
    return mask.nonzero()[:, 0].tolist()


def find(rows: MatrixFacts) -> list[Finding]:
    """Everything that one matrix shows by itself."""
    makers: tuple[Callable[[MatrixFacts], Iterator[Finding]], ...] = (
        _not_finite, _zero, _near_zero, _giant, _copies, _clusters, _untrained,
    )  # fmt: skip
    found = [finding for make in makers for finding in make(rows)]
    return found + list(_copies_of_old(rows, found))


def _not_finite(rows: MatrixFacts) -> Iterator[Finding]:
    ids = ids_where(~rows.facts.finite)
    if ids:
        yield Finding("not_finite", ids, f"{_rows(ids)} NaN, infinity or numbers beyond 1e100")


def _zero(rows: MatrixFacts) -> Iterator[Finding]:
    ids = ids_where(rows.facts.norms == 0)
    if ids:
        yield Finding(
            "zero", ids, f"{len(ids):,} of {rows.matrix.shape[0]:,} rows {'are' if len(ids) > 1 else 'is'} exactly zero"
        )


def _near_zero(rows: MatrixFacts) -> Iterator[Finding]:
    gap = norm_gap.low_gap(rows.facts.norms[rows.positive])
    if gap is not None:
        ids = ids_where(rows.positive & (rows.facts.norms <= gap.low * (1 + 1e-9)))
        text = f"norms of at most {gap.low:.3g}, and none between that and {gap.high:.3g}; the median is {rows.typical():.3g}"
        yield Finding("near_zero", ids, text)


def _giant(rows: MatrixFacts) -> Iterator[Finding]:
    gap = norm_gap.high_gap(rows.facts.norms[rows.positive])
    if gap is not None:
        ids = ids_where(rows.positive & (rows.facts.norms >= gap.high * (1 - 1e-9)))
        text = f"norms of at least {gap.high:.3g}, and none between that and {gap.low:.3g}; the median is {rows.typical():.3g}"
        yield Finding("giant", ids, text)


def _copies(rows: MatrixFacts) -> Iterator[Finding]:
    groups = _groups(rows.facts.first_equal, rows.positive)
    if groups:
        ids = sorted(id for group in groups for id in group)
        text = f"{_rows(ids)} the values of another, in {_many(len(groups), 'group')} (largest: {len(groups[0]):,})"
        yield Finding("copies", ids, text, groups)


def _clusters(rows: MatrixFacts) -> Iterator[Finding]:
    facts = rows.facts
    heads = rows.positive & (facts.first_equal == torch.arange(len(facts.norms)))  # one of each distinct row
    heads &= _ordinary(rows)
    ids = heads.nonzero()[:, 0]
    if len(ids) < 2:
        return
    spread = twins.sketch_spread(facts.sketch[ids])
    reach = facts.spacing[ids].clamp(min=NEAREST * spread, max=FARTHEST * spread)
    labels = twins.clusters(facts.sketch[ids], reach, lambda a, b: _distance(rows.matrix, ids[a], ids[b]))
    every = torch.full((len(facts.norms),), -1)
    every[ids] = ids[labels]
    copied = rows.positive & (facts.first_equal != torch.arange(len(facts.norms)))
    every[copied] = every[facts.first_equal[copied]]
    several = [group for group in _groups(every, every >= 0) if len(set(facts.first_equal[group].tolist())) > 1]
    if several:
        found = sorted(id for group in several for id in group)
        text = (
            f"{len(found):,} rows in {_many(len(several), 'cluster')} (largest: {len(several[0]):,}): linked rows are closer than "
            f"{_kind(rows.matrix)} tells apart, or than 1% of the spread of all rows ({NEAREST * spread:.3g})"
        )
        yield Finding("cluster", found, text, several)


def _ordinary(rows: MatrixFacts) -> Tensor:
    """Which rows lie between the gaps: those beyond are findings of their own, and near each other for no other reason."""
    norms = rows.facts.norms
    low, high = norm_gap.low_gap(norms[rows.positive]), norm_gap.high_gap(norms[rows.positive])
    return (norms > (0.0 if low is None else low.low)) & (norms < (torch.inf if high is None else high.high))


def _kind(matrix: Matrix) -> str:
    return matrix.packing or matrix.kind


def _distance(matrix: Matrix, first: Tensor, second: Tensor) -> Tensor:
    """‖xᵢ − xⱼ‖ of pairs of rows, read again a few at a time."""
    found = [torch.empty(0, dtype=torch.float64)]
    for a, b in zip(*(ids.split(max(1, PAIR_NUMBERS // matrix.shape[1])) for ids in (first, second)), strict=True):
        ids, place = torch.cat([a, b]).unique(return_inverse=True)
        both = matrix.rows(ids)
        parts = place.view(2, -1)
        for i, j in zip(parts[0].split(64), parts[1].split(64), strict=True):
            found.append(torch.linalg.vector_norm(both[i].double() - both[j].double(), dim=1))
    return torch.cat(found)


def _untrained(rows: MatrixFacts) -> Iterator[Finding]:
    """By the cosine indicator where known unused rows agree in it, else by their norm."""
    facts = rows.facts
    known = torch.zeros(len(facts.norms), dtype=torch.bool)
    known[rows.unused] = True
    others = rows.positive & ~known
    reasons = []
    for name, make in (("cosine distance from", _cosine_window), ("norm of", _norm_window)):
        try:
            values, window = make(rows, known)
        except ValueError as error:
            reasons.append(str(error))
            continue
        marked = others & window.holds(values.nan_to_num(torch.inf))
        share = float(marked.sum()) / max(1, int(others.sum()))
        if share > untrained.MOST:
            reasons.append(f"the {name} known unused rows does not tell: {share:.0%} of the others have it too")
            continue
        ids = ids_where(marked)
        if ids:
            count = int((known & rows.positive).sum())
            text = f"{_rows(ids, 'have', 'has')} the {name} the {count:,} rows known to be unused"
            yield Finding("untrained", ids, text)
        return
    rows.undefined["untrained"] = "; ".join(dict.fromkeys(reasons))


def _cosine_window(rows: MatrixFacts, known: Tensor) -> tuple[Tensor, untrained.Window]:
    if rows.facts.distance is None or rows.facts.known_distance is None:
        raise ValueError(rows.facts.undefined["cosine distance from unused rows"])
    return rows.facts.distance, untrained.cosine_window(rows.facts.known_distance)


def _norm_window(rows: MatrixFacts, known: Tensor) -> tuple[Tensor, untrained.Window]:
    return rows.facts.norms, untrained.norm_window(rows.facts.norms[known & rows.positive])


def _copies_of_old(rows: MatrixFacts, found: list[Finding]) -> Iterator[Finding]:
    """New rows that equal an old row, or share its cluster."""
    new = set(rows.new.tolist())
    pairs: dict[int, int] = {}
    for finding in found:
        if finding.kind in ("copies", "cluster"):
            for group in finding.together:
                old = [id for id in group if id not in new]
                pairs |= {id: old[0] for id in group if old and id in new and id not in pairs}
    if pairs:
        text = f"{_many(len(pairs), 'new row')} equal to an old one: " + ", ".join(
            f"{a} = {b}" for a, b in sorted(pairs.items())[:5]
        )
        yield Finding("copy_of_old", sorted(pairs), text, [[a, b] for a, b in sorted(pairs.items())])


def disagreements(side: MatrixFacts, found: list[Finding], other: MatrixFacts, theirs: list[Finding]) -> list[Finding]:
    """Rows dead on this side (not finite, zero, near zero) and healthy on the other."""
    dead, gone = (
        {id for f in listed if f.kind in ("not_finite", "zero", "near_zero") for id in f.ids}
        for listed in (found, theirs)
    )
    ids = sorted(id for id in dead - gone if id < other.matrix.shape[0])
    if not ids:
        return []
    text = f"{_rows(ids, 'are', 'is')} dead here and healthy in {other.matrix.name} (median norm there {other.typical():.3g})"
    return [Finding("input_head_disagree", ids, text)]


def _groups(labels: Tensor, mask: Tensor) -> list[list[int]]:
    """Ids of equal label among those masked, where there are two or more; the largest group first."""
    ids = mask.nonzero()[:, 0]
    _, place, counts = labels[ids].unique(return_inverse=True, return_counts=True)
    several = (counts > 1).nonzero()[:, 0].tolist()
    inside = ids[counts[place] > 1]
    own = place[counts[place] > 1]
    found: dict[int, list[int]] = {label: [] for label in several}
    for id, label in zip(inside.tolist(), own.tolist(), strict=True):
        found[label].append(id)
    return sorted(found.values(), key=lambda group: (-len(group), group[0]))


def _rows(ids: list[int], several: str = "hold", one: str = "holds") -> str:
    return f"{len(ids):,} rows {several}" if len(ids) > 1 else f"1 row {one}"


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' if count != 1 else ''}"
