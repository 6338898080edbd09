"""Fine-tuning as a generator of steps: a model in memory learns what follows the histories of users."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from itertools import chain

import torch
from torch import Tensor

from gti_diag.errors import InputError
from gti_train.loop.state import Saving, run_name
from gti_train.loop.training import StepRecord, check_loss, evaluate
from gti_train.loop.watched import train_watched
from gti_train.model.tree_passes import find_way

from .choices import CodeChoices
from .config import LOSS, FineTuningConfig
from .learners import Learner, checkpoint_layers
from .objective import Family, TreeAnswers

Geometry = Callable[[Tensor], dict[str, float]]


def fine_tune(
    learner: Learner,
    families: Sequence[Family],
    config: FineTuningConfig,
    *,
    compute: torch.dtype,
    validation: Sequence[Family] = (),
    choices: CodeChoices | None = None,
    geometry: Geometry | None = None,
    ranking: Callable[[], dict[str, float]] | None = None,
    saving: Saving | None = None,
) -> Iterator[StepRecord]:
    """Train what `learner` learns on the answers of `families`, one record per step; its model always holds the result.

    At evaluations `geometry` measures the new rows, `validation` has its loss taken, and `ranking` says how well held
    out items are ranked. With `saving`, the run resumes from its newest state.

    Raises:
        InputError: no families; something to watch that is not measured; a state of another run; a run that diverges.
    """
    if not families:
        raise InputError("no examples to fine-tune on: give at least one")
    source = validation if config.watch == LOSS else ranking
    if config.patience is not None and not (config.every and source):
        raise InputError(
            f"patience watches {config.watch!r}, which is not measured: set every (--every) and validate on some users"
        )
    everything = [*families, *validation]
    way = find_way(learner.model, [s.ids for family in everything for s in family.sequences])
    if config.checkpointing:
        checkpoint_layers(learner.model)
    described = chain.from_iterable((f.sequences, f.weight, f.items) for f in everything)
    run = run_name({**asdict(config), "compute": str(compute)}, described, *learner.parameters[:2])
    learner.begin()
    told = {"micro_tokens": config.micro_tokens, "compute": compute, "choices": choices}
    objective = TreeAnswers(learner, everything, way=way, **told)  # type: ignore[arg-type]

    def measure(record: StepRecord) -> dict[str, float]:
        with learner.at_hand():
            values = geometry(learner.new_rows()) if geometry else {}
            if validation:
                held_out = range(len(families), len(everything))
                loss = evaluate(objective, held_out, batch=config.batch, device=learner.model.device)
                check_loss("validation loss", loss, step=record.step)
                values["validation_loss"] = loss
            return values | (ranking() if ranking else {})

    yield from train_watched(
        objective, learner.parameters, config.loop, count=len(families), watch=config.watched, measure=measure,
        run=run, saving=saving,
    )  # fmt: skip
