"""The rows of one token group as the measures take them: in memory on the device, or a sample where they do not fit."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from gti_diag.checkpoint import Matrix
from gti_diag.errors import InputError
from gti_diag.measures.tiles import tiles
from gti_diag.tokens.groups import Group

LARGEST, SMALLEST = 1e100, 1e-100  # squares of larger numbers overflow, of rows with none as large underflow
STREAMED = 1 << 23  # numbers read at a time where not all rows are held


@dataclass(frozen=True)
class GroupRows:
    """`count` rows of which `rows` (in storage dtype) are held; `ids`, `tokens` and `levels` are those of the held rows.

    `places` are the positions of the held rows within the group; `stream()` always yields all rows of the group.
    """

    name: str
    count: int
    rows: Tensor
    ids: Tensor
    tokens: tuple[str, ...]
    levels: Tensor | None
    places: Tensor
    matrix: Matrix
    all_ids: Tensor
    all_tokens: tuple[str, ...]
    source: str

    @property
    def sampled(self) -> bool:
        return len(self.rows) < self.count

    def __iter__(self) -> Iterator[Tensor]:
        return self.stream()

    def stream(self) -> Iterator[Tensor]:
        """All rows of the group, tile by tile.

        Raises:
            InputError: a row holds NaN or infinity.
        """
        if not self.sampled:
            yield self.rows
            return
        for ids in self.all_ids.split(max(1, STREAMED // self.matrix.shape[1])):
            rows = self.matrix.rows(ids).to(self.rows.device)
            yield finite(rows, f"{self.source}: {self.matrix.name}", self.name, ids)

    @cached_property
    def directed(self) -> Tensor:
        """Which of the held rows are not zero."""
        return torch.cat([(tile != 0).any(1) for tile in tiles(self.rows)]).cpu()  # no mask of all numbers at once

    def nonzero(self, places: Tensor) -> Tensor:
        """Those of `places` (among the held rows) whose row is not zero: a zero row has no direction."""
        return places[self.directed[places]]

    def named(self, places: Tensor) -> list[str]:
        return [self.tokens[place] for place in places.tolist()]


def hold(
    matrix: Matrix, group: Group, *, source: str, room: float, device: torch.device, generator: torch.Generator
) -> GroupRows:
    """Read a group's rows; when they exceed `room` bytes, a seeded sample of as many as fit. `source` names the file.

    Raises:
        InputError: a row holds NaN or infinity.
    """
    most = max(2, int(room / (matrix.shape[1] * matrix.dtype.itemsize)))
    places = torch.arange(group.count)
    if group.count > most:
        places = torch.randperm(group.count, generator=generator)[:most].sort().values
    ids = group.ids[places]
    rows = finite(matrix.rows(ids).to(device), f"{source}: {matrix.name}", group.name, ids)
    tokens = group.tokens if len(places) == group.count else tuple(group.tokens[place] for place in places.tolist())
    levels = None if group.levels is None else group.levels[places]
    return GroupRows(
        group.name, group.count, rows, ids, tokens, levels, places, matrix, group.ids, group.tokens, source
    )


def finite(rows: Tensor, where: str, group: str, ids: Tensor) -> Tensor:
    """`rows` if every number and its square is finite; eight-bit ones as bfloat16, which holds them exactly.

    Raises:
        InputError: how many rows are not, or are so small that their squares are 0, and the first token id.
    """
    if rows.dtype.itemsize == 1:
        rows = rows.to(torch.bfloat16)
    if rows.dtype == torch.float64:
        _large_enough(rows, where, group, ids)
    if not len(rows) or all(abs(float(extreme)) < LARGEST for extreme in rows.aminmax()):  # no mask, no copy
        return rows
    bad = (~(rows.double().abs() < LARGEST).all(1)).nonzero()[:, 0].cpu()
    raise InputError(
        f"{where}: {len(bad):,} rows of group {group} hold NaN or infinity, or values over {LARGEST:.0g} "
        f"(first: token id {int(ids[bad[0]])}); "
        "the training that wrote them diverged, or the file is damaged"
    )


def _large_enough(rows: Tensor, where: str, group: str, ids: Tensor) -> None:
    largest = torch.linalg.vector_norm(rows, torch.inf, dim=1)
    small = ((largest > 0) & (largest < SMALLEST)).nonzero()[:, 0].cpu()
    if len(small):
        raise InputError(
            f"{where}: {len(small):,} rows of group {group} are not zero but hold nothing over {SMALLEST:.0g} "
            f"(first: token id {int(ids[small[0]])}), so their squares are; multiply the matrix, or make these rows zero"
        )
