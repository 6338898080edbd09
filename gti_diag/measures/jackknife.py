"""The interval of a Pearson RSA over tens of thousands of tokens: every token left out once, in closed form."""

from statistics import NormalDist

import torch
from jaxtyping import Float
from torch import Tensor

from .alignment import Rows, Space, paired
from .tiles import one_thread_each, workers

TILE = 2048
FLOAT64_TOKENS = 4096  # the products of more tokens are taken in float32: the error of an error needs few digits


def leave_one_out_pearson(x: Rows, y: Rows) -> Float[Tensor, " tokens"]:
    """Pearson RSA without token i, for each i, exactly, in O(tokens · (dim_x² + dim_y²)).

    With d_ij = a_i + a_j − r_i·r_j (offsets r, s of zero sum; a, b half squares), the sums over the pairs of one token are
        Σ_j d_ij       = n a_i + Σa
        Σ_j d_ij e_ij  = n a_i b_i + a_i Σb + b_i Σa + Σab − s_i·Σ a_j s_j − r_i·Σ b_j r_j + r_iᵀ (Σ r_j s_jᵀ) s_i
    (the second with e = d for the squares), and what is left is the sum over all pairs minus these.

    Raises: ValueError for fewer than 4 tokens, or as `pearson_rsa`; for a space whose pairs are all equally dissimilar.
    Source: Tukey 1958 (the jackknife); the closed form is ours.
    """
    spaces = paired(x, y, fewest=4)
    n = len(x)
    own = [n * space.halves + space.halves.sum() for space in spaces]
    products = [_products(spaces[i], spaces[j]) for i, j in ((0, 0), (1, 1), (0, 1))]
    pairs = (n - 1) * (n - 2) / 2
    d, e, dd, ee, de = (row.sum() / 2 - row for row in (*own, *products))
    variances = (dd - d * d / pairs) * (ee - e * e / pairs)
    if not bool((variances > 1e-12 * (dd * ee)).all()):
        raise ValueError("all pairs of a space are equally dissimilar: a correlation with them is undefined")
    return (de - d * e / pairs) / variances.sqrt()


def jackknife_interval(x: Rows, y: Rows, *, confidence: float = 0.95) -> tuple[float, float]:
    """Normal interval around the Pearson RSA with the jackknife's standard error over tokens.

    The jackknife counts what single pairs have of their own twice, so for unrelated spaces the interval is up to √2 too
    wide, never too narrow. Meant for many tokens, where redrawing them costs the square of their number.

    Raises: ValueError unless 0 < confidence < 1, or as `leave_one_out_pearson`.
    Source: Efron & Tibshirani 1993, chapter 11.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; it must lie between 0 and 1")
    left = leave_one_out_pearson(x, y)
    n = len(left)
    error = ((n - 1) * left.var(correction=0).item()) ** 0.5
    margin = NormalDist().inv_cdf((1 + confidence) / 2) * error
    centre = left.mean().item()
    return max(-1.0, centre - margin), min(1.0, centre + margin)


def _products(first: Space, second: Space) -> Float[Tensor, " tokens"]:
    """Σ_j d_ij e_ij for each token i."""
    r, a, s, b = first.offsets, first.halves, second.offsets, second.halves
    dtype = torch.float64 if len(r) <= FLOAT64_TOKENS else torch.float32
    if first is second and len(r) < r.shape[1]:
        cross = first.gram.square().sum(1)
    else:
        inner = (first.gram if first is second else s.T @ r).to(dtype)
        weigh = lambda left, right: ((left.to(dtype) @ inner) * right).sum(1)  # noqa: E731
        with one_thread_each(workers(r.device)) as pool:
            cross = torch.cat(list(pool.map(weigh, s.split(TILE), r.split(TILE))))
    linear = s @ (a @ s) + r @ (b @ r)
    return len(a) * a * b + a * b.sum() + b * a.sum() + (a @ b) - linear + cross
