"""The fine-tuning stage from a checkpoint to a checkpoint."""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from gti_diag.errors import InputError
from gti_train.catalogue.records import Catalogue
from gti_train.catalogue.splits import leave_one_out
from gti_train.grounding.geometry import geometry_of
from gti_train.loop.diary import Diary
from gti_train.loop.processes import join_processes, together, total, world
from gti_train.loop.state import METRICS, Saving, check_folder, clear_folder, newest_step
from gti_train.loop.trackers import Trackers
from gti_train.loop.training import StepRecord
from gti_train.model.directories import atomic_directory, check_place
from gti_train.model.loading import best_dtype, load_again, load_language_model, parse_dtype, products_in
from gti_train.model.matrices import rows_of
from gti_train.model.sequences import Example, most_tokens, prompt_ids
from gti_train.model.sidecar import Sidecar, read_references, read_sidecar, save_extended
from gti_train.semantic_ids.ids import SemanticIds

from .choices import CodeChoices
from .config import FineTuningConfig
from .decoding import decode
from .fine_tuning import fine_tune
from .learners import Adapters, EveryWeight, Learner
from .objective import encode_families
from .prompts import LONGEST, fine_tuning_examples, validation_examples
from .sharded import ShardedWeights
from .trie import Trie

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Lessons:
    """What to learn, what to validate on, and what each task weighs (1 where it is not named)."""

    families: Sequence[Sequence[Example]]
    validation: Sequence[Sequence[Example]] = ()
    weights: Mapping[str, float] | None = None


def lessons_from(
    catalogue: Catalogue,
    sids: SemanticIds,
    *,
    weights: Mapping[str, float],
    seed: int = 0,
    longest: int = LONGEST,
    words: int = 40,
    validate: int = 0,
) -> Lessons:
    """The tasks that `weights` names, from the training events of a leave-one-out split; `validate` users to validate on.

    Raises:
        InputError: as `fine_tuning_examples`.
    """
    split = leave_one_out(catalogue)
    training = replace(catalogue, histories=split.train)
    families = fine_tuning_examples(training, sids, tasks=list(weights), seed=seed, longest=longest, words=words)
    held_out = validation_examples(catalogue, split, sids, longest=longest) if validate else []
    return Lessons(families, held_out[:validate], weights)


def fine_tune_checkpoint(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    lessons: Lessons,
    sids: SemanticIds,
    config: FineTuningConfig,
    dtype: str | torch.dtype | None = None,
    compute: str = "auto",
    progress: Callable[[StepRecord], None] | None = None,
    save_every: int = 0,
    keep: int = 2,
    track: Sequence[Any] = (),
    shard: bool = False,
) -> Sidecar:
    """Fine-tune the checkpoint `source`, which knows the tokens of `sids`; write the result to the directory `out`.

    What learns is float32, products are in `compute` (auto: bfloat16 where the machine multiplies it fast), and all is
    written as `dtype`, or else as `source` stores it. States, metrics.jsonl, trackers and processes are as in grounding;
    with `shard`, weights, gradients and moments are spread over the processes.

    Raises:
        InputError: as `read_sidecar`, `load_language_model`, `encode_families`, `fine_tune`, `check_place`, `check_folder`.
    """
    sidecar, references = read_sidecar(source), read_references(source)
    device, out = join_processes(), Path(os.path.abspath(out))
    first, work = world()[0] == 0, out.with_name(out.name + ".state")
    if first:
        check_place(out)
        check_folder(work)
    if shard and config.rank:
        raise InputError("adapters are small and are not sharded: leave out --shard, or train every weight")
    working = best_dtype(device) if compute == "auto" else parse_dtype(compute)
    learner, tokenizer, stored = _learner(
        source, sidecar, config, dtype=dtype, compute=working, device=device, shard=shard
    )
    asked = _asked(lessons, sids, learner, tokenizer, config, compute=working)
    trackers = Trackers(track if first else (), folder=out.with_name(out.name + ".logs"), config=asdict(config))
    diary = Diary(work, trackers, progress, step=newest_step(work))
    geometry = geometry_of(learner.model, tokenizer, sidecar, references)
    saving = Saving(work, every=save_every, keep=keep) if save_every else None
    diary.follow(fine_tune(learner, config=config, compute=working, geometry=geometry, saving=saving, **asked))
    trackers.close()
    result = replace(sidecar, seed=config.seed, parent=str(source), stage="sft", step=diary.step)
    learner.gather()
    if first:
        with atomic_directory(out) as folder:
            save_extended(learner.finished(source, stored), tokenizer, folder, sidecar=result, references=references)
            shutil.copy(work / METRICS, folder / METRICS)
        clear_folder(work)
    together()
    return result


