"""Which items a model names next: beams over the tree of items, or all of its nodes.

The tree comes before any cut: only codes that lead to an allowed item compete, so no beam is lost to an invalid one and
none is returned. Keys and values of a prompt are computed once per user (see `model.continuations`), beams point to
their parents, and logits are taken of the codes of one level. Nothing is read of `generation_config`: penalties,
temperatures and cuts meant for prose change which items win.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gti_diag.errors import InputError
from gti_train.model.continuations import Continuations, continuations
from gti_train.model.matrices import matrices

from .filters import Allowed, ItemSets, allowed, check_sets
from .order import best
from .trie import Trie

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SCORES = ("items", "vocabulary")
TOKENS_AT_ONCE = 4096  # of prompts with their beams, or nodes, in one batch: bounds memory, changes no result
NODES_AT_ONCE = 1024  # of an exact pass: each also sees the others of its chunk in the mask, for nothing
Ranked = tuple[Int[Tensor, "users k"], Float[Tensor, "users k"]]
Found = tuple[Int[Tensor, "users n"], Float[Tensor, "users n"]]  # places in `trie.items`, and scores


def decode(
    model: "PreTrainedModel",
    trie: Trie,
    prompts: Sequence[Sequence[int]],
    k: int,
    *,
    beams: int | None = None,
    only: Sequence[Collection[int] | None] | None = None,
    exclude: Sequence[Collection[int] | None] | None = None,
    scores: str = "items",
    exact: bool = False,
) -> Ranked:
    """The k best items of each user and the logarithms of their probabilities; see `Decoder.decode`."""
    return Decoder(model, trie, scores=scores).decode(prompts, k, beams=beams, only=only, exclude=exclude, exact=exact)


class Decoder:
    """A model and a tree of items, for any number of requests. Where weights change, make another: keys and values of what
    prompts begin with are kept from request to request.

    scores: `items`, where each code's probability is among the codes that may follow in the tree, so that those of all
    items sum to 1; or `vocabulary`, the model's own probability of the code among all tokens. An item's score is the
    sum of the logarithms over its codes, whatever else is allowed. The two rank differently.

    Raises:
        InputError: another `scores`; a token that the model has no row for.
    """

    def __init__(self, model: "PreTrainedModel", trie: Trie, *, scores: str = "items"):
        if scores not in SCORES:
            raise InputError(f"scores {scores!r} are unknown: use one of {', '.join(SCORES)}")
        rows, largest = len(matrices(model)["input"]), max(int(ids.max()) for ids in trie.tokens)
        if largest >= rows:
            raise InputError(f"the tree has token {largest} and the model {rows} rows: extend the model by these codes")
        if trie.device != model.device:
            raise InputError(f"the tree is on {trie.device} and the model on {model.device}: make it of codes there")
        self.model, self.trie, self.scores = model.eval(), trie, scores
        self.way: Continuations | None = None
        self.longest = 0

    @torch.no_grad()
    def decode(
        self,
        prompts: Sequence[Sequence[int]],
        k: int,
        *,
        beams: int | None = None,
        only: ItemSets | None = None,
        exclude: ItemSets | None = None,
        exact: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> Ranked:
        """Item indices (users × k, rows of the tree's `codes`), best first, and their log-probabilities.

        beams: prefixes kept at each level [default: k]; `exact` keeps all, one pass of the model per level. only,
        exclude: for each user a set of items that may, or may not, be returned; None for no such set. Ties, and items
        that share all codes, go by item number. `progress` is told how many users are done.

        Raises:
            InputError: an empty prompt or one that leaves no room for the codes, k or beams out of range, sets that leave
                a user fewer than k items.
        """
        beams = k if beams is None else beams
        sets = [value and [None if s is None else {int(i) for i in s} for s in value] for value in (only, exclude)]
        self._check(prompts, k, beams)
        check_sets(self.trie, len(prompts), k=k, only=sets[0], exclude=sets[1])
        items = torch.empty(len(prompts), k, dtype=torch.long, device=self.trie.device)
        values = torch.empty(len(prompts), k, device=self.trie.device)
        if not prompts:
            return items, values
        way, done = self._agreeing(prompts), 0
        for users in self._batches(prompts, 1 if exact else beams, way.at_once):
            free = allowed(self.trie, users, only=sets[0], exclude=sets[1])
            states = way.begin([prompts[user] for user in users])
            places, totals = self._all(way, states) if exact else self._beams(way, states, free, beams)
            if free is not None:
                totals = totals.masked_fill(~free.items.gather(1, places), -torch.inf)
            found, rows = self.trie.items[places], torch.tensor(users, device=self.trie.device)
            chosen = best(totals, found, k)
            items[rows], values[rows] = found.gather(1, chosen), totals.gather(1, chosen)
            done += len(users)
            if progress is not None:
                progress(done)
        return items, values

    def _beams(
        self, way: Continuations, states: Float[Tensor, "users states"], free: Allowed | None, beams: int
    ) -> Found:
        trie, users = self.trie, len(states)
        nodes = torch.zeros(users, 1, dtype=torch.long, device=trie.device)
        totals, states, kept = nodes.float(), states[:, None], 0
        lineage = nodes[..., None][..., :0]  # the columns of each beam and its ancestors
        for depth in range(trie.levels):
            children, gains = self._children(way, depth, nodes, states)
            fan_out, children = children.shape[2], children.flatten(1)
            found = (totals[..., None] + gains).flatten(1)
            if free is not None:
                found = found.masked_fill(~free.nodes[depth + 1].gather(1, children), -torch.inf)
            chosen = best(found, trie.first[depth + 1][children], min(beams, found.shape[1], trie.count(depth + 1)))
            totals, nodes = found.gather(1, chosen), children.gather(1, chosen)
            if depth + 1 < trie.levels:
                paths = lineage.gather(1, (chosen // fan_out)[..., None].expand(-1, -1, depth))
                states = self._states(way, depth + 1, nodes, paths)
                own = kept + torch.arange(nodes.shape[1], device=trie.device)
                lineage, kept = torch.cat([paths, own.expand(users, -1)[..., None]], 2), kept + nodes.shape[1]
        return self._of_leaves(nodes, totals)

    def _states(
        self, way: Continuations, depth: int, nodes: Int[Tensor, "users n"], paths: Int[Tensor, "users n ancestors"]
    ) -> Float[Tensor, "users n states"]:
        """The states after some nodes of a depth.

        Among the codes that may follow, an only one has probability 1 whatever the state: above the leaves, the model is
        not run for such nodes, and their states are zeros.
        """
        tokens = self.trie.tokens[depth - 1][self.trie.codes[depth][nodes]]
        inner = depth + 1 < self.trie.levels
        if inner or self.scores != "items":
            return way.extend(tokens, paths, keep=inner)
        forks = self.trie.children[depth].diff()[nodes] > 1
        width = max(1, int(forks.sum(1).max()))
        picked = forks.int().argsort(dim=1, descending=True, stable=True)[:, :width]
        found = way.extend(
            tokens.gather(1, picked), paths.gather(1, picked[..., None].expand(-1, -1, depth - 1)), keep=False
        )
        states = found.new_zeros(*nodes.shape, found.shape[-1])
        return states.scatter(1, picked[..., None].expand_as(found), found)

    def _children(
        self, way: Continuations, depth: int, nodes: Int[Tensor, "users n"], states: Float[Tensor, "users n states"]
    ) -> tuple[Int[Tensor, "users n children"], Float[Tensor, "users n children"]]:
        """The children of some nodes, padded to the largest fan-out, and the logarithms of their probabilities."""
        trie = self.trie
        begin, end = trie.children[depth][nodes], trie.children[depth][nodes + 1]
        children = begin[..., None] + torch.arange(trie.fan_out(depth), device=trie.device)
        valid = children < end[..., None]
        children = torch.where(valid, children, begin[..., None])
        logits = way.logits(states, trie.tokens[depth]).gather(2, trie.codes[depth + 1][children])
        logits = logits.masked_fill(~valid, -torch.inf)
        return children, logits - self._norm(way, logits, states)[..., None]

    def _all(self, way: Continuations, states: Float[Tensor, "users states"]) -> Found:
        trie, users, kept = self.trie, len(states), 0
        totals, states = states.new_zeros(users, 1, dtype=torch.float32), states[:, None]
        paths = lineage = torch.zeros(1, 0, dtype=torch.long, device=trie.device)
        for depth in range(trie.levels):
            numbers, parts = torch.arange(trie.count(depth), device=trie.device), []
            paths = lineage[trie.parents[depth]] if depth else paths
            for nodes in numbers.split(max(1, min(NODES_AT_ONCE, way.at_once) // users)):
                if depth:
                    states = self._states(way, depth, nodes.expand(users, -1), paths[nodes].expand(users, -1, -1))
                parts.append(self._totals(way, depth, nodes, states, totals))
            if depth:
                lineage, kept = torch.cat([paths, kept + numbers[:, None]], 1), kept + len(numbers)
            totals = torch.cat(parts, 1)
        places = torch.arange(len(trie.items), device=trie.device).expand(users, -1)
        return places, totals.repeat_interleave(trie.sizes(trie.levels), 1)

    def _totals(
        self,
        way: Continuations,
        depth: int,
        nodes: Int[Tensor, " nodes"],
        states: Float[Tensor, "users nodes states"],
        totals: Float[Tensor, "users depth_nodes"],
    ) -> Float[Tensor, "users children"]:
        """The scores of all children of consecutive nodes."""
        trie, offsets = self.trie, self.trie.children[depth]
        span = slice(int(offsets[nodes[0]]), int(offsets[nodes[-1] + 1]))
        parent, code = trie.parents[depth + 1][span], trie.codes[depth + 1][span]
        owner = parent - nodes[0]
        logits = way.logits(states, trie.tokens[depth])
        valid = torch.zeros(logits.shape[1:], dtype=torch.bool, device=trie.device)
        valid[owner, code] = True
        norm = self._norm(way, logits.masked_fill(~valid, -torch.inf), states)
        return totals[:, parent] + logits[:, owner, code] - norm[:, owner]

    def _norm(self, way: Continuations, valid: Tensor, states: Tensor) -> Tensor:
        """What turns logits into logarithms of probabilities: among the valid children, or among all tokens."""
        return valid.logsumexp(-1) if self.scores == "items" else way.normaliser(states)

    def _of_leaves(self, leaves: Int[Tensor, "users leaves"], totals: Float[Tensor, "users leaves"]) -> Found:
        """The items of some leaves, which share their leaf's score; what pads to the largest leaf has −∞."""
        starts, sizes = self.trie.starts[self.trie.levels], self.trie.sizes(self.trie.levels)
        place = torch.arange(int(sizes.max()), device=self.trie.device)
        there = place < sizes[leaves][..., None]
        places = torch.where(there, starts[leaves][..., None] + place, 0)
        return places.flatten(1), totals[..., None].where(there, -torch.inf).flatten(1)

    def _agreeing(self, prompts: Sequence[Sequence[int]]) -> Continuations:
        """The way to run the model, asked for again where prompts are longer than any before (windows may begin)."""
        longest = max(map(len, prompts))
        if self.way is None or longest > self.longest:
            path = [int(ids[codes[0]]) for ids, codes in zip(self.trie.tokens, self.trie.codes[1:], strict=True)]
            self.way, self.longest = continuations(self.model, prompts, path[: self.trie.levels - 1]), longest
        return self.way

    def _batches(self, prompts: Sequence[Sequence[int]], beams: int, states: int) -> Iterator[list[int]]:
        """Users of similar length together, the longest first."""
        order = sorted(range(len(prompts)), key=lambda user: (-len(prompts[user]), user))
        while order:
            width = len(prompts[order[0]]) + beams * (self.trie.levels - 1)
            count = max(1, min(TOKENS_AT_ONCE // width, states // beams))
            yield order[:count]
            order = order[count:]

    def _check(self, prompts: Sequence[Sequence[int]], k: int, beams: int) -> None:
        items = len(self.trie.items)
        if not 1 <= k <= items:
            raise InputError(f"k is {k} and the catalogue has {items} items: ask for 1…{items}")
        if beams < k:
            raise InputError(f"{beams} beams cannot find {k} items: use {k} beams or more")
        positions = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        for user, prompt in enumerate(prompts):
            if not len(prompt):
                raise InputError(f"the prompt of user {user} is empty: give at least one token")
            if positions and len(prompt) + self.trie.levels - 1 > positions:
                raise InputError(
                    f"the prompt of user {user} has {len(prompt)} tokens and the model {positions} positions: "
                    "give a shorter history"
                )
