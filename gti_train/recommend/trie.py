"""The tree of all items by their codes, as tensors: built by sorting, read by indexing.

Items are sorted by their codes. The node of a prefix is then a run of sorted items, and its children are consecutive
nodes of the next depth, so two arrays of offsets per depth say everything. Where a table of nodes × codes is small (the
first depths) it is kept as well, and finding a child is one look-up; below, it is a binary search.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from gti_diag.errors import InputError

DENSE_CELLS = 1 << 22  # of a table of nodes × codes; the first depth that exceeds it, and those below, are searched


class Trie:
    """Which codes may follow which, and the items that each sequence of codes stands for.

    codes: row i holds the codes of item i, coarse to fine; items may share all of them. token_ids: for each level, the
    token of each of its codes. All tensors stay on the device of `codes`.

    Depth 0 is the root, depth `levels` holds the leaves. Nodes of a depth are numbered in the order of their codes:
    `starts[d]` are the offsets of their runs in `items` (the items in that order, equal codes by item number),
    `children[d]` the offsets of their children among the nodes of depth d + 1, `codes[d]` the last code of each node,
    `parents[d]` its parent, `first[d]` the smallest item below it. `codes`, `parents` begin with an empty depth 0.

    Raises:
        InputError: no items, as many token lists as levels are not given, a code without a token or a token that stands
            for two codes of a level.
    """

    def __init__(self, codes: Int[Tensor, "items levels"], token_ids: Sequence[Int[Tensor, " codes"]]):
        _check(codes, token_ids)
        self.levels = codes.shape[1]
        self.tokens = [torch.as_tensor(ids, device=codes.device).long() for ids in token_ids]
        self.items = _sorted(codes.long())
        ordered = codes.long()[self.items]
        none = self.items[:0]
        self.starts, self.codes, self.parents = _runs(ordered)[:1], [none], [none]
        for depth, starts in enumerate(_runs(ordered)[1:], start=1):
            self.starts.append(starts)
            self.codes.append(ordered[starts[:-1], depth - 1])
            self.parents.append(torch.searchsorted(self.starts[depth - 1], starts[:-1], right=True) - 1)
        self.children = [
            torch.searchsorted(below, here) for here, below in zip(self.starts, self.starts[1:], strict=False)
        ]
        self.first = self._first()
        self.leaf_of = torch.empty_like(self.items)
        self.leaf_of[self.items] = torch.repeat_interleave(self.sizes(self.levels))
        self.tables = self._tables()

    @property
    def device(self) -> torch.device:
        return self.items.device

    def count(self, depth: int) -> int:
        """The number of nodes at this depth."""
        return len(self.starts[depth]) - 1

    def sizes(self, depth: int) -> Int[Tensor, " nodes"]:
        """How many items lie below each node."""
        return self.starts[depth].diff()

    def fan_out(self, depth: int) -> int:
        """The most children of a node of this depth."""
        return int(self.children[depth].diff().max())

    @property
    def nbytes(self) -> int:
        """Bytes held by all tensors."""
        lists = (self.tokens, self.starts, self.codes, self.parents, self.children, self.first, self.tables)
        return sum(t.nbytes for tensors in lists for t in tensors) + self.items.nbytes + self.leaf_of.nbytes

    def step(self, depth: int, nodes: Int[Tensor, "*batch"], codes: Int[Tensor, "*batch"]) -> Int[Tensor, "*batch"]:
        """The child of each node by its code; `count(depth + 1)`, which is no node, where there is none."""
        if depth < len(self.tables):
            return self.tables[depth][nodes, codes].long()
        size = len(self.tokens[depth])
        keys = self.parents[depth + 1] * size + self.codes[depth + 1]
        wanted = nodes * size + codes
        found = torch.searchsorted(keys, wanted)
        there = keys[found.clamp(max=len(keys) - 1)] == wanted
        return torch.where(there, found, len(keys))

    def pushed_up(self, leaves: Bool[Tensor, "users leaves"]) -> list[Bool[Tensor, "users nodes"]]:
        """For each depth, the nodes below which at least one of a user's `leaves` lies."""
        found = [leaves]
        for depth in range(self.levels, 0, -1):
            above = torch.zeros(len(leaves), self.count(depth - 1), dtype=torch.int32, device=self.device)
            found.insert(0, above.index_add(1, self.parents[depth], found[0].int()) > 0)
        return found

    def _first(self) -> list[Tensor]:
        first = [self.items[self.starts[self.levels][:-1]]]
        for depth in range(self.levels, 0, -1):
            least = torch.full((self.count(depth - 1),), len(self.items), device=self.device)
            first.insert(0, least.scatter_reduce(0, self.parents[depth], first[0], "amin"))
        return first

    def _tables(self) -> list[Tensor]:
        tables: list[Tensor] = []
        for depth in range(self.levels):
            shape = self.count(depth), len(self.tokens[depth])
            if shape[0] * shape[1] > DENSE_CELLS:
                break
            below = self.count(depth + 1)
            table = torch.full(shape, below, dtype=torch.int32, device=self.device)
            table[self.parents[depth + 1], self.codes[depth + 1]] = torch.arange(
                below, dtype=torch.int32, device=self.device
            )
            tables.append(table)
        return tables


def _sorted(codes: Int[Tensor, "items levels"]) -> Int[Tensor, " items"]:
    """Items by their codes, equal ones by number: all codes of an item as one number, of mixed radix."""
    key = torch.zeros(len(codes), dtype=torch.long, device=codes.device)
    for column in codes.T:
        radix = int(column.max()) + 1
        if int(key.max()) >= torch.iinfo(torch.long).max // radix:
            key = key.unique(return_inverse=True)[1]  # ranks say the same with smaller numbers
        key = key * radix + column
    return key.argsort(stable=True)


def _runs(ordered: Int[Tensor, "items levels"]) -> list[Int[Tensor, " offsets"]]:
    """For each depth the offsets of the runs of equal prefixes, the end included."""
    count, device = len(ordered), ordered.device
    end = torch.tensor([count], device=device)
    fresh = torch.zeros(count, dtype=torch.bool, device=device)
    fresh[0] = True
    runs = [torch.cat([fresh.nonzero()[:, 0], end])]
    for column in ordered.T:
        fresh[1:] |= column[1:] != column[:-1]
        runs.append(torch.cat([fresh.nonzero()[:, 0], end]))
    return runs


def _check(codes: Tensor, token_ids: Sequence[Tensor]) -> None:
    if codes.ndim != 2 or not codes.numel():
        raise InputError(
            f"codes have the shape {tuple(codes.shape)}: give one row of codes for each of 1 or more items"
        )
    if codes.is_floating_point():
        raise InputError(f"codes are {codes.dtype}: give integers")
    if len(token_ids) != codes.shape[1]:
        raise InputError(f"{len(token_ids)} lists of tokens for {codes.shape[1]} levels: give one for each level")
    for level, (column, ids) in enumerate(zip(codes.T, token_ids, strict=True), start=1):
        outside = ((column < 0) | (column >= len(ids))).nonzero()[:, 0]
        if len(outside):
            item = int(outside[0])
            raise InputError(
                f"item {item} has code {int(column[item])} on level {level}, which has tokens for 0…{len(ids) - 1}"
            )
        if len(set(torch.as_tensor(ids).tolist())) < len(ids):
            raise InputError(f"two codes of level {level} have the same token: give each its own")
