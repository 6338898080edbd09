"""Statistics over pairs of tokens when tokens weigh differently: what a bootstrap over tokens redraws."""

import torch
from jaxtyping import Float
from torch import Tensor

FIRST_ORDER_TOKENS = (
    256  # more tokens are redrawn to first order, which then moves bounds by less than 1 % of the interval
)


def first_order(
    observed: float | Tensor, influence: Float[Tensor, "tokens tokens"], weights: Float[Tensor, "samples tokens"]
) -> Float[Tensor, " samples"]:
    """observed + Σ_{i<j} w_i w_j I_ij / Σ_{i<j} w_i w_j: the statistic where pair i, j weighs w_i w_j, to first order.

    `influence` is symmetric, of mean 0 over the pairs, zero on the diagonal.

    Source: Hampel 1974, doi 10.1080/01621459.1974.10482962 (influence); weights of pairs as in `rsa.rsa_interval`.
    """
    pairs = (weights.sum(1).square() - weights.square().sum(1)) / 2
    light = weights.float()  # an error of an error needs few digits
    return observed + ((light @ influence.float()) * light).sum(1, dtype=torch.float64) / 2 / pairs
