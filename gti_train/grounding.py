"""The grounding stage: teach new rows their meaning from text while everything else stays frozen."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from gti_diag.errors import InputError
from gti_train.batches import collate, encode, order
from gti_train.models import atomic_directory, load_language_model
from gti_train.new_rows import NewRows
from gti_train.vocabulary import Sidecar, read_codebooks, read_sidecar, save_extended

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from gti_train.prompts import Example


@dataclass(frozen=True)
class GroundingConfig:
    """Everything that a run depends on, besides model and examples."""

    steps: int = 150
    batch: int = 16
    learning_rate: float = 1e-3
    warmup: int = 10
    clip: float = 1.0
    max_tokens: int = 512
    seed: int = 0


@dataclass(frozen=True)
class StepRecord:
    """One finished step: mean loss per supervised token, gradient norm before clipping, and its cost."""

    step: int
    loss: float
    grad_norm: float
    learning_rate: float
    tokens: int
    supervised: int
    seconds: float


def ground(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    examples: Sequence["Example"],
    config: GroundingConfig,
    *,
    ids: Sequence[int],
) -> Iterator[StepRecord]:
    """Train the rows `ids` of `model` on answers alone, one record per step; `model` always holds the result.

    Only the new rows are parameters (float32 masters), so neither weight decay nor momentum nor clipping can
    see any other weight. The loss of a step is summed over its answer tokens and divided by their number.

    Raises:
        InputError: no examples, or one of them is empty or too long.
    """
    if not examples:
        raise InputError("no examples to ground on: give at least one")
    encoded = [encode(example, tokenizer, max_tokens=config.max_tokens) for example in examples]
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0  # masked, so any id will do
    model.eval().requires_grad_(False)
    if model.device.type == "cpu":  # the fused attention's backward pass is slow there: 1.6 x a whole step
        model.set_attn_implementation("eager")
    rows = NewRows(model, list(ids))
    optimizer = torch.optim.AdamW(rows.parameters(), lr=config.learning_rate, weight_decay=0.0)
    batches = order(len(encoded), batch=config.batch, seed=config.seed)
    for step in range(1, config.steps + 1):
        began = time.perf_counter()
        batch = collate([encoded[i] for i in next(batches)], pad=pad)
        hidden = model.base_model(
            inputs_embeds=rows.embed(model, batch.ids.to(model.device)),
            attention_mask=batch.mask.to(model.device),
            use_cache=False,
        ).last_hidden_state[batch.supervised]
        loss = rows.loss(model, hidden, batch.targets.to(model.device)) / len(batch.targets)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(rows.parameters(), config.clip)
        rate = config.learning_rate * min(1.0, step / max(1, config.warmup))
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        optimizer.zero_grad()
        rows.materialise(model)
        seconds = time.perf_counter() - began
        yield StepRecord(
            step, float(loss.detach()), float(norm), rate, int(batch.mask.sum()), len(batch.targets), seconds
        )


def ground_checkpoint(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    examples: Sequence["Example"],
    config: GroundingConfig,
    dtype: str | torch.dtype = torch.bfloat16,
    progress: Callable[[StepRecord], None] | None = None,
) -> Sidecar:
    """Ground the new tokens of the extended checkpoint `source`; write the result to the directory `out`.

    Raises:
        InputError: as `read_sidecar`, `load_language_model`, `ground` and `atomic_directory`.
    """
    sidecar = read_sidecar(source)
    with atomic_directory(out) as folder:
        model, tokenizer = load_language_model(source, dtype=dtype)
        for record in ground(model, tokenizer, examples, config, ids=sidecar.ids):
            if progress is not None:
                progress(record)
        result = replace(sidecar, init="gti", seed=config.seed, parent=str(source), stage="ground", step=config.steps)
        save_extended(model, tokenizer, folder, sidecar=result, codebooks=read_codebooks(source))
    return result
