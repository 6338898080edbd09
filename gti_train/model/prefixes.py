"""What precedes the first new token of a sequence is a constant: its keys, values and hidden states, run once.

Prefixes that a run needs more than once are kept within a budget of bytes, the most used first; the others are
run again without gradients. Everything a sequence of batches asks for is computed in the same company whenever
it is asked for, so a resumed run sees the same bits as one that never stopped.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, takewhile
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from gti_diag.measures.tiles import one_thread_each, workers

from .caches import filled, kept, with_cache
from .micro_batches import shared
from .sequences import Encoded

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Key = tuple[tuple[int, ...], int]  # the prefix, and from where on it is supervised


@dataclass(frozen=True)
class Prefix:
    """Keys and values of every layer, and the hidden states at supervised positions."""

    states: Float[Tensor, "layers two heads length dim"]
    hidden: Float[Tensor, "positions dim"]


class Prefixes:
    """The prefixes of `encoded`, for a run that will ask for the batches of indices in `schedule`."""

    def __init__(
        self,
        model: "PreTrainedModel",
        encoded: Sequence[Encoded],
        *,
        schedule: Iterable[Sequence[int]],
        budget: int,
        overhead: int,
        limit: int,
    ):
        self.model, self.overhead, self.limit = model, overhead, limit
        self.keys: list[Key] = [(e.prefix, min(e.answer - 1, e.live)) for e in encoded]
        self.trunk = self._run_trunk()
        layers, two, heads, _, dim = self.trunk.states.shape
        per_token = layers * two * heads * dim * self.trunk.states.element_size()
        uses: Counter[Key] = Counter()
        first: dict[Key, int] = {}
        for number, batch in enumerate(schedule):
            for key in (self.keys[i] for i in batch):
                uses[key] += 1
                first.setdefault(key, number)
        self.home: dict[Key, int] = {}
        for key, count in uses.most_common():
            size = per_token * len(key[0])
            if count > 1 and size <= budget:
                self.home[key], budget = first[key], budget - size
        self.company: dict[int, list[Key]] = defaultdict(list)
        for key, number in self.home.items():
            self.company[number].append(key)
        self.kept: dict[Key, Prefix] = {}

    def prepare(self, indices: Sequence[int]) -> None:
        """Run those prefixes of these sequences that will be kept, so that `get` may be called from several threads."""
        homes = {self.home[key] for key in (self.keys[i] for i in indices) if key in self.home and key not in self.kept}
        for number in sorted(homes):
            self.kept |= self._run(self.company[number])

    def get(self, indices: Sequence[int]) -> list[Prefix]:
        """The prefixes of these sequences, in this order."""
        wanted = list(dict.fromkeys(self.keys[i] for i in indices))
        self.prepare(indices)
        passing = self._run([key for key in wanted if key not in self.home])
        return [self.kept.get(key) or passing[key] for key in (self.keys[i] for i in indices)]

    @torch.no_grad()
    def _run_trunk(self) -> Prefix:
        # The beginning that all prefixes share (start token, system prompt): run once, always kept.
        shortest = min((prefix for prefix, _ in self.keys), key=len)
        alike = (len({prefix[i] for prefix, _ in self.keys}) == 1 for i in range(len(shortest)))
        common = sum(takewhile(bool, alike))
        common = max(0, min(common, len(shortest) - 1, min(supervised for _, supervised in self.keys)))
        ids = torch.tensor([shortest[: max(1, common)] or (0,)], device=self.model.device)
        body = self.model.base_model
        output = body(input_ids=ids, **with_cache(body, filled([])))
        return Prefix(_stack(kept(output))[:, :, 0, :, :common], output.last_hidden_state[0, :0])

    def _run(self, keys: list[Key]) -> dict[Key, Prefix]:
        empty = Prefix(self.trunk.states[..., :0, :], self.trunk.hidden)
        found = {key: empty for key in keys if not key[0]}
        keys = [key for key in keys if key[0]]
        if not keys:
            return found
        count = workers(self.model.device)
        groups = shared([len(k[0]) for k in keys], overhead=self.overhead, limit=self.limit, count=count)
        members = [[keys[i] for i in group] for group in groups]
        if count < 2 or len(members) < 2:
            return found | dict(chain.from_iterable(map(self._run_group, members)))
        with one_thread_each(count) as pool:
            return found | dict(chain.from_iterable(pool.map(self._run_group, members)))

    @torch.no_grad()
    def _run_group(self, members: list[Key]) -> list[tuple[Key, Prefix]]:
        device, begun, found = self.model.device, self.trunk.states.shape[-2], []
        length = max(len(ids) for ids, _ in members)
        ids = torch.zeros(len(members), length - begun, dtype=torch.long)
        mask = torch.zeros(len(members), length, dtype=torch.long)
        for row, (prefix, _) in enumerate(members):
            ids[row, : len(prefix) - begun] = torch.tensor(prefix[begun:])
            mask[row, : len(prefix)] = 1
        trunk = self.trunk.states[:, :, None].expand(-1, -1, len(members), -1, -1, -1)
        body, cache = self.model.base_model, filled(trunk if begun else [])
        output = body(input_ids=ids.to(device), attention_mask=mask.to(device), **with_cache(body, cache))
        states = _stack(kept(output))
        for row, key in enumerate(members):
            hidden = output.last_hidden_state[row, key[1] - begun : len(key[0]) - begun]
            found.append((key, Prefix(states[:, :, row, :, : len(key[0])].clone(), hidden.clone())))
        return found


def past(prefixes: Sequence[Prefix]) -> tuple[Float[Tensor, "layers two batch heads length dim"], Tensor]:
    """Keys and values of a batch, aligned to the right, and the mask (batch × length) of what is real."""
    length = max(p.states.shape[-2] for p in prefixes)
    layers, two, heads, _, dim = prefixes[0].states.shape
    states = prefixes[0].states.new_zeros(layers, two, len(prefixes), heads, length, dim)
    mask = torch.zeros(len(prefixes), length, dtype=torch.long, device=states.device)
    for row, prefix in enumerate(prefixes):
        n = prefix.states.shape[-2]
        states[:, :, row, :, length - n :] = prefix.states
        mask[row, length - n :] = 1
    return states, mask


def _stack(cache) -> Tensor:
    return torch.stack([torch.stack([layer.keys, layer.values]) for layer in cache.layers])
