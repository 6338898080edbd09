"""Rows of a tensor as byte ranges of a file."""

import math

import numpy as np
import torch
from torch import Tensor

from .places import Folder
from .records import Matrix

WASTE = 0.1  # rows read between wanted rows, as a share of the wanted ones: fewer requests for a tenth more bytes


def runs(ids: np.ndarray) -> np.ndarray:
    """Half-open runs covering the sorted distinct `ids`, the smallest gaps bridged while they cost under `WASTE`."""
    gaps = np.diff(ids) - 1
    order = np.argsort(gaps, kind="stable")
    bridged = order[np.cumsum(gaps[order]) <= WASTE * len(ids)]
    cut = np.ones(len(gaps), dtype=bool)
    cut[bridged] = False
    starts = np.concatenate([ids[:1], ids[1:][cut]])
    stops = np.concatenate([ids[:-1][cut], ids[-1:]]) + 1
    return np.stack([starts, stops], axis=1)


def stored_rows(
    folder: Folder, file: str, *, name: str, offset: int, shape: tuple[int, ...], dtype: torch.dtype
) -> Matrix:
    """A row-major tensor that begins at byte `offset` of `file`."""
    width = dtype.itemsize * math.prod(shape[1:])

    def fetch(ids: Tensor) -> Tensor:
        if not ids.numel() or not width:
            return torch.empty((ids.numel(), *shape[1:]), dtype=dtype)
        wanted = ids.numpy()
        first, last = int(wanted[0]), int(wanted[-1])
        if last - first + 1 == len(wanted) and (np.diff(wanted) == 1).all():
            data = folder.spans(file, [(offset + first * width, offset + (last + 1) * width)])
            return torch.from_numpy(data).view(dtype).reshape(-1, *shape[1:])
        distinct, place = np.unique(wanted, return_inverse=True)
        parts = runs(distinct)
        data = folder.spans(file, [(offset + int(a) * width, offset + int(b) * width) for a, b in parts])
        rows = torch.from_numpy(data).view(dtype).reshape(-1, *shape[1:])
        held = np.cumsum(np.concatenate([[0], parts[:, 1] - parts[:, 0]]))
        run = np.searchsorted(parts[:, 0], distinct, side="right") - 1
        return rows[torch.from_numpy((held[run] + distinct - parts[run, 0])[place])]

    return Matrix(name=name, shape=shape, dtype=dtype, fetch=fetch)
