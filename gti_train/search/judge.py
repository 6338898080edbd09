"""A judge of relevance: a language model that answers a policy question, trained on soft grades, saved with its wording."""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gti_diag.errors import InputError, bad
from gti_train.loop.diary import Diary
from gti_train.loop.processes import join_processes
from gti_train.loop.state import METRICS, Saving, check_folder, clear_folder, newest_step, run_name
from gti_train.loop.trackers import Trackers
from gti_train.loop.training import LoopConfig, StepRecord
from gti_train.loop.watched import Watch, train_watched
from gti_train.model.directories import atomic_directory, check_place
from gti_train.model.loading import (
    best_dtype,
    load_language_model,
    parse_dtype,
    running_dtype,
    save_language_model,
    stored_dtype,
)  # fmt: skip
from gti_train.model.sequences import most_tokens
from gti_train.model.tree_passes import find_way

from .collection import Collection
from .pairs import Pair, families
from .prompts import DOCUMENT_FIRST, Prompter, Wording
from .scoring import score
from .soft_answers import SoftAnswers, SoftExample

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WORDING = "judge.json"  # beside config.json: how this checkpoint is asked
Progress = Callable[[StepRecord, int], None]


@dataclass(frozen=True)
class JudgeConfig:
    """What training a judge depends on, besides model and pairs.

    family: the most pairs that share a document (or query) and are run as one tree; batch: families in a step;
    epochs: how often each pair is met, unless `steps` says how many to take; micro_tokens: the most nodes in one pass, changes no result.
    """

    epochs: float = 1.0
    steps: int | None = None
    batch: int = 8
    family: int = 32
    learning_rate: float = 1e-4
    warmup: int = 10
    schedule: str = "linear"
    seed: int = 0
    micro_tokens: int = 2048

    def loop(self, count: int) -> LoopConfig:
        """The loop over `count` families."""
        steps = self.steps or max(1, round(self.epochs * count / self.batch))
        return LoopConfig(
            steps, batch=self.batch, learning_rate=self.learning_rate, warmup=self.warmup, schedule=self.schedule,
            seed=self.seed,
        )  # fmt: skip


def train_judge(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    wording: Wording,
    collection: Collection,
    labels: Sequence[tuple[Pair, float]],
    config: JudgeConfig,
    dtype: str | torch.dtype | None = None,
    compute: str = "auto",
    save_every: int = 0,
    progress: Progress = lambda record, steps: None,
) -> None:
    """Teach the checkpoint `source` the probabilities in `labels`, all its weights, and write it with its wording to `out`.

    Weights are written in `dtype`, or else as `source` stores them. With `save_every`, a run that was killed goes on where it was.

    Raises:
        InputError: as `load_language_model`, `Prompter`, `check_place`; no labels; prompts longer than the model's window;
            a state of another run.
    """
    device, out = join_processes(), Path(os.path.abspath(out))
    check_place(out)
    if not labels:
        raise InputError("no pairs to learn from: judge some documents of the training queries")
    model, tokenizer = load_language_model(source, dtype=torch.float32)
    if (window := most_tokens(model, wording.max_tokens)) < wording.max_tokens:
        raise InputError(
            f"prompts of up to {wording.max_tokens} tokens, and {source} reads {window}: lower --max-tokens"
        )
    model = model.to(device)  # type: ignore[arg-type]
    prompter = Prompter(tokenizer, wording)
    targets = torch.tensor([[label] for _, label in labels], dtype=torch.float64)
    pairs = [pair for pair, _ in labels]
    examples = soft_examples(prompter, collection, pairs, targets, torch.ones_like(targets), config=config)
    teach(
        model, prompter, examples, out, answers=torch.tensor([prompter.rows]), config=config,
        dtype=stored_dtype(source) if dtype is None else parse_dtype(dtype),
        compute=best_dtype(device) if compute == "auto" else parse_dtype(compute), save_every=save_every, progress=progress,
    )  # fmt: skip


def teach(
    model: "PreTrainedModel",
    prompter: Prompter,
    examples: Sequence[Sequence[SoftExample]],
    out: Path,
    *,
    answers: Int[Tensor, "tasks two"],
    config: JudgeConfig,
    dtype: str | torch.dtype = torch.bfloat16,
    compute: torch.dtype | None = None,
    save_every: int = 0,
    progress: Progress = lambda record, steps: None,
) -> None:
    """Train a float32 model by `taught` (products in `compute`, or what is fast here) and write it to `out` as `dtype`.

    States lie beside `out` while it trains, its metrics in it afterwards.

    Raises:
        InputError: as `taught`, `check_folder`, `save_judge`.
    """
    work = out.with_name(out.name + ".state")
    check_folder(work)
    loop = config.loop(len(examples))
    records = taught(
        model, examples, loop, answers=answers, micro_tokens=config.micro_tokens, compute=compute or best_dtype(model.device),
        saving=Saving(work, every=save_every, keep=1) if save_every else None,
    )  # fmt: skip
    diary = Diary(work, Trackers((), folder=work, config={}), lambda r: progress(r, loop.steps), step=newest_step(work))
    diary.follow(records)
    save_judge(model, prompter, out, dtype=dtype, metrics=work / METRICS)
    clear_folder(work)


