"""Optimal transport of items to codes, in logarithms."""

import torch
from jaxtyping import Float
from torch import Tensor


def code_prices(
    costs: Float[Tensor, "items codes"], *, epsilon: float = 0.003, rounds: int = 50
) -> Float[Tensor, " codes"]:
    """Prices under which items that choose the code of least cost minus price use all codes about equally.

    Costs are first brought to [-1, 1]. With K = -C / ε, uniform marginals and v = 0, each round sets
    u = log(1/n) - log Σ_k exp(K_ik + v_k) and v = log(1/m) - log Σ_i exp(K_ik + u_i); the prices are ε v in units of
    the costs. In logarithms nothing overflows, however small ε is.
    Source: Cuturi (2013); Sinkhorn-Knopp on costs so scaled as in LC-Rec (Zheng et al. 2024).

    Raises:
        ValueError: no items, or costs that are not finite.
    """
    if not len(costs) or not bool(torch.isfinite(costs).all()):
        raise ValueError("costs must be finite, and of at least one item")
    low, high = costs.min(), costs.max()
    half = (high - low) / 2
    if half == 0:  # all codes cost the same
        return costs.new_zeros(costs.shape[1])
    scores = -((costs - low) / half - 1) / epsilon
    items, codes = (torch.tensor(float(size), dtype=costs.dtype).log() for size in costs.shape)
    prices = costs.new_zeros(costs.shape[1])
    for _ in range(rounds):
        pull = -items - (scores + prices).logsumexp(dim=1)
        prices = -codes - (scores + pull[:, None]).logsumexp(dim=0)
    prices = prices * epsilon * half
    return prices - prices.mean()
