"""Rows of a tensor as byte ranges of a file."""

from __future__ import annotations

import math

import numpy as np

from .lazy import Tensor, torch
from .places import Folder
from .records import SIZES, Matrix

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


def stored_rows(folder: Folder, file: str, *, name: str, offset: int, shape: tuple[int, ...], kind: str) -> Matrix:
    """A row-major tensor that begins at byte `offset` of `file`."""
    width = SIZES[kind] * math.prod(shape[1:])

    def stored(wanted: np.ndarray) -> np.ndarray:
        first, last = int(wanted[0]), int(wanted[-1])
        if last - first + 1 == len(wanted) and (np.diff(wanted) == 1).all():
            return folder.spans(file, [(offset + first * width, offset + (last + 1) * width)]).reshape(-1, width)
        distinct, place = np.unique(wanted, return_inverse=True)
        parts = runs(distinct)
        data = folder.spans(file, [(offset + int(a) * width, offset + int(b) * width) for a, b in parts])
        rows = data.reshape(-1, width)
        held = np.cumsum(np.concatenate([[0], parts[:, 1] - parts[:, 0]]))
        run = np.searchsorted(parts[:, 0], distinct, side="right") - 1
        return rows[(held[run] + distinct - parts[run, 0])[place]]

    def fetch(ids: Tensor) -> Tensor:
        dtype = getattr(torch, kind)
        if not ids.numel() or not width:
            return torch.empty((ids.numel(), *shape[1:]), dtype=dtype)
        return torch.from_numpy(stored(ids.numpy())).view(dtype).reshape(-1, *shape[1:])

    return Matrix(name=name, shape=shape, kind=kind, fetch=fetch, stored=stored if width else None)
