"""From vectors to codes, coarse to fine: the quantisers by name."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gti_diag.errors import InputError

from .clustering import balanced_kmeans, faiss_kmeans, residual_kmeans
from .quantiser import Fitted, check_sizes
from .reproducible import canonical_order, one_thread
from .rqvae import RqVaeConfig, rqvae
from .slices import finite_scalar_quantisation, product_quantisation
from .vectors import Progress

SIZES = (48, 24, 24)


def no_progress(share: float, detail: str) -> None:
    """Nobody watches."""


def _rqvae(vectors: Tensor, *, sizes: Sequence[int], seed: int, progress: Progress, **settings: Any) -> Fitted:
    return rqvae(vectors, RqVaeConfig(sizes=tuple(sizes), seed=seed, **settings), progress=progress)


def _at_once(fit_rows: Callable[..., Fitted]) -> Callable[..., Fitted]:
    """A quantiser that has no settings and shows no progress."""
    return lambda vectors, *, sizes, seed, progress: fit_rows(vectors, sizes=sizes, seed=seed)


QUANTISERS: Mapping[str, Callable[..., Fitted]] = {
    "residual-kmeans": _at_once(residual_kmeans),
    "balanced-kmeans": _at_once(balanced_kmeans),
    "faiss-kmeans": _at_once(faiss_kmeans),
    "product": _at_once(product_quantisation),
    "fsq": _at_once(finite_scalar_quantisation),
    "rq-vae": _rqvae,
}


def fit(
    vectors: Float[Tensor, "items dim"],
    *,
    quantiser: str = "residual-kmeans",
    sizes: Sequence[int] = SIZES,
    seed: int = 0,
    progress: Progress = no_progress,
    **settings: Any,
) -> Fitted:
    """Fit the quantiser of this name; rows in another order, or more threads, give the same codes.

    Raises:
        InputError: an unknown name, sizes that the quantiser cannot have, or too few distinct vectors.
    """
    if quantiser not in QUANTISERS:
        raise InputError(f"--quantiser {quantiser!r} is unknown: use one of {', '.join(QUANTISERS)}")
    if settings and quantiser != "rq-vae":
        raise InputError(f"--{next(iter(settings))} is for --quantiser rq-vae, not for {quantiser}")
    check_sizes(sizes)
    order = canonical_order(vectors)
    with one_thread():
        fitted = QUANTISERS[quantiser](vectors[order], sizes=sizes, seed=seed, progress=progress, **settings)
    codes = torch.empty_like(fitted.codes)
    codes[order] = fitted.codes
    return Fitted(fitted.quantiser, codes)
