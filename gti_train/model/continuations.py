"""What may follow a prompt, as a tree of tokens behind it: keys and values of each prompt are computed once.

All continuations of a prompt lie side by side in one row, behind the prompt. A mask says who is whose ancestor, and
positions go by depth, so nothing is copied when a continuation branches: it names its ancestors. What prompts begin
with is run once for all of them, and not again where the prompts before began alike. Models that cannot be run like this
(recurrent states, positions that are read off the row) run whole sequences instead; which way fits is found by asking
the model (see `continuations`).
"""

import logging
from collections.abc import Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .caches import filled, takes, with_cache
from .head import Head, head_of, logits_of
from .matrices import matrices
from .trees import alike

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)
NEEDED = ("input_ids", "attention_mask", "position_ids")  # what a model's body must take, besides a cache
CHUNK_ROWS = 8192  # rows of the head in one step of a normaliser


class Continuations(Protocol):
    """Prompts and what follows them. A kept token has a column: its place among all kept tokens of its prompt."""

    model: "PreTrainedModel"
    at_once: int  # states that may be held at once

    def begin(self, prompts: Sequence[Sequence[int]]) -> Float[Tensor, "users states"]:
        """Forget what was there; the state after each prompt."""

    def extend(
        self, tokens: Int[Tensor, "users n"], paths: Int[Tensor, "users n depth"], *, keep: bool
    ) -> Float[Tensor, "users n states"]:
        """The state after each token, whose ancestors behind the prompt are in the columns `paths`.

        With `keep`, the tokens get the next columns, in this order.
        """

    def logits(
        self, states: Float[Tensor, "*batch states"], tokens: Int[Tensor, " tokens"]
    ) -> Float[Tensor, "*batch tokens"]:
        """Logits of some tokens, in float32."""

    def normaliser(self, states: Float[Tensor, "*batch states"]) -> Float[Tensor, "*batch"]:
        """log Σ exp of the logits of the whole vocabulary."""


