"""One process or several: who this is, waiting for each other, sums over all."""

import atexit
import os

import torch
from torch import Tensor


def join_processes() -> torch.device:
    """Join the group of processes that a launcher started, if one did; returns this process's device."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        from accelerate import PartialState

        joined = not PartialState._shared_state
        state = PartialState(cpu=not torch.cuda.is_available())
        if joined:  # a process that exits while its peers still talk to it takes them down
            atexit.register(state.destroy_process_group)
        return state.device
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def world() -> tuple[int, int]:
    """This process's number and the number of processes."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def together() -> None:
    """Wait until every process is here."""
    if world()[1] > 1:
        torch.distributed.barrier()


def total(tensor: Tensor) -> Tensor:
    """Sum `tensor` over all processes, in place."""
    if world()[1] > 1:
        torch.distributed.all_reduce(tensor)
    return tensor
