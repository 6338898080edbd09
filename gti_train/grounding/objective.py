"""The objective of grounding: −log likelihood of answers, by the cheapest way that agrees with the model itself."""

import logging
from collections.abc import Sequence
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gti_diag.measures.tiles import workers
from gti_train.loop.order import order
from gti_train.loop.processes import world
from gti_train.loop.training import Part
from gti_train.model.attention import use_constant_past
from gti_train.model.caches import filled, takes, with_cache
from gti_train.model.micro_batches import overhead_of, shared
from gti_train.model.new_rows import NewRows, exact_loss
from gti_train.model.prefixes import Prefixes, past
from gti_train.model.sequences import Encoded, collate

from .config import GroundingConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

# Ways to a loss, the cheapest first, and what the body of a model must take for each; `split` needs a cache besides.
WAYS = {"split": ("inputs_embeds", "position_ids"), "whole": ("inputs_embeds",)}
# Families that the tests ground by `split`: with one of them, a slower way means that something around it has changed.
SPLIT = {
    "cohere", "gemma", "gemma2", "gemma3_text", "glm", "gpt2", "gpt_neox", "gpt_oss", "granite", "llama", "mistral",
    "mixtral", "olmo2", "opt", "phi", "phi3", "qwen2", "qwen3", "qwen3_moe", "smollm3", "starcoder2",
}  # fmt: skip


class Answers:
    """The objective: −log likelihood of answers, with gradients to the new rows alone.

    Three ways to the same number: `split` runs what precedes the first new token apart (see `prefixes`);
    `whole` runs sequences from their start, for models that take no keys and values; `exact` differentiates
    whole matrices, for heads that `new_rows` does not know.
    """

    def __init__(
        self,
        model: "PreTrainedModel",
        rows: NewRows,
        encoded: Sequence[Encoded],
        *,
        way: str,
        pad: int,
        micro_tokens: int,
        prefixes: Prefixes | None = None,
    ):
        self.model, self.rows, self.encoded, self.way = model, rows, encoded, way
        self.pad, self.micro_tokens, self.prefixes = pad, micro_tokens, prefixes

    def supervised(self, indices: Sequence[int]) -> int:
        """The number of answer tokens."""
        return sum(self.encoded[i].supervised for i in indices)

    def updated(self) -> None:
        """Let the model hold the new values."""
        self.rows.materialise(self.model)

    @property
    def side_by_side(self) -> bool:
        """Whether two parts may run at once: `exact` swaps the model's weights while it runs."""
        return self.way != "exact"

    def parts(self, indices: Sequence[int]) -> list[Part]:
        """Micro-batches of similar length, the longest first; enough of them to share among the workers."""
        loss = {"split": self._split, "whole": self._whole, "exact": self._exact}[self.way]
        lengths = [len(e.tail) if self.way == "split" else len(e.ids) for e in (self.encoded[i] for i in indices)]
        count = workers(self.model.device) if self.side_by_side else 1
        groups = shared(lengths, overhead=overhead_of(self.model.device), limit=self.micro_tokens, count=count)
        if self.prefixes is not None:
            self.prefixes.prepare(indices)
        return [partial(loss, [indices[i] for i in group]) for group in groups]

    def _split(self, indices: list[int]) -> Tensor:
        assert self.prefixes is not None
        examples, prefixes = [self.encoded[i] for i in indices], self.prefixes.get(indices)
        known = torch.cat([p.hidden for p in prefixes])
        next_tokens = [t for e in examples for t in e.ids[min(e.answer - 1, e.live) + 1 : e.live + 1]]
        loss = self.rows.loss(self.model, known, torch.tensor(next_tokens, device=known.device).long())
        if not any(e.tail for e in examples):
            return loss
        batch = collate(examples, pad=self.pad).to(self.model.device)
        states, mask = past(prefixes)
        body = self.model.base_model
        hidden = body(
            inputs_embeds=self.rows.embed(self.model, batch.ids),
            attention_mask=torch.cat([mask, batch.mask], 1),
            position_ids=batch.positions,
            **with_cache(body, filled(states if mask.shape[1] else [])),
        ).last_hidden_state
        return loss + self.rows.loss(self.model, hidden[batch.supervised], batch.targets)

    def _whole(self, indices: list[int]) -> Tensor:
        batch = collate([self.encoded[i] for i in indices], pad=self.pad, whole=True).to(self.model.device)
        hidden = self.model.base_model(
            inputs_embeds=self.rows.embed(self.model, batch.ids), attention_mask=batch.mask, use_cache=False
        ).last_hidden_state
        return self.rows.loss(self.model, hidden[batch.supervised], batch.targets)

    def _exact(self, indices: list[int]) -> Tensor:
        batch = collate([self.encoded[i] for i in indices], pad=self.pad, whole=True).to(self.model.device)
        where = {"mask": batch.mask, "supervised": batch.supervised, "targets": batch.targets}
        return exact_loss(self.model, self.rows, batch.ids, **where)