def _asked(
    lessons: Lessons,
    sids: SemanticIds,
    learner: Learner,
    tokenizer: "PreTrainedTokenizerBase",
    config: FineTuningConfig,
    *,
    compute: torch.dtype,
) -> dict[str, Any]:
    """What `fine_tune` learns from and is measured on, in tokens."""
    trie = trie_of(sids, tokenizer, learner.model.device)
    choices = CodeChoices(trie) if config.loss == "codes" else None
    places = {item: place for place, item in enumerate(sids.item_ids)}
    told = {"max_tokens": most_tokens(learner.model, config.max_tokens), "weights": lessons.weights or {}}
    families, validation = (
        encode_families(part, tokenizer, choices=choices, places=places, **told)  # type: ignore[arg-type]
        for part in (lessons.families, lessons.validation)
    )
    ranking = None
    if (k := config.ranked) and lessons.validation:
        cases = [(prompt_ids(e.prompt, tokenizer), places[e.item_id]) for family in lessons.validation for e in family]
        ranking = _ranking(learner, trie, cases, k=min(k, len(places)), compute=compute)
    return {"families": families, "validation": validation, "choices": choices, "ranking": ranking}


def trie_of(sids: SemanticIds, tokenizer: "PreTrainedTokenizerBase", device: torch.device) -> Trie:
    """The tree of all items by their codes, in the tokens of `tokenizer`.

    Raises:
        InputError: a code is no token.
    """
    vocabulary = tokenizer.get_vocab()
    if missing := [token for token in sids.tokens if token not in vocabulary]:
        raise InputError(
            f"{missing[0]!r} is no token of this checkpoint ({len(missing)} are not): "
            "extend a model with these semantic IDs, or name the ones that it was extended with"
        )
    ids = torch.tensor([vocabulary[token] for token in sids.tokens], device=device)
    levels = torch.tensor(sids.levels, device=device)
    return Trie(sids.codes.to(device), [ids[levels == level] for level in levels.unique()])


def _learner(
    source: str | os.PathLike[str],
    sidecar: Sidecar,
    config: FineTuningConfig,
    *,
    dtype: str | torch.dtype | None,
    compute: torch.dtype,
    device: torch.device,
    shard: bool,
) -> tuple[Learner, "PreTrainedTokenizerBase", torch.dtype]:
    """What learns, the tokenizer, and the type in which weights are kept: float32 to train them all, `compute` to adapt."""
    model, tokenizer = load_language_model(source, dtype=dtype)
    kept, start = model.dtype, rows_of(model, sidecar.ids)
    wanted = compute if config.rank else torch.float32
    if wanted != kept:  # loaded again, not cast: a cast would take the float32 buffers along (rotary frequencies, …)
        del model
        model = load_again(source, dtype=wanted)
    model = model.to(device)  # type: ignore[arg-type]
    if not config.rank:
        return (ShardedWeights if shard else EveryWeight)(model, sidecar.ids), tokenizer, kept
    adapted = {"start": start, "rank": config.rank, "alpha": config.alpha, "seed": config.seed}
    return Adapters(model, sidecar.ids, **adapted), tokenizer, kept  # type: ignore[arg-type]


def _ranking(
    learner: Learner,
    trie: Trie,
    cases: Sequence[tuple[list[int], int]],
    *,
    k: int,
    compute: torch.dtype,
) -> Callable[[], dict[str, float]]:
    """recall@k of `cases`, prompts and the item that was next; the processes share them."""
    rank, size = world()
    mine, device = cases[rank::size], learner.model.device

    def measure() -> dict[str, float]:
        hits = torch.zeros((), device=device)
        if mine:
            with products_in(compute, device):
                ranked, _ = decode(learner.model, trie, [prompt for prompt, _ in mine], k)
            wanted = torch.tensor([item for _, item in mine], device=device)
            hits += (ranked == wanted[:, None]).any(1).sum()
        return {f"recall@{k}": float(total(hits)) / len(cases)}

    return measure