class SharedPrompts:
    """Continuations by an ancestor mask over one row of keys and values per prompt. States are hidden states.

    Those of the last first prompt stay: prompts that begin like `known` go on from there. They are the model's at the
    time, so where its weights have changed another instance is needed, or `known = ()`.
    """

    at_once = 4096
    known: Sequence[int] = ()

    def __init__(self, model: "PreTrainedModel"):
        self.model, self.head, self.cache = model, head_of(model), filled([])
        config: Any = model.config.get_text_config()
        self.kinds = sorted(set(getattr(config, "layer_types", None) or ()))
        self.window: int | None = getattr(config, "sliding_window", None)

    @torch.no_grad()
    def begin(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        device, users = self.model.device, len(prompts)
        shared = self._run_beginning(prompts)
        ids, real = right_padded([prompt[shared:] for prompt in prompts])
        self.lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
        self.real = torch.nn.functional.pad(real, (shared, 0), value=True).to(device)
        hidden = self._run(
            ids.to(device), torch.arange(shared, self.real.shape[1])[None].expand(users, -1), self.real.long()
        )
        self.positions = torch.arange(self.real.shape[1], device=device).expand(users, -1)
        return hidden[torch.arange(users, device=device), self.lengths - 1 - shared]

    def _run_beginning(self, prompts: Sequence[Sequence[int]]) -> int:
        """Fill the cache with what the prompts begin with, as far as it is known or several share it; its length."""
        device, users, shared = self.model.device, len(prompts), shared_beginning(prompts)
        start = min(shared, alike(self.known, prompts[0]))
        self.known = tuple(prompts[0])
        if start:
            self.cache.batch_select_indices(torch.tensor([0], device=device))
            if excess := self.cache.get_seq_length() - start:
                self.cache.crop(-excess)
        else:
            self.cache = filled([])
        if users == 1:
            return start
        if shared > start:
            ids = torch.tensor([prompts[0][start:shared]], device=device)
            self._run(ids, torch.arange(start, shared)[None], torch.ones(1, shared, dtype=torch.long, device=device))
        if shared:
            self.cache.batch_repeat_interleave(users)
        return shared

    @torch.no_grad()
    def extend(self, tokens: Tensor, paths: Tensor, *, keep: bool) -> Tensor:
        users, count, depth = paths.shape
        before = self.cache.get_seq_length()
        prompt = self.real.shape[1]
        sees = torch.zeros(users, count, before + count, dtype=torch.bool, device=tokens.device)
        sees[:, :, :prompt] = self.real[:, None]
        sees.scatter_(2, paths + prompt, True)
        sees[:, :, before:] = torch.eye(count, dtype=torch.bool, device=tokens.device)
        own = (self.lengths + depth)[:, None].expand(users, count)
        positions = torch.cat([self.positions, own], 1)
        hidden = self._run(tokens, own, self._masks(sees, positions))
        if keep:
            self.positions = positions
        else:
            self.cache.crop(-count)
        return hidden

    def logits(self, states: Tensor, tokens: Tensor) -> Tensor:
        return logits_of(states.float(), rows_of_head(self.head, tokens))

    def normaliser(self, states: Tensor) -> Tensor:
        states, starts = states.float(), range(0, len(self.head.weight), CHUNK_ROWS)
        heads = (rows_of_head(self.head, slice(start, start + CHUNK_ROWS)) for start in starts)
        return torch.stack([logits_of(states, head).logsumexp(-1) for head in heads]).logsumexp(0)

    def _run(self, ids: Tensor, positions: Tensor, mask: Any) -> Tensor:
        body: Any = self.model.base_model
        where = {"attention_mask": mask, "position_ids": positions.to(ids.device), **with_cache(body, self.cache)}
        return body(input_ids=ids, **where).last_hidden_state

    def _masks(self, sees: Tensor, positions: Tensor) -> Any:
        """The mask, or one for each kind of layer, as what is added to scores."""

        def added(visible: Tensor) -> Tensor:
            least = torch.finfo(self.model.dtype).min
            return torch.zeros_like(visible, dtype=self.model.dtype).masked_fill(~visible, least)[:, None]

        if self.window is None:
            return added(sees)
        near = positions[:, -sees.shape[1] :, None] - positions[:, None] < self.window
        if not self.kinds:
            return added(sees & near)
        return {kind: added(sees & near if kind == "sliding_attention" else sees) for kind in self.kinds}


class WholeSequences:
    """Continuations by running each from the start of its prompt: right for any causal model. States are all logits."""

    at_once = 256

    def __init__(self, model: "PreTrainedModel", *, rows: int = 16):
        self.model, self.rows = model, rows

    def begin(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        self.prompts = [list(prompt) for prompt in prompts]
        self.kept: list[list[int]] = [[] for _ in prompts]
        return self._run(self.prompts)

    def extend(self, tokens: Tensor, paths: Tensor, *, keep: bool) -> Tensor:
        sequences = [
            [*prompt, *(kept[column] for column in path), token]
            for prompt, kept, own, ways in zip(self.prompts, self.kept, tokens.tolist(), paths.tolist(), strict=True)
            for token, path in zip(own, ways, strict=True)
        ]
        if keep:
            for kept, own in zip(self.kept, tokens.tolist(), strict=True):
                kept += own
        return self._run(sequences).view(*tokens.shape, -1)

    def logits(self, states: Tensor, tokens: Tensor) -> Tensor:
        return states[..., tokens]

    def normaliser(self, states: Tensor) -> Tensor:
        return states.logsumexp(-1)

    @torch.no_grad()
    def _run(self, sequences: list[list[int]]) -> Tensor:
        return torch.cat([self._batch(sequences[i : i + self.rows]) for i in range(0, len(sequences), self.rows)])

    def _batch(self, sequences: list[list[int]]) -> Tensor:
        ids, real = right_padded(sequences)
        mask = real.long().to(self.model.device)
        logits = self.model(input_ids=ids.to(self.model.device), attention_mask=mask, use_cache=False).logits
        return logits[torch.arange(len(sequences)), mask.sum(1) - 1].float()


def continuations(model: "PreTrainedModel", prompts: Sequence[Sequence[int]], tokens: Sequence[int]) -> Continuations:
    """The fastest way that agrees with the model on `tokens`, one after the other, behind these prompts.

    The model's own attention is tried first, then its fused one: some kernels take no mask.
    """
    whole, own = WholeSequences(model), model.config._attn_implementation
    sample = [max(prompts, key=len), min(prompts, key=len)]
    with torch.autocast(model.device.type, enabled=False):  # its rounding would hide what is looked for
        expected = _walk(whole, sample, tokens)
        for attention in dict.fromkeys([own, "sdpa"]):
            if attention != own:
                model.set_attn_implementation(attention)
            if _agrees(model, expected, sample, tokens):
                return SharedPrompts(model)
    model.set_attn_implementation(own)
    log.warning("%s runs no tree of tokens behind a prompt: decoding takes the slow way", type(model).__name__)
    return whole


def shared_beginning(prompts: Sequence[Sequence[int]]) -> int:
    """How many tokens all prompts begin with, leaving each at least one of its own."""
    shortest = min(prompts, key=len)[:-1]
    return sum(1 for _ in takewhile(lambda i: len({prompt[i] for prompt in prompts}) == 1, range(len(shortest))))


def right_padded(sequences: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Ids, and which of them are real (rows × longest)."""
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    real = torch.arange(int(lengths.max())) < lengths[:, None]
    ids = torch.zeros(real.shape, dtype=torch.long)
    ids[real] = torch.tensor([token for sequence in sequences for token in sequence])
    return ids, real


def rows_of_head(head: Head, tokens: Tensor | slice) -> Head:
    """The head of some tokens alone, in float32: few rows, and sums of their logarithms deserve it."""
    bias = None if head.bias is None else head.bias[tokens].float()
    return Head(head.weight[tokens].float(), bias, head.scale, head.cap)


def _agrees(
    model: "PreTrainedModel", expected: Tensor, prompts: Sequence[Sequence[int]], tokens: Sequence[int]
) -> bool:
    if not takes(model.base_model, NEEDED, cache=True):
        return False
    try:
        found = _walk(SharedPrompts(model), prompts, tokens)
    except Exception as error:  # other caches, other masks, other arguments: whatever it is, this way does not fit
        log.debug("%s does not run a tree behind a prompt: %s", type(model).__name__, error)
        return False
    tolerance = 1e-3 if model.dtype == torch.float32 else 8e-2  # SmolLM2 in bfloat16: 0.037 by rounding alone
    return bool((found - expected).norm() < tolerance * (expected - expected.mean(-1, keepdim=True)).norm())


def _walk(way: Continuations, prompts: Sequence[Sequence[int]], tokens: Sequence[int]) -> Tensor:
    """The logits of all tokens after each prompt, and after each of `tokens` in turn; a second branch lies beside it."""
    states = [way.begin(prompts)]
    device = states[0].device
    columns = torch.zeros(len(prompts), 2, 0, dtype=torch.long, device=device)
    for depth, token in enumerate(tokens):
        branches = torch.tensor([[tokens[0], token]], device=device).expand(len(prompts), 2)
        states.append(way.extend(branches, columns, keep=True)[:, 1])
        columns = torch.cat([columns, torch.full((len(prompts), 2, 1), 2 * depth + 1, device=device)], 2)
    rows = len(matrices(way.model)["input"])  # a few of all: new tokens alone may be one point
    return way.logits(torch.stack(states), torch.linspace(0, rows - 1, min(rows, 256), device=device).long())
