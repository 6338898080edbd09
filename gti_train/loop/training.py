"""The training loop: a generator of step records. What to minimise is the caller's, and so is what to do with them.

Runs unchanged in one process or in several (`accelerate launch`, `torchrun`): each takes its share of every batch,
and gradients are summed, so the step is the same as one process with the whole batch would make.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from gti_diag.errors import InputError
from gti_diag.measures.tiles import one_thread_each, workers

from .optim import adamw, schedule
from .order import order
from .processes import total, world
from .shards import is_shard, scattered, spread, whole
from .state import State

DIVERGED = 1e3  # nats per answer token; a uniform guess among a million tokens costs 14


@dataclass(frozen=True)
class LoopConfig:
    """What the loop depends on. `batch` is the global batch, over all processes and micro-batches.

    Raises:
        InputError: a negative or infinite learning rate, an unknown schedule.
    """

    steps: int
    batch: int = 16
    learning_rate: float = 1e-3
    warmup: int = 10
    schedule: str = "constant"
    clip: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.learning_rate) and self.learning_rate >= 0):
            raise InputError(f"learning rate is {self.learning_rate}: give a finite number, 0 or more")
        schedule(self.warmup + 1, steps=self.steps, warmup=self.warmup, shape=self.schedule)  # refuses an unknown shape


@dataclass(frozen=True)
class StepRecord:
    """One finished step: mean loss per answer token, gradient norm before clipping, cost, and evaluations."""

    step: int
    loss: float
    grad_norm: float
    learning_rate: float
    supervised: float
    seconds: float
    evaluation: dict[str, float] = field(default_factory=dict)

    def flat(self) -> dict[str, float]:
        """One level of names and numbers, as a tracker or a line of JSON takes them."""
        values = asdict(self)
        return values | values.pop("evaluation")


Part = Callable[[], Tensor]


class Objective(Protocol):
    """Sums of losses over parts of a batch of indices."""

    def supervised(self, indices: Sequence[int]) -> float:
        """The number of answer tokens, or what they weigh together."""

    @property
    def side_by_side(self) -> bool:
        """Whether two parts may run at once, in threads of one process."""

    def parts(self, indices: Sequence[int]) -> list[Part]:
        """For each micro-batch a function that gives its summed loss with its graph; together they cover `indices`."""

    def updated(self) -> None:
        """The parameters have changed."""


def train(
    objective: Objective,
    parameters: Sequence[nn.Parameter],
    config: LoopConfig,
    *,
    count: int,
    state: State | None = None,
) -> Iterator[tuple[StepRecord, State]]:
    """Minimise the loss per answer token over `count` examples; yields each step's record and state.

    The loss of a step is summed over all its answer tokens and divided by their number, however the batch is
    cut into micro-batches and processes. The states share memory with the run: save or copy them at once.

    Raises:
        InputError: a loss or a gradient is not finite, or a loss is over `DIVERGED`; of the last step also the loss
            of its batch after it, which no later step would see.
    """
    optimizer = adamw(parameters, learning_rate=config.learning_rate)
    if state is not None:
        for parameter, saved in zip(parameters, state.parameters, strict=True):
            parameter.data.copy_(spread(saved, parameter))
        optimizer.load_state_dict(scattered(state.optimizer, parameters))
        objective.updated()
    done = 0 if state is None else state.step
    rank, size = world()
    batches = order(count, batch=config.batch, seed=config.seed, start=done)
    for step in range(done + 1, config.steps + 1):
        began = time.perf_counter()
        batch = next(batches)
        supervised = objective.supervised(batch)
        loss = torch.zeros((), device=parameters[0].device)
        for value in differentiated(objective, batch[rank::size], parameters, supervised):
            loss += value
        for parameter in parameters:
            if parameter.grad is None:  # this process had no share of a short last batch
                parameter.grad = torch.zeros_like(parameter)
            if not is_shard(parameter):  # whose gradient is a sum already
                total(parameter.grad)
        norm = whole(nn.utils.clip_grad_norm_(parameters, config.clip))
        mean = float(total(loss))
        check_loss("loss", mean, step=step)
        check_loss("gradient", float(norm), step=step, most=math.inf)
        rate = config.learning_rate * schedule(step, steps=config.steps, warmup=config.warmup, shape=config.schedule)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        optimizer.zero_grad()
        objective.updated()
        record = StepRecord(step, mean, float(norm), rate, supervised, time.perf_counter() - began)
        if step == config.steps:
            after = evaluate(objective, batch, batch=config.batch, device=parameters[0].device)
            check_loss("loss after the update", after, step=step)
        yield record, State(step, [p.data for p in parameters], optimizer.state_dict())


def check_loss(name: str, value: float, *, step: int, most: float = DIVERGED) -> None:
    """Stop a run that has left the numbers, or will not come back.

    Raises:
        InputError: `value` is not a number, or more than `most`.
    """
    if not (math.isfinite(value) and value <= most):
        raise InputError(
            f"{name} is {value:.3g} at step {step}, the run has diverged: lower the learning rate, or look for "
            "such values in the model"
        )


def differentiated(
    objective: Objective, indices: Sequence[int], parameters: Sequence[nn.Parameter], supervised: float
) -> Iterator[Tensor]:
    """Add the gradients of all parts to the parameters, in the order of the parts; yields each part's share of the loss.

    A few live tokens keep one core busy, not two: on a CPU, parts run side by side, each on one thread.
    """
    parts = objective.parts(indices)
    count = workers(parameters[0].device)
    if count < 2 or len(parts) < 2 or not objective.side_by_side:
        for part in parts:
            loss = part() / supervised
            loss.backward()
            yield loss.detach()
        return

    def gradients(part: Part) -> tuple[Tensor, tuple[Tensor, ...]]:
        loss = part() / supervised
        return loss.detach(), torch.autograd.grad(loss, parameters, materialize_grads=True)

    with one_thread_each(count) as pool:
        for value, found in pool.map(gradients, parts):
            for parameter, gradient in zip(parameters, found, strict=True):
                parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
            yield value


def evaluate(objective: Objective, indices: Sequence[int], *, batch: int, device: torch.device) -> float:
    """Mean loss per answer token over the examples `indices`, summed on `device` (which NCCL cannot leave)."""
    rank, size = world()
    loss = torch.zeros((), device=device)
    with torch.no_grad():
        for start in range(0, len(indices), batch):
            for part in objective.parts(indices[start : start + batch][rank::size]):
                loss += part()
    return float(total(loss)) / objective.supervised(indices)