def taught(
    model: "PreTrainedModel",
    examples: Sequence[Sequence[SoftExample]],
    loop: LoopConfig,
    *,
    answers: Int[Tensor, "tasks two"],
    micro_tokens: int,
    compute: torch.dtype,
    saving: Saving | None = None,
) -> Iterator[StepRecord]:
    """Train every weight of a float32 model on families of soft examples, one record a step; the model holds the result.

    Raises:
        InputError: as `SoftAnswers`; a state of another run; a loss that is not finite.
    """
    model.requires_grad_(True)
    way = find_way(model, [example.ids for family in examples for example in family])
    told = {"answers": answers, "way": way, "micro_tokens": micro_tokens, "compute": compute}
    objective = SoftAnswers(model, examples, **told)  # type: ignore[arg-type]
    parameters = list(model.parameters())
    run = run_name({**asdict(loop), "compute": str(compute)}, chain.from_iterable(examples), *parameters[:2])
    yield from train_watched(
        objective, parameters, loop, count=len(examples), watch=Watch(), measure=lambda record: {}, run=run,
        saving=saving,
    )  # fmt: skip


def save_judge(
    model: "PreTrainedModel",
    prompter: Prompter,
    out: str | os.PathLike[str],
    *,
    dtype: str | torch.dtype,
    metrics: Path | None = None,
) -> None:
    """Write an ordinary checkpoint in `dtype` ("auto": as the model is), how it is asked, and its training's `metrics`.

    Raises:
        InputError: as `atomic_directory`.
    """
    with atomic_directory(out) as folder:
        model.requires_grad_(False)
        kept = model if dtype == "auto" else model.to(dtype)  # type: ignore[arg-type]
        save_language_model(kept, prompter.tokenizer, folder)
        asked = {"schema": 1, **asdict(prompter.wording)}
        (folder / WORDING).write_text(json.dumps(asked, indent=1) + "\n", encoding="utf-8")
        if metrics is not None:
            shutil.copy(metrics, folder / METRICS)


def soft_examples(
    prompter: Prompter,
    collection: Collection,
    pairs: Sequence[Pair],
    targets: Float[Tensor, "pairs tasks"],
    weights: Float[Tensor, "pairs tasks"],
    *,
    config: JudgeConfig,
) -> list[list[SoftExample]]:
    """Families of prompts with the probabilities that each teacher gives; a weight of 0 masks what none said."""
    prompts = prompter.asking(collection, pairs)
    rows = zip(prompts.ids, targets.tolist(), weights.tolist(), strict=True)
    made = [SoftExample(tuple(ids), tuple(target), tuple(weight)) for ids, target, weight in rows]
    by_document = prompter.wording.order == DOCUMENT_FIRST
    grouped = families(pairs, by_document=by_document, most=config.family, seed=config.seed)
    return [[made[i] for i in members] for members in grouped]


def load_judge(
    folder: str | os.PathLike[str], *, dtype: str | torch.dtype | None = None
) -> tuple["PreTrainedModel", Prompter]:
    """A judge as `train_judge` wrote it, on this process's device, in `dtype`, or else as stored or in float32 (see `running_dtype`).

    Raises:
        InputError: as `load_language_model`; no wording beside the weights.
    """
    wording, device = wording_of(folder), join_processes()
    model, tokenizer = load_language_model(folder, dtype=dtype or running_dtype(folder, device))
    return model.to(device), Prompter(tokenizer, wording)  # type: ignore[arg-type]


def wording_of(folder: str | os.PathLike[str]) -> Wording:
    """How a judge is asked, from beside its weights.

    Raises:
        InputError: it is not there, or malformed.
    """
    from gti_diag.foreign.retrieval_forms import WordingForm
    from gti_diag.foreign.schemas import read_formed

    path = Path(folder) / WORDING
    if not path.is_file():
        raise bad(folder, f"has no {WORDING}", "name a checkpoint of `gti-train search judge`")
    return Wording(**read_formed(WordingForm, path).model_dump(exclude={"schema_"}))


def judge_pairs(
    model: "PreTrainedModel",
    prompter: Prompter,
    collection: Collection,
    pairs: Sequence[Pair],
    *,
    progress: Callable[[float], None] = lambda share: None,
) -> Float[Tensor, " pairs"]:
    """Log-odds of yes for pairs of a query and a document, by their places; what pairs share is run once."""
    by_document = prompter.wording.order == DOCUMENT_FIRST
    order = sorted(range(len(pairs)), key=lambda i: (pairs[i][by_document], i))
    found = torch.zeros(len(pairs))
    size = 4096
    for start in range(0, len(order), size):
        part = order[start : start + size]
        asked = prompter.prompts(
            [(collection.queries[q].text, collection.documents[d].text) for q, d in (pairs[i] for i in part)]
        )
        found[torch.tensor(part)] = score(model, asked.ids, prompter.rows, shared=asked.shared).cpu()
        progress(min(1.0, (start + size) / len(order)))
    return found
