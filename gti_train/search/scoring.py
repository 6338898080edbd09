"""Scores without a decoding step: one forward pass, the last position, two rows of the head.

What prompts begin with is run once and its keys and values are handed to every prompt that goes on from it: the beginning of
all prompts, and then what each group of them shares. The rest goes in batches of similar length, padded on the right: a causal
model never looks there, so no mask is needed, and a score is the same alone, in any company and in any order.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from gti_diag.errors import InputError
from gti_train.model.caches import filled, kept, takes, with_cache
from gti_train.model.continuations import right_padded, rows_of_head, shared_beginning
from gti_train.model.head import head_of, logits_of
from gti_train.model.micro_batches import buckets, overhead_of

if TYPE_CHECKING:
    from transformers import Cache, PreTrainedModel

TOKENS_AT_ONCE = 8192  # in one pass, padding included
ATTENTION = {"full_attention", "sliding_attention"}  # layers whose past is keys and values
SORTED_AT_ONCE = 512  # sequences whose best grouping is looked for together


@dataclass(frozen=True)
class Overrides:
    """Vectors that a model reads where `token` stands: for each prompt as many, in order, as it holds this token."""

    token: int
    vectors: Sequence[Float[Tensor, "slots dim"]]


def score(
    model: "PreTrainedModel",
    prompts: Sequence[Sequence[int]],
    rows: tuple[int, int],
    *,
    shared: Sequence[int] | None = None,
    overrides: Overrides | None = None,
    at_once: int = TOKENS_AT_ONCE,
) -> Float[Tensor, " prompts"]:
    """log p(yes) − log p(no) after each prompt, `rows` being the tokens of yes and no; float32, in the order of `prompts`.

    `shared[i]` says how many first tokens prompt i has in common with others (see `prompts.Prompts`; all 0: nothing is shared);
    without it, what all of them begin with is. `at_once` bounds the tokens of a pass, and changes no result beyond rounding.

    Raises:
        InputError: a prompt is empty or longer than the model's window, or `overrides` do not fit.
    """
    with torch.inference_mode():
        return log_odds(model, last_states(model, prompts, shared=shared, overrides=overrides, at_once=at_once), rows)


def log_odds(model: "PreTrainedModel", states: Float[Tensor, "n dim"], rows: tuple[int, int]) -> Float[Tensor, " n"]:
    """The difference of two logits, in float32: no other row of the head is read."""
    head = rows_of_head(head_of(model), torch.tensor(rows, device=states.device))
    with torch.autocast(states.device.type, enabled=False):
        logits = logits_of(states.float(), head)
    return logits[..., 0] - logits[..., 1]


def last_states(
    model: "PreTrainedModel",
    prompts: Sequence[Sequence[int]],
    *,
    shared: Sequence[int] | None = None,
    overrides: Overrides | None = None,
    at_once: int = TOKENS_AT_ONCE,
) -> Float[Tensor, "prompts dim"]:
    """The last hidden state of each prompt, as `score` computes it; with gradients where they are on.

    Raises:
        InputError: as `score`.
    """
    if not prompts:
        return torch.zeros(0, model.config.get_text_config().hidden_size, device=model.device)
    run = _Run(model, prompts, overrides, at_once)
    limits = run.limits()
    trunk = min(*limits, *(shared or ()), shared_beginning(prompts)) if len(prompts) > 1 else 0
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for i, prompt in enumerate(prompts):
        groups[tuple(prompt[: max(trunk, min(limits[i], shared[i] if shared else trunk))])].append(i)
    first = run.cache(prompts[0][:trunk], None)
    alone = [i for members in groups.values() if len(members) == 1 for i in members]
    found = list(run.states(alone, trunk, first))
    for prefix, members in groups.items():
        if len(members) > 1:
            found += run.states(members, len(prefix), run.cache(prefix[trunk:], first))
    places, states = zip(*found, strict=True)
    return torch.cat(states)[torch.tensor([i for part in places for i in part], device=model.device).argsort()]


class _Run:
    """The passes of one call."""

    def __init__(
        self,
        model: "PreTrainedModel",
        prompts: Sequence[Sequence[int]],
        overrides: Overrides | None,
        at_once: int,
    ):
        self.model, self.prompts, self.overrides, self.at_once = model, prompts, overrides, at_once
        self._check()

    def limits(self) -> list[int]:
        """How many first tokens of each prompt may be shared: not the last one, nor a vector, nor any where the model keeps
        no keys and values."""
        config: Any = self.model.config.get_text_config()
        kinds = set(getattr(config, "layer_types", None) or ())
        if not kinds <= ATTENTION or not takes(self.model.base_model, ("input_ids",), cache=True):
            return [0] * len(self.prompts)
        slot = None if self.overrides is None else self.overrides.token
        return [p.index(slot) if slot in p else len(p) - 1 for p in map(list, self.prompts)]  # type: ignore[arg-type]

    def cache(self, ids: Sequence[int], before: "Cache | None") -> "Cache | None":
        """Keys and values after `ids`, which go on from `before`."""
        if not ids:
            return before
        body: Any = self.model.base_model
        tokens = torch.tensor([list(ids)], device=self.model.device)
        return kept(body(input_ids=tokens, **with_cache(body, _repeated(before, 1))))

    def states(self, members: Sequence[int], begun: int, cache: "Cache | None") -> Iterator[tuple[list[int], Tensor]]:
        """Places of prompts, and the last hidden state of each, in batches; their first `begun` tokens are in `cache`."""
        body: Any = self.model.base_model
        for batch in self._batches(members, begun):
            ids, real = right_padded([self.prompts[i][begun:] for i in batch])
            given = inputs_of(self.model, ids.to(self.model.device), batch, self.overrides)
            past = {"use_cache": False} if cache is None else with_cache(body, _repeated(cache, len(batch)))
            hidden = body(**given, **past).last_hidden_state
            yield batch, hidden[torch.arange(len(batch)), real.sum(1) - 1]

    def _batches(self, members: Sequence[int], begun: int) -> Iterator[list[int]]:
        ordered = sorted(members, key=lambda i: len(self.prompts[i]))
        overhead = overhead_of(self.model.device)
        for start in range(0, len(ordered), SORTED_AT_ONCE):
            some = ordered[start : start + SORTED_AT_ONCE]
            lengths = [len(self.prompts[i]) - begun for i in some]
            yield from ([some[i] for i in group] for group in buckets(lengths, overhead=overhead, limit=self.at_once))

    def _check(self) -> None:
        config: Any = self.model.config.get_text_config()
        window = getattr(config, "max_position_embeddings", None)
        for number, prompt in enumerate(self.prompts):
            if not len(prompt) or (window is not None and len(prompt) > window):
                raise InputError(f"prompt {number} has {len(prompt)} tokens: the model takes from 1 to {window}")
        if self.overrides is None:
            return
        for number, (prompt, vectors) in enumerate(zip(self.prompts, self.overrides.vectors, strict=True)):
            slots = sum(token == self.overrides.token for token in prompt)
            if vectors.shape != (slots, config.hidden_size):
                raise InputError(
                    f"prompt {number} has {slots} places for vectors of {config.hidden_size} numbers, and is given "
                    f"{tuple(vectors.shape)}"
                )


def inputs_of(
    model: "PreTrainedModel", ids: Tensor, prompts: Sequence[int], overrides: Overrides | None
) -> dict[str, Tensor]:
    """What a model is given for some `prompts` (by their numbers) of these padded ids: vectors where their token stands."""
    if overrides is None:
        return {"input_ids": ids}
    embedded = model.get_input_embeddings()(ids)
    vectors = torch.cat([overrides.vectors[i].to(embedded) for i in prompts])
    slots = (ids == overrides.token)[..., None].expand_as(embedded)
    return {"inputs_embeds": embedded.masked_scatter(slots, vectors)}


def _repeated(cache: "Cache | None", count: int) -> "Cache":
    """A new cache that begins as `cache` does, for `count` prompts."""
    layers: Any = [] if cache is None else cache.layers
    return filled((layer.keys.expand(count, -1, -1, -1), layer.values.expand(count, -1, -1, -1)) for layer in layers)
