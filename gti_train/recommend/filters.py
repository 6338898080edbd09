"""Which items a request may get: sets of items become a mask over the leaves of the tree, and over the prefixes above."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from gti_diag.errors import InputError

from .trie import Trie

ItemSets = Sequence[Collection[int] | None]


@dataclass(frozen=True)
class Allowed:
    """For each user the items, in the order of `trie.items`, and at each depth the nodes that lead to one of them."""

    items: Bool[Tensor, "users items"]
    nodes: list[Bool[Tensor, "users nodes"]]


def check_sets(trie: Trie, users: int, *, k: int, only: ItemSets | None, exclude: ItemSets | None) -> None:
    """Refuse sets that do not fit the users, name items that are not there, or leave fewer than k of them.

    Raises:
        InputError: as said.
    """
    count = len(trie.items)
    for name, sets in (("only", only), ("exclude", exclude)):
        if sets is not None and len(sets) != users:
            raise InputError(f"{name} holds {len(sets)} sets of items for {users} users: give one for each")
        for user, chosen in enumerate(sets or ()):
            wrong = next((item for item in chosen or () if not 0 <= item < count), None)
            if wrong is not None:
                raise InputError(f"{name} of user {user} names item {wrong}: items are 0…{count - 1}")
    for user in range(users):
        left = _left(user, count, only, exclude)
        if left < k:
            raise InputError(f"user {user} may get {left} items and k is {k}: ask for fewer, or allow more")


def allowed(trie: Trie, users: Sequence[int], *, only: ItemSets | None, exclude: ItemSets | None) -> Allowed | None:
    """The masks of some of the users; None where everything is allowed to all of them."""
    chosen = [(_of(only, user), _of(exclude, user)) for user in users]
    if not any(first is not None or second for first, second in chosen):
        return None
    free = torch.stack([_mask(len(trie.items), *sets) for sets in chosen]).to(trie.device)
    counts = torch.zeros(len(users), trie.count(trie.levels), dtype=torch.int32, device=trie.device)
    counts.index_add_(1, trie.leaf_of, free.int())
    return Allowed(free[:, trie.items], trie.pushed_up(counts > 0))


def _mask(count: int, only: Collection[int] | None, exclude: Collection[int] | None) -> Bool[Tensor, " items"]:
    free = torch.full((count,), only is None)
    if only is not None:
        free[list(only)] = True
    if exclude:
        free[list(exclude)] = False
    return free


def _left(user: int, count: int, only: ItemSets | None, exclude: ItemSets | None) -> int:
    wanted, removed = _of(only, user), set(_of(exclude, user) or ())
    return count - len(removed) if wanted is None else len(set(wanted) - removed)


def _of(sets: ItemSets | None, user: int) -> Collection[int] | None:
    return None if sets is None else sets[user]