def answers(
    model: "PreTrainedModel",
    rows: NewRows,
    encoded: Sequence[Encoded],
    config: GroundingConfig,
    *,
    train_count: int,
    pad: int,
) -> Answers:
    """The cheapest way that agrees with `model(input_ids, labels).loss` on an example of each direction.

    Models differ in what they do around embeddings and head, and in what they hand to their attention; asking the
    model is surer than a list of names. Each way is tried with our attention, then with the model's own, which is
    also what the loss to agree with is taken by.
    """
    common: dict[str, Any] = {"pad": pad, "micro_tokens": config.micro_tokens}
    probe = sorted(range(len(encoded)), key=lambda i: (len(encoded[i].ids), i))
    probe = list({len(encoded[i].tail) > len(encoded[i].ids) // 2: i for i in probe[::-1]}.values())
    sample = [encoded[i] for i in probe]
    exact = Answers(model, rows, sample, way="exact", **common)
    tolerance = 1e-3 if model.dtype == torch.float32 else 3e-2
    own, expected = model.config._attn_implementation, _probed(exact, batch=1)
    budget = {"overhead": overhead_of(model.device), "limit": config.micro_tokens}

    def agrees(way: str) -> bool:
        try:
            prefixes = Prefixes(model, sample, schedule=[], budget=0, **budget) if way == "split" else None
            found = _probed(Answers(model, rows, sample, way=way, prefixes=prefixes, **common), batch=2)
        except Exception as error:  # other caches, other shapes, other arguments: whatever it is, this way does not fit
            log.debug("%s does not run %s: %s", type(model).__name__, way, error)
            return False
        return abs(found / expected - 1) < tolerance

    for attend in (use_constant_past, lambda model: model.set_attn_implementation(own)):
        attend(model)
        for way, needs in WAYS.items():
            if takes(model.base_model, needs, cache=way == "split") and agrees(way):
                split = way == "split"
                if not split:
                    _say_slower(model)
                prefixes = _prefixes(model, encoded, config, train_count=train_count) if split else None
                return Answers(model, rows, encoded, way=way, prefixes=prefixes, **common)
    _say_slower(model)
    log.warning("%s runs none of the fast ways: grounding takes the slow exact one", type(model).__name__)
    return Answers(model, rows, encoded, way="exact", **common)


def _say_slower(model: "PreTrainedModel") -> None:
    """Say so where a model of a family that is known to take the fast way does not take it."""
    if model.config.model_type in SPLIT:
        from transformers import __version__

        log.warning("%s is known to run prompts once (the fast way) but does not with transformers %s: grounding takes "
                    "two to three times as long; please report it", type(model).__name__, __version__)  # fmt: skip


@torch.no_grad()
def _probed(objective: Answers, *, batch: int) -> float:
    """The summed loss of the objective's examples, in this process alone: another may fail where it does not."""
    batches = torch.arange(len(objective.encoded)).split(batch)
    return sum(float(part()) for indices in batches for part in objective.parts(indices.tolist()))


def _prefixes(model: Any, encoded: Sequence[Encoded], config: GroundingConfig, *, train_count: int) -> Prefixes:
    rank, size = world()
    batches = islice(order(train_count, batch=config.batch, seed=config.seed), config.steps)
    held_out = range(train_count, len(encoded))
    asked = chain((batch[rank::size] for batch in batches), [held_out, held_out])
    limits = {"overhead": overhead_of(model.device), "limit": config.micro_tokens}
    return Prefixes(model, encoded, schedule=asked, budget=config.cache_bytes, **limits)
