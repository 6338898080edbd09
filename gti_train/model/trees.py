"""Sequences that share beginnings, as trees of tokens: what is shared is run once, forward and backward.

A row holds the nodes of one or more trees in depth-first order, so the descendants of node i are an interval,
i … ends[i] − 1, and "i is an ancestor of j" is i ≤ j < ends[i]. A node's position is its depth; it attends to its
ancestors and itself. The hidden state of a node is then what it would be in any sequence through that node, and so
are the gradients of any sum of losses.

Source: the tree attention of speculative decoding (SpecInfer, Miao et al. 2023), with losses and gradients.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gti_diag.errors import InputError

ROOT = -1  # the parent of a first token
NODES = ("ids", "parents", "depths", "ends")  # what is known of each node


@dataclass(frozen=True)
class TokenTree:
    """Rows of nodes, and targets at any of them: target t follows the node `at[t]`, counted through all rows.

    Padding at a row's end is a first token of its own that nothing follows.
    """

    ids: Int[Tensor, "rows nodes"]
    parents: Int[Tensor, "rows nodes"]
    depths: Int[Tensor, "rows nodes"]
    ends: Int[Tensor, "rows nodes"]
    at: Int[Tensor, " targets"]
    targets: Int[Tensor, " targets"]
    weights: Float[Tensor, " targets"]
    sequences: Int[Tensor, " targets"]

    @classmethod
    def grow(
        cls,
        sequences: Sequence[Sequence[int]],
        *,
        answers: Sequence[int] | None = None,
        weights: Sequence[float] | None = None,
    ) -> "TokenTree":
        """One row from sequences of tokens; equal beginnings become one path.

        Sequence s has the targets `sequences[s][answers[s]:]` (all but its first token, where `answers` is None), each
        weighing `weights[s]` (1 without). A last token is only ever a target: nothing follows it.

        Raises:
            InputError: no sequences, or one without a token before its first target.
        """
        answers = [1] * len(sequences) if answers is None else answers
        for number, (ids, answer) in enumerate(zip(sequences, answers, strict=True)):
            if not 0 < answer < len(ids):
                raise InputError(f"sequence {number} of {len(ids)} tokens has no target after a first token")
        if not sequences:
            raise InputError("no sequences: a tree needs at least one")
        ids, parents, depths, places = _nodes([tuple(s[:-1]) for s in sequences])
        at: list[int] = []
        targets: list[int] = []
        owners: list[int] = []
        for number in range(len(sequences)):
            at += places[number][answers[number] - 1 :]
            targets += sequences[number][answers[number] :]
            owners += [number] * (len(sequences[number]) - answers[number])
        weighed = torch.ones(len(sequences)) if weights is None else torch.tensor(weights, dtype=torch.float32)
        sequence = torch.tensor(owners)
        values = zip(NODES, (ids, parents, depths, _ends(parents)), strict=True)
        nodes = {name: torch.tensor([value]) for name, value in values}
        where = {"at": torch.tensor(at), "targets": torch.tensor(targets), "sequences": sequence}
        return cls(**nodes, **where, weights=weighed[sequence])

    @classmethod
    def stack(cls, trees: Sequence["TokenTree"], *, pad: int = 0) -> "TokenTree":
        """The rows of all trees, padded to the longest; sequences are counted on from tree to tree."""
        length = max(tree.ids.shape[1] for tree in trees)
        rows = [tree._padded(length, pad) for tree in trees]
        names = (*NODES, "targets", "weights")
        joined = {name: torch.cat([getattr(tree, name) for tree in rows]) for name in names}
        at, sequences, row, sequence = [], [], 0, 0
        for tree in rows:
            at.append(tree.at + row * length)
            sequences.append(tree.sequences + sequence)
            row, sequence = row + len(tree.ids), sequence + int(tree.sequences.max()) + 1
        return cls(**joined, at=torch.cat(at), sequences=torch.cat(sequences))

    def to(self, device: torch.device) -> "TokenTree":
        """The same on another device."""
        return TokenTree(*(tensor.to(device, non_blocking=True) for tensor in vars(self).values()))

    def ancestors(self, window: int | None = None) -> Bool[Tensor, "rows nodes nodes"]:
        """Whether node j (second axis) attends to node i (third): an ancestor or itself, less than `window` above it."""
        nodes = torch.arange(self.ids.shape[1], device=self.ids.device)
        seen = (nodes <= nodes[:, None]) & (nodes[:, None] < self.ends[:, None, :])
        if window is not None:
            seen &= self.depths[:, :, None] - self.depths[:, None, :] < window
        return seen

    def paths(self) -> tuple[list[list[int]], Int[Tensor, " targets"], Int[Tensor, " targets"]]:
        """The tree taken apart: for each node at which a target's path may end its tokens from the first one, and for
        every target the path and the place in it after which it follows."""
        wide, parents = self.ids.shape[1], self.parents.tolist()
        ids, depths, wanted = self.ids.flatten(), self.depths.flatten(), set(self.at.tolist())
        path_of: dict[int, int] = {}
        found: list[list[int]] = []
        for end in sorted(wanted, reverse=True):  # deepest first: descendants come after their ancestors
            if end in path_of:
                continue
            row, node = divmod(end, wide)
            walked = []
            while node != ROOT:
                walked.append(row * wide + node)
                path_of.setdefault(walked[-1], len(found))
                node = parents[row][node]
            found.append(ids[walked[::-1]].tolist())
        return found, torch.tensor([path_of[at] for at in self.at.tolist()]), depths[self.at].cpu()

    def _padded(self, length: int, pad: int) -> "TokenTree":
        rows, wide = self.ids.shape
        at = self.at // wide * length + self.at % wide
        places = torch.arange(wide + 1, length + 1).expand(rows, -1)
        extra = (torch.full_like(places, pad), torch.full_like(places, ROOT), torch.zeros_like(places), places)
        joined = {name: torch.cat([getattr(self, name), more], 1) for name, more in zip(NODES, extra, strict=True)}
        return replace(self, **joined, at=at)


def node_count(sequences: Sequence[Sequence[int]]) -> int:
    """How many nodes the tree of these sequences has, without growing it."""
    ordered = sorted(tuple(s[:-1]) for s in sequences)
    return sum(len(path) - alike(path, before) for before, path in zip([(), *ordered], ordered, strict=False))


def alike(one: Sequence[int], other: Sequence[int]) -> int:
    """The length of the common beginning: by halves, since slices are compared much faster than single tokens."""
    one, other = tuple(one), tuple(other)
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[low:middle] == other[low:middle] else (low, middle - 1)
    return low


def _nodes(paths: Sequence[tuple[int, ...]]) -> tuple[list[int], list[int], list[int], list[list[int]]]:
    """Tokens, parents and depths of the nodes in depth-first order, and the nodes of each path."""
    ids: list[int] = []
    parents: list[int] = []
    depths: list[int] = []
    places: list[list[int]] = [[] for _ in paths]
    before: tuple[int, ...] = ()
    here: list[int] = []
    for number in sorted(range(len(paths)), key=lambda i: paths[i]):
        path = paths[number]
        here = here[: alike(path, before)]
        for depth in range(len(here), len(path)):
            parents.append(here[-1] if here else ROOT)
            here.append(len(ids))
            ids.append(path[depth])
            depths.append(depth)
        before, places[number] = path, list(here)
    return ids, parents, depths, places


def _ends(parents: Sequence[int]) -> list[int]:
    """One past the last descendant of each node."""
    ends = list(range(1, len(parents) + 1))
    for node in range(len(parents) - 1, -1, -1):
        if parents[node] != ROOT:
            ends[parents[node]] = max(ends[parents[node]], ends[node])
    return ends
