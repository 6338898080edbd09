"""Where new rows start: functions from trained rows to rows that the caller writes.

All statistics are over trained rows only: the caller leaves out padding and the new rows themselves.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def mean(trained: Float[Tensor, "text dim"], count: int) -> Float[Tensor, "tokens dim"]:
    """`count` copies of the mean trained row, accumulated in float64: the usual start, and one single point.

    Source: Hewitt 2021, "Initializing new word embeddings for pretrained language models".
    """
    return trained.double().mean(0).float().expand(count, -1).clone()


def random(
    trained: Float[Tensor, "text dim"], count: int, *, generator: torch.Generator, sigma: float | None = None
) -> Float[Tensor, "tokens dim"]:
    """Rows from N(0, σ² I); σ matches the trained rows (root mean square entry about the mean) unless given.

    A configuration's `initializer_range` is no guide: 0.02 where trained entries spread over 0.1.
    """
    if sigma is None:
        rows = trained.double()
        sigma = float((rows - rows.mean(0)).square().mean().sqrt())
    return torch.randn(count, trained.shape[1], generator=generator) * sigma
