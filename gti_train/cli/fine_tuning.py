"""gti-train sft: learn what follows the histories of users."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from gti_diag.cli.bundles import unfolded
from gti_diag.cli.shell import say
from gti_diag.errors import InputError

from .app import app
from .options import Catalogue, Every, Histories, HistoryLength, Out, Sids, Training, Words
from .progress import steps_bar


@dataclass(frozen=True)
class FineTuning(Training):
    """How fine-tuning trains."""

    steps: Annotated[int, typer.Option(min=1, help="Training steps.")] = 300
    batch: Annotated[
        int, typer.Option("--batch-size", min=1, help="Users (each with every next item), or questions, in a step.")
    ] = 16
    learning_rate: Annotated[float, typer.Option("--lr", help="Learning rate of all that trains.")] = 1e-4
    schedule: Annotated[
        str, typer.Option(metavar="constant|linear|cosine", help="Learning rate after the warm-up.")
    ] = "linear"


@dataclass(frozen=True)
class Method:
    """What trains, and by which loss."""

    loss: Annotated[
        str,
        typer.Option(
            metavar="vocabulary|codes",
            help="Softmax of a code over all tokens, or over the codes that decoding can choose from.",
        ),
    ] = "vocabulary"
    lora: Annotated[
        int, typer.Option(min=0, metavar="RANK", help="Train adapters of this rank and the new rows; 0: every weight.")
    ] = 0
    alpha: Annotated[int, typer.Option(min=1, help="Scale of the adapters, divided by their rank.")] = 32
    checkpointing: Annotated[
        bool, typer.Option("--checkpointing", help="Less memory, a third more work: compute layers again.")
    ] = False
    shard: Annotated[
        bool, typer.Option("--shard", help="Under torchrun: spread weights, gradients and moments over the processes.")
    ] = False
    micro_tokens: Annotated[
        int, typer.Option(min=64, help="Most tokens in one pass, shared beginnings counted once.")
    ] = 2048


@dataclass(frozen=True)
class Lesson:
    """What is learned from."""

    tasks: Annotated[
        str,
        typer.Option(
            metavar="next|all|LIST",
            help="next (history → next item), text-to-code, code-to-text, words-to-code, codes-to-title; all of them, "
            "or a comma list with weights: next=1,text-to-code=0.5.",
        ),
    ] = "next"
    history: HistoryLength = 20
    words: Words = 40


@dataclass(frozen=True)
class Validated:
    """What is measured on the way, and when that is reason to stop."""

    every: Every = 50
    validate: Annotated[
        int, typer.Option(min=0, help="Users whose last but one item is asked for at measurements; 0: none.")
    ] = 0
    watch: Annotated[
        str, typer.Option(metavar="validation_loss|recall@K", help="What --patience goes by; recall@K also decodes.")
    ] = "validation_loss"
    patience: Annotated[
        int | None, typer.Option(min=1, help="Stop after so many measurements without a better one; keep the best.")
    ] = None


@app.command(
    epilog="Example: gti-train sft ckpt/gti --items shop/items.jsonl --histories shop/histories.jsonl --sids shop/sids "
    "--out ckpt/sft"
)
@unfolded
def sft(
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="A checkpoint of `extend`, `ground` or `sft`.")],
    items: Catalogue,
    histories: Histories,
    sids: Sids,
    out: Out,
    training: FineTuning,
    method: Method,
    lesson: Lesson,
    validated: Validated,
) -> None:
    """Fine-tune a model on what users met: the codes of a history are read, those of the next item answered.

    The last event of each user is kept for the test and the one before it for validation: neither is trained on.
    Comes after `extend` (and, better, `ground`); `gti-train eval` measures the result. Beginnings that examples share
    are computed once. With --save-every, the same command again goes on where a killed run was. Several processes share
    every batch: torchrun --nproc-per-node 4 -m gti_train.cli sft CKPT … ; with --shard (FSDP2) also the model.
    """
    from gti_train.catalogue.reading import read_catalogue
    from gti_train.recommend.config import FineTuningConfig
    from gti_train.recommend.stage import fine_tune_checkpoint, lessons_from
    from gti_train.semantic_ids.files import load_sids

    made = load_sids(sids)
    config = FineTuningConfig(
        steps=training.steps, learning_rate=training.learning_rate, **training.loop(), loss=method.loss,
        rank=method.lora, alpha=method.alpha, checkpointing=method.checkpointing, micro_tokens=method.micro_tokens,
        every=validated.every, watch=validated.watch, patience=validated.patience,
    )  # fmt: skip
    lessons = lessons_from(
        read_catalogue(items, histories), made, weights=task_weights(lesson.tasks), seed=training.seed,
        longest=lesson.history, words=lesson.words, validate=validated.validate,
    )  # fmt: skip
    with steps_bar(training.quiet, training.steps, what="fine-tuning") as progress:
        done = fine_tune_checkpoint(
            checkpoint, out, lessons=lessons, sids=made, config=config, dtype=training.dtype, progress=progress,
            save_every=training.save_every, keep=training.keep, track=training.trackers(), shard=method.shard,
        )  # fmt: skip
    examples = sum(map(len, lessons.families))
    say(f"fine-tuned on {examples} examples in {len(lessons.families)} families, {done.step} steps: {out}")


def task_weights(text: str) -> dict[str, float]:
    """Tasks and what an answer token of each weighs.

    Raises:
        InputError: a weight that is no positive number.
    """
    from gti_train.recommend.prompts import TASKS

    found: dict[str, float] = {}
    for part in TASKS if text == "all" else (part.strip() for part in text.split(",")):
        name, given, weight = part.partition("=")
        try:
            found[name] = float(weight) if given else 1.0
        except ValueError:
            found[name] = 0.0
        if not 0 < found[name] < float("inf"):
            raise InputError(f"--tasks {part!r}: a weight is a number above 0, like {name}=0.5")
    return found
