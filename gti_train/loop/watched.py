"""Training that is measured on the way, stops when that no longer gets better, and resumes where it was."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from .processes import world
from .shards import gathered, spread, whole
from .state import Saving
from .training import LoopConfig, Objective, StepRecord, train

Measure = Callable[[StepRecord], dict[str, float]]


@dataclass(frozen=True)
class Watch:
    """When to measure, and what to go by: a `name` that ends in "loss" is best least, any other most.

    every: steps between measurements, 0 for none; patience: measurements without a better one before stopping.
    """

    every: int = 0
    name: str = "held_out_loss"
    patience: int | None = None


def train_watched(
    objective: Objective,
    parameters: Sequence[nn.Parameter],
    config: LoopConfig,
    *,
    count: int,
    watch: Watch,
    measure: Measure,
    run: str,
    saving: Saving | None = None,
) -> Iterator[StepRecord]:
    """`train`, with what `measure` finds in the records; with patience, the best values are what remains.

    `run` names the inputs: with `saving`, training resumes from the newest state of the same name.
    """
    begun = saving.newest(run) if saving else None
    best = begun.best if begun else {}

    def exhausted() -> bool:
        return watch.patience is not None and bool(best) and best["stale"] >= watch.patience

    steps = () if exhausted() else train(objective, parameters, config, count=count, state=begun)
    for record, state in steps:
        if watch.every and (record.step % watch.every == 0 or record.step == config.steps):
            record = replace(record, evaluation=measure(record))
            if watch.patience is not None:
                best = better(best, record, parameters, watch=watch.name)
        state.best = best
        last = record.step == config.steps or exhausted()  # saved, so that what follows never runs this one again
        if saving and (last or record.step % saving.every == 0):
            state = gathered(state)
            if world()[0] == 0:
                saving.save(state, run)
        yield record
        if last:
            break
    if best:
        for parameter, kept in zip(parameters, best["rows"], strict=True):
            parameter.data.copy_(spread(kept, parameter))
        objective.updated()


def better(best: dict, record: StepRecord, parameters: Sequence[Tensor], *, watch: str) -> dict:
    """The best measurement so far, with the values that it was made of; a value that is no number is none."""
    value = record.evaluation.get(watch, math.nan)
    if not math.isfinite(value):
        return best
    sign = -1 if watch.endswith("loss") else 1
    if best and sign * value <= sign * best["value"]:
        return {**best, "stale": best["stale"] + 1}
    return {"value": value, "step": record.step, "stale": 0, "rows": [whole(p.data).clone().cpu() for p in parameters]}
