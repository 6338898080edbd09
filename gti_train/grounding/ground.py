"""Grounding as a generator of steps: train the new rows of a model in memory, nothing else."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from itertools import chain
from typing import TYPE_CHECKING

from torch import Tensor

from gti_diag.errors import InputError
from gti_train.loop.state import Saving, run_name
from gti_train.loop.training import StepRecord, check_loss, evaluate
from gti_train.loop.watched import Watch, train_watched
from gti_train.model.new_rows import NewRows
from gti_train.model.sequences import Example, encode, most_tokens

from .config import GroundingConfig
from .objective import answers

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def ground(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    examples: Sequence[Example],
    config: GroundingConfig,
    *,
    ids: Sequence[int],
    held_out: Sequence[Example] = (),
    geometry: Callable[[Tensor], dict[str, float]] | None = None,
    saving: Saving | None = None,
    rows: NewRows | None = None,
) -> Iterator[StepRecord]:
    """Train the rows `ids` of `model` on answers alone, one record per step; `model` always holds the result.

    Only the new rows are parameters (float32 masters), so neither weight decay nor momentum nor clipping can
    see any other weight. The loss of a step is summed over its answer tokens and divided by their number.
    `geometry` measures the input rows at evaluations. With `saving`, the run resumes from its newest state.
    `rows` are the new rows of a caller who wants them in float32 afterwards.

    Raises:
        InputError: no examples, or one of them is empty or too long; a state of another run; a run that diverges.
    """
    if not examples:
        raise InputError("no examples to ground on: give at least one")
    source = held_out if config.watch == "held_out_loss" else geometry
    if config.patience is not None and not (config.every and source):
        raise InputError(
            f"patience watches {config.watch!r}, which is not measured: "
            "set every (--every) and, for held_out_loss, hold examples out (--hold-out)"
        )
    new, longest = frozenset(ids), most_tokens(model, config.max_tokens)
    encoded = [encode(e, tokenizer, new=new, max_tokens=longest) for e in chain(examples, held_out)]
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0  # masked, so any id will do
    model.eval().requires_grad_(False)
    rows = NewRows(model, ids) if rows is None else rows
    run = run_name(asdict(config), encoded, *rows.masters.values())
    objective = answers(model, rows, encoded, config, train_count=len(examples), pad=pad)
    parameters = list(rows.masters.values())
    watch = Watch(config.every, config.watch, config.patience)

    def measure(record: StepRecord) -> dict[str, float]:
        values = geometry(rows.masters["input"].data) if geometry else {}
        if held_out:
            indices = range(len(examples), len(encoded))
            loss = evaluate(objective, indices, batch=config.batch, device=model.device)
            check_loss("held-out loss", loss, step=record.step)
            values["held_out_loss"] = loss
        return values

    yield from train_watched(
        objective, parameters, config.loop, count=len(examples), watch=watch, measure=measure, run=run, saving=saving
    )
