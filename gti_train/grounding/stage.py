"""The grounding stage from a checkpoint to a checkpoint: teach new rows their meaning while all else stays frozen."""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gti_diag.errors import InputError
from gti_train.loop.diary import Diary
from gti_train.loop.processes import join_processes, together, world
from gti_train.loop.state import METRICS, SECOND, Saving, check_folder, clear_folder, newest_step
from gti_train.loop.trackers import Trackers
from gti_train.loop.training import LoopConfig, StepRecord
from gti_train.model.directories import atomic_directory, check_place
from gti_train.model.loading import best_dtype, load_again, load_language_model, parse_dtype
from gti_train.model.matrices import rows_of
from gti_train.model.new_rows import NewRows
from gti_train.model.sequences import Example
from gti_train.model.sidecar import Sidecar, read_references, read_sidecar, save_extended

from .config import GroundingConfig
from .geometry import geometry_of
from .ground import ground
from .unfrozen import unfreeze

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def ground_checkpoint(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    examples: Sequence[Example],
    config: GroundingConfig,
    held_out: Sequence[Example] = (),
    dtype: str | torch.dtype | None = None,
    compute: str = "auto",
    progress: Callable[[StepRecord], None] | None = None,
    save_every: int = 0,
    keep: int = 2,
    then: LoopConfig | None = None,
    track: Sequence[Any] = (),
) -> Sidecar:
    """Ground the new tokens of the extended checkpoint `source`; write the result to the directory `out`.

    Weights are computed with in `compute` (auto: bfloat16 where the machine multiplies it fast, else float32), new
    rows learn in float32, and all is written as `dtype`, or else as `source` stores it: what is not a new row is
    read from there again, so it is the same to the bit. `then` runs the paper's second phase, from those weights.

    With `save_every`, states go to `out`.state and a killed run resumes from the newest when it is started again;
    metrics.jsonl (one line per step) ends up beside the weights; trackers that write files write to `out`.logs. Under
    `accelerate launch` or `torchrun` the processes share every batch; the first one writes.

    Raises:
        InputError: as `read_sidecar`, `load_language_model`, `ground`, `check_place` and `check_folder`; patience on
            RSA without a reference.
    """
    sidecar, references = read_sidecar(source), read_references(source)
    if config.patience is not None and config.watch == "rsa" and not references:
        raise InputError(
            f"patience watches rsa, but {source} has no reference: extend by semantic IDs, or watch another"
        )
    device, out = join_processes(), Path(os.path.abspath(out))
    first, work = world()[0] == 0, out.with_name(out.name + ".state")
    if first:
        check_place(out)
        check_folder(work)
    model, tokenizer, start, stored = _to_compute(source, sidecar.ids, dtype=dtype, compute=compute, device=device)
    rows = NewRows(model, sidecar.ids, start=start)
    trackers = Trackers(track if first else (), folder=out.with_name(out.name + ".logs"), config=asdict(config))
    diary = Diary(work, trackers, progress, step=_reached(work, config))
    diary.follow(
        ground(
            model,
            tokenizer,
            examples,
            config,
            ids=sidecar.ids,
            held_out=held_out,
            geometry=geometry_of(model, tokenizer, sidecar, references) if config.every else None,
            saving=Saving(work, every=save_every, keep=keep) if save_every else None,
            rows=rows,
        )
    )
    attention = model.config._attn_implementation  # the one that was found to agree with the model's own
    del model
    if then is not None:
        model = _grounded(source, rows, dtype=torch.float32).to(device)  # type: ignore[arg-type]
        model.set_attn_implementation(attention)
        saving = Saving(work / SECOND, every=save_every, keep=keep) if save_every else None
        second = unfreeze(model, tokenizer, examples, then, max_tokens=config.max_tokens, saving=saving)
        diary.follow(replace(record, step=record.step + config.steps) for record in second)
        model.to(stored)  # type: ignore[arg-type]
    elif first:
        model = _grounded(source, rows, dtype=stored)
    trackers.close()
    result = replace(sidecar, init="gti", seed=config.seed, parent=str(source), stage="ground", step=diary.step)
    if first:
        with atomic_directory(out) as folder:
            save_extended(model, tokenizer, folder, sidecar=result, references=references)
            shutil.copy(work / METRICS, folder / METRICS)
        clear_folder(work)
    together()
    return result


def _reached(work: Path, config: GroundingConfig) -> int:
    """The step up to which the states in `work` lead."""
    second = newest_step(work / SECOND)
    return config.steps + second if second else newest_step(work)


def _to_compute(
    source: str | os.PathLike[str],
    ids: Sequence[int],
    *,
    dtype: str | torch.dtype | None,
    compute: str,
    device: torch.device,
) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase", dict[str, Tensor], torch.dtype]:
    """The model in the type to compute in, its tokenizer, and rows `ids` and type of the weights as they are kept."""
    model, tokenizer = load_language_model(source, dtype=dtype)
    kept, start = model.dtype, rows_of(model, ids)
    wanted = best_dtype(device) if compute == "auto" else parse_dtype(compute)
    if wanted != kept:  # loaded again, not cast: a cast would take the float32 buffers along (rotary frequencies, …)
        del model
        model = load_again(source, dtype=wanted)
    return model.to(device), tokenizer, start, kept  # type: ignore[arg-type]


def _grounded(source: str | os.PathLike[str], rows: NewRows, *, dtype: torch.dtype) -> "PreTrainedModel":
    """The weights of `source` as they were before they were rounded to compute with, and the new rows."""
    model = load_again(source, dtype=dtype)
    rows.materialise(model)
    return model
