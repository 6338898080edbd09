"""Every weight of a model, spread over the processes (FSDP2): each holds a share of weights, gradients and moments.

Layers are gathered one at a time, to be run and differentiated. The processes gather together, so each makes as many
passes as the others: who has fewer repeats one that counts for nothing.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gti_diag.errors import InputError
from gti_train.loop.processes import world
from gti_train.loop.shards import most, whole
from gti_train.loop.training import Part
from gti_train.model.loading import load_again

from .learners import EveryWeight, layers_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class ShardedWeights(EveryWeight):
    """All parameters of a float32 model, spread over the processes when training begins.

    Raises:
        InputError: one process alone; the model does not say which modules are its layers.
    """

    def __init__(self, model: "PreTrainedModel", ids: Sequence[int]):
        if world()[1] < 2:
            raise InputError("weights are sharded among processes: start several (torchrun), or leave out --shard")
        super().__init__(model, ids)
        self.layers = layers_of(model)

    def begin(self) -> None:
        from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

        for module in (*self.layers, self.model):
            fully_shard(module)
        self.model.make_pass = lambda part: part()  # type: ignore[assignment]
        register_fsdp_forward_method(self.model, "make_pass")
        self.modules = [module for module in self.model.modules() if isinstance(module, FSDPModule)]
        for module in self.modules:
            module.set_gradient_divide_factor(1.0)  # sums: the loss is divided by all answer tokens already
            module.set_force_sum_reduction_for_comms(True)
        self.parameters = list(self.model.parameters())

    def make_pass(self, part: Part) -> Tensor:
        return self.model.make_pass(part)  # type: ignore[operator, return-value]

    def even(self, passes: list[Part], idle: Callable[[], Part]) -> list[Part]:
        missing = most(len(passes), self.model.device) - len(passes)
        return [*passes, *[_of_no_weight(idle()) for _ in range(missing)]]

    @contextmanager
    def at_hand(self) -> Iterator[None]:
        for module in self.modules:
            module.set_reshard_after_forward(False, recurse=False)
            module.unshard()
        yield
        for module in self.modules:
            module.reshard()
            module.set_reshard_after_forward(module is not self.model, recurse=False)

    def gather(self) -> None:
        self.values = {name: whole(value.data).cpu() for name, value in self.model.named_parameters()}

    def finished(self, source: str | os.PathLike[str], dtype: torch.dtype) -> "PreTrainedModel":
        del self.model, self.parameters
        model = load_again(source, dtype=torch.float32)
        for name, value in self.values.items():
            model.get_parameter(name).data.copy_(value)
        return model.to(dtype)  # type: ignore[arg-type]


def _of_no_weight(part: Part) -> Part:
    return lambda: 0 * part()
