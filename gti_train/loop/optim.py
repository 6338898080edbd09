"""The optimizer and its schedule."""

import math
from collections.abc import Iterable

import torch
from torch import nn

from gti_diag.errors import InputError


def adamw(parameters: Iterable[nn.Parameter], *, learning_rate: float) -> torch.optim.AdamW:
    """AdamW in one fused pass over each parameter.

    No weight decay: a decayed row drifts from the manifold it was grounded in whether or not it occurs.
    """
    return torch.optim.AdamW(list(parameters), lr=learning_rate, betas=(0.9, 0.999), weight_decay=0.0, fused=True)


def schedule(step: int, *, steps: int, warmup: int, shape: str) -> float:
    """The factor of the learning rate at `step` (1-based): linear from 0 over `warmup`, then by `shape`.

    constant: 1;  linear: falls to 0 just after the last step;  cosine: half a cosine to the same point.

    Raises:
        InputError: an unknown shape.
    """
    if step <= warmup:
        return step / warmup
    left = (steps + 1 - step) / max(1, steps + 1 - warmup)
    shapes = {"constant": 1.0, "linear": left, "cosine": (1 - math.cos(math.pi * left)) / 2}
    if shape not in shapes:
        raise InputError(f"schedule {shape!r} is unknown: use one of {', '.join(shapes)}")
    return shapes[shape]
