"""Rows walked in tiles: float64 copies in one buffer that fits the cache, and workers that share a machine well."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

NUMBERS = 1 << 19  # float64 numbers of a tile: 4 MiB
PADDING = 8  # columns between its rows: rows a power of two apart fall on few lines of the cache, and products take a tenth longer
_WORKERS: ContextVar[int | None] = ContextVar(
    "workers", default=None
)  # of this thread; a worker has none, and one torch thread


def height(dim: int) -> int:
    """Rows of a tile of `dim` columns."""
    return max(16, NUMBERS // max(1, dim))


def tiles(rows: Tensor | Iterable[Tensor]) -> Iterator[Tensor]:
    """The rows, given as one tensor or as tiles of any size, in tiles of the height that suits the cache."""
    for tile in (rows,) if isinstance(rows, Tensor) else rows:
        if len(tile):
            yield from tile.split(height(tile.shape[1]))


def evenly(count: int, wanted: int) -> Int[Tensor, " places"]:
    """At most `wanted` of 0 … count − 1, evenly spaced, first and last included."""
    return torch.linspace(0, count - 1, min(count, wanted)).round().long()


def wide_tiles(
    rows: Float[Tensor, "tokens dim"] | Iterable[Tensor], *, centre: Float[Tensor, " dim"] | None = None
) -> Iterator[Tensor]:
    """Float64 copies of the rows, minus `centre`, tile by tile, all in one buffer: use a tile before asking for the next.

    Fresh memory for every tile costs ten times the arithmetic.
    """
    buffer = None
    for tile in tiles(rows):
        if buffer is None:
            size = height(tile.shape[1]), tile.shape[1] + PADDING
            buffer = torch.empty(size, dtype=torch.float64, device=tile.device)
        wide = buffer[: len(tile), : tile.shape[1]].copy_(tile.detach())
        yield wide if centre is None else wide.sub_(centre)


def add_gram(gram: Float[Tensor, "dim dim"], tile: Float[Tensor, "tokens dim"]) -> None:
    """gram += tileᵀ tile, in the upper block triangle only; `mirror` fills the rest."""
    for low, high in pairwise(_edges(len(gram))):
        gram[low:high, low:].addmm_(tile[:, low:high].T, tile[:, low:])


def mirror(gram: Float[Tensor, "dim dim"]) -> None:
    """Fill the lower block triangle from the upper one, in place."""
    for low, high in pairwise(_edges(len(gram))):
        gram[high:, low:high] = gram[low:high, high:].T
        own = gram[low:high, low:high]
        own.copy_(own.triu() + own.triu(1).T)


def _edges(dim: int, blocks: int = 8) -> list[int]:
    return [dim * block // blocks for block in range(blocks + 1)]


def workers(device: torch.device) -> int:
    """How many threads to share work among: torch's own number on a CPU (before `among_workers`); a GPU needs one."""
    return (_WORKERS.get() or torch.get_num_threads()) if device.type == "cpu" else 1


@contextmanager
def among_workers() -> Iterator[None]:
    """Inside, work is shared among `workers` alone and torch itself computes on one thread.

    The threads of one torch operation wait for each other at its end, spinning unless OMP_WAIT_POLICY said otherwise before
    torch was loaded: beside other busy processes each operation then takes a time slice.
    """
    with_threads = _WORKERS.set(workers(torch.device("cpu")))
    try:
        with one_thread():
            yield
    finally:
        _WORKERS.reset(with_threads)


@contextmanager
def one_thread() -> Iterator[None]:
    """Small LAPACK calls on one thread: two on a busy machine wait for each other, 0.1 s becomes 7 s."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def one_thread_each(count: int) -> Iterator[ThreadPoolExecutor]:
    """`count` workers that each compute on one thread: no barrier for a busy core to hold up."""
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(count, initializer=lambda: torch.set_num_threads(1)) as pool:
            yield pool
    finally:
        torch.set_num_threads(threads)


def at_once(jobs: Sequence[Callable[[], Any]], device: torch.device) -> list[Any]:
    """What the jobs return, in their order. On a CPU they run beside each other, each on one thread, the first ones first.

    Raises: what the first job that fails raised, when all have ended.
    """
    with one_thread_each(workers(device)) as pool:
        return [running.result() for running in [pool.submit(job) for job in jobs]]
