"""Levels that live in different dimensions: product quantisation and finite scalar quantisation.

Their codes say independent things, coarse to fine only in that the dimensions are ordered by variance.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from gti_diag.errors import InputError

from .clustering import kmeans
from .quantiser import Fitted, Layers, Quantiser

STEPS = 8  # most steps that FSQ divides one dimension into


def product_quantisation(vectors: Float[Tensor, "items dim"], *, sizes: Sequence[int], seed: int = 0) -> Fitted:
    """The principal axes, cut into one slice a level; k-means inside each slice.

    Source: Jégou, Douze, Schmid (2011), on rotated vectors.

    Raises:
        InputError: fewer dimensions than levels, or fewer distinct slices than codes.
    """
    dim = vectors.shape[1]
    if dim < len(sizes):
        raise InputError(f"{dim} dimensions for {len(sizes)} levels: use vectors of more dimensions")
    axes, mean, _ = _principal(vectors, dim)
    rotated = (vectors.double() - mean) @ axes.T
    bounds = [round(dim * level / len(sizes)) for level in range(len(sizes) + 1)]
    books = []
    for level, size in enumerate(sizes):
        start, stop = bounds[level], bounds[level + 1]
        book = torch.zeros(size, dim, dtype=torch.float64)
        try:
            book[:, start:stop], _ = kmeans(rotated[:, start:stop].contiguous(), size, seed=seed + level)
        except InputError as error:
            raise InputError(f"level {level + 1} has {error}") from None
        books.append(book)
    inward, outward = Layers((axes,), (-axes @ mean,)), Layers((axes.T.contiguous(),), (mean,))
    made = Quantiser("product", tuple(books), (), inward, outward)
    return Fitted(made, made.encode(vectors))


def finite_scalar_quantisation(vectors: Float[Tensor, "items dim"], *, sizes: Sequence[int], seed: int = 0) -> Fitted:
    """The first principal axes in units of their spread, bounded by tanh, each cut into equal steps.

    The number of a level's codes is written as a product of up to 8 steps a dimension: 256 = 8·8·4. Nothing is learned but
    the axes, so there is no way back to the vectors and nothing to collapse.
    Source: Mentzer et al. (2024), with principal axes in place of the autoencoder.

    Raises:
        InputError: a number of codes with a prime factor above 8, or too few dimensions.
    """
    parts = [_steps(size) for size in sizes]
    needed = sum(map(len, parts))
    axes, mean, spread = _principal(vectors, needed)
    weight = axes / spread[:, None]
    start, books = 0, []
    for steps in parts:
        grids = [(torch.arange(count, dtype=torch.float64) * 2 + 1) / count - 1 for count in steps]
        book = torch.zeros(math.prod(steps), needed, dtype=torch.float64)
        book[:, start : start + len(steps)] = torch.cartesian_prod(*grids).reshape(len(book), len(steps))
        start += len(steps)
        books.append(book)
    inward = Layers((weight,), (-weight @ mean,), bounded=True)
    made = Quantiser("fsq", tuple(books), (), inward, None)
    return Fitted(made, made.encode(vectors))


def _steps(size: int) -> list[int]:
    """`size` as a product of as few steps as possible, each at most 8."""
    steps, left = [], size
    while left > 1:
        step = next((step for step in range(STEPS, 1, -1) if left % step == 0), None)
        if step is None:
            raise InputError(
                f"{size} codes cannot be cut into steps of up to {STEPS} a dimension: use products such as 256 or 240"
            )
        steps.append(step)
        left //= step
    return steps


def _principal(vectors: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The first `count` principal axes (rows, signs fixed by their largest entry), the mean, the spread on each axis."""
    mean = vectors.double().mean(dim=0)
    centred = vectors.double() - mean
    values, axes = torch.linalg.eigh(centred.T @ centred / len(vectors))
    values, axes = values.flip(0)[:count], axes.T.flip(0)[:count]
    if len(axes) < count or not bool((values > 1e-12 * values[0]).all() or count == vectors.shape[1]):
        raise InputError(
            f"the vectors have {int((values > 1e-12 * values[0]).sum())} dimensions of their own, {count} are needed: use fewer codes"
        )
    largest = axes.gather(1, axes.abs().argmax(dim=1, keepdim=True))
    return axes * largest.sign(), mean, values.clamp(min=0).sqrt()
