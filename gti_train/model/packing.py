"""Families of sequences packed into rows of a token tree, and rows into passes, within a budget of tokens.

Everything is decided by the lengths and the order of what is given: the same families are always packed alike, and how
they are packed changes no result.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from .micro_batches import buckets
from .trees import alike, node_count

Tokens = Sequence[int]
Place = tuple[int, int]  # a family, and a sequence of it


@dataclass
class Row:
    """A row in the making: what is in it, how many nodes that takes at most, and the beginning that all of it shares."""

    nodes: int
    shared: Tokens
    members: list[Place] = field(default_factory=list)


def packed(families: Sequence[Sequence[Tokens]], *, row: int, budget: int, overhead: int) -> list[list[list[Place]]]:
    """Passes of rows of sequences; together they hold every sequence once.

    A row takes at most `row` nodes and a pass at most `budget`, padding included, unless a single sequence is longer.
    Families go in order of length, the longest first, each into the fullest row that has room for it (best fit); one
    that is larger than a row is halved until it fits. `overhead` is what one more pass costs, in tokens.
    """
    limit = min(row, budget)
    pieces = [piece for number, family in enumerate(families) for piece in _cut(number, family, limit)]
    rows: list[Row] = []
    for piece in sorted(pieces, key=lambda piece: -piece.nodes):
        fitting = [(r.nodes + piece.nodes - alike(r.shared, piece.shared), r) for r in rows]
        fitting = [(nodes, r) for nodes, r in fitting if nodes <= limit]
        if not fitting:
            rows.append(piece)
            continue
        nodes, chosen = max(fitting, key=lambda pair: pair[0])
        chosen.shared = chosen.shared[: alike(chosen.shared, piece.shared)]
        chosen.nodes, chosen.members = nodes, chosen.members + piece.members
    groups = buckets([r.nodes for r in rows], overhead=overhead, limit=budget)
    return [[rows[i].members for i in group] for group in reversed(groups)]


def _cut(number: int, family: Sequence[Tokens], limit: int) -> list[Row]:
    """The family as one piece, or as halves (in the order that keeps what is alike together) that fit."""

    def pieces(members: list[int]) -> list[Row]:
        sequences = [family[i] for i in members]
        nodes = node_count(sequences)
        if nodes > limit and len(members) > 1:
            half = len(members) // 2
            return pieces(members[:half]) + pieces(members[half:])
        first, last = tuple(sequences[0]), tuple(sequences[-1])
        shared = first[: min(alike(first, last), len(first) - 1)]  # in this order, what these two share, all share
        return [Row(nodes, shared, [(number, i) for i in members])]

    return pieces(sorted(range(len(family)), key=lambda i: tuple(family[i])))
