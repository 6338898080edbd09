"""Tensors of which every process holds a shard (FSDP2): whole again to be kept, spread again from what was kept.

What is whole already is handed back as it is, so that the loop need not ask. Every process calls these together.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from .state import State


def is_shard(tensor: Tensor) -> bool:
    """Whether this process holds only a part of it (a DTensor)."""
    return hasattr(tensor, "full_tensor")


def whole(tensor: Tensor) -> Tensor:
    """All of it, in every process."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def spread(tensor: Tensor, like: Tensor) -> Tensor:
    """This process's share of a whole tensor, if `like` is a shard."""
    if not (hasattr(like, "device_mesh") and hasattr(like, "placements")):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def gathered(state: State) -> State:
    """A state that any number of processes can go on from."""
    moments = {
        number: {name: whole(value) if isinstance(value, Tensor) else value for name, value in of.items()}
        for number, of in state.optimizer["state"].items()
    }
    parameters = [whole(parameter) for parameter in state.parameters]
    return replace(state, parameters=parameters, optimizer={**state.optimizer, "state": moments})


def scattered(optimizer: dict[str, Any], parameters: Sequence[nn.Parameter]) -> dict[str, Any]:
    """The state of an optimizer as `gathered` made it, for these parameters: what has a value for each of a
    parameter's is spread as it is."""
    moments = {
        number: {
            name: spread(value, parameters[number]) if value.shape == parameters[number].shape else value
            for name, value in of.items()
        }
        for number, of in optimizer["state"].items()
    }
    return {**optimizer, "state": moments}


def most(count: int, device: torch.device) -> int:
    """The largest of the processes' counts."""
    largest = torch.tensor(count, device=device)
    torch.distributed.all_reduce(largest, torch.distributed.ReduceOp.MAX)
    return int(largest)
