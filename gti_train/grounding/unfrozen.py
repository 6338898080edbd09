"""The paper's second phase, an option: the same answers, with every parameter free.

Weights and optimizer are float32 (bfloat16 weights would not notice steps of 2e-5); products run in bfloat16 by
autocast where the machine is fast at it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor

from gti_train.loop.processes import world
from gti_train.loop.state import Saving, run_name
from gti_train.loop.training import LoopConfig, Part, StepRecord, train
from gti_train.model.head import head_of, logits_of
from gti_train.model.loading import best_dtype, products_in
from gti_train.model.micro_batches import buckets
from gti_train.model.sequences import Encoded, Example, collate, encode, most_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


MICRO_TOKENS = 2048  # with padding, in one pass; unlike in grounding, every logit of a pass is alive at once


class EveryParameter:
    """The objective: −log likelihood of answers, with gradients to whatever requires them."""

    side_by_side = False  # two graphs, and two gradients of every parameter, would be alive at once

    def __init__(self, model: "PreTrainedModel", encoded: Sequence[Encoded], *, pad: int):
        self.model, self.encoded, self.pad = model, encoded, pad

    def supervised(self, indices: Sequence[int]) -> int:
        """The number of answer tokens."""
        return sum(self.encoded[i].supervised for i in indices)

    def updated(self) -> None:
        """Nothing to do: the model is the parameters."""

    def parts(self, indices: Sequence[int]) -> list[Part]:
        """Micro-batches of similar length."""
        groups = buckets([len(self.encoded[i].ids) for i in indices], overhead=64, limit=MICRO_TOKENS)
        return [partial(self._loss, [indices[i] for i in group]) for group in groups]

    def _loss(self, indices: Sequence[int]) -> Tensor:
        device = self.model.device
        batch = collate([self.encoded[i] for i in indices], pad=self.pad, whole=True).to(device)
        with products_in(best_dtype(device), device):
            hidden = self.model.base_model(
                input_ids=batch.ids, attention_mask=batch.mask, use_cache=False
            ).last_hidden_state
            logits = logits_of(hidden[batch.supervised], head_of(self.model))
        return F.cross_entropy(logits.float(), batch.targets, reduction="sum")


def unfreeze(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    examples: Sequence[Example],
    config: LoopConfig,
    *,
    max_tokens: int = 512,
    saving: Saving | None = None,
) -> Iterator[StepRecord]:
    """Train all of `model` (made float32) on the answers of `examples`, one record per step.

    Raises:
        InputError: as `encode`; a state of another run; a run that diverges.
    """
    longest = most_tokens(model, max_tokens)
    encoded = [encode(e, tokenizer, new=(), max_tokens=longest) for e in examples]
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    model.eval().float().requires_grad_(True)  # evaluation mode: no dropout, so that a run can be repeated
    objective, parameters = EveryParameter(model, encoded, pad=pad), list(model.parameters())
    run = run_name(asdict(config), encoded, parameters[0])
    begun = saving.newest(run) if saving else None
    for record, state in train(objective, parameters, config, count=len(encoded), state=begun):
        if saving and record.step % saving.every == 0 and world()[0] == 0:
            saving.save(state, run)
        yield record
    model.requires_grad_(False)
