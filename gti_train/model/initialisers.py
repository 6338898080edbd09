"""Where new rows start: functions from trained rows to rows that the caller writes.

All statistics are over trained rows only: the caller leaves out padding and the new rows themselves.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from gti_diag.errors import InputError
from gti_diag.measures.geometry import dispersion


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


def gaussian(
    trained: Float[Tensor, "text dim"], count: int, *, generator: torch.Generator, share: float = 1.0
) -> Float[Tensor, "tokens dim"]:
    """Rows from N(μ, share · Σ), the mean and covariance of the trained rows.

    share = 1 spreads new rows as trained ones. transformers' own `mean_resizing` uses 1e-9, which is the mean
    start in disguise: distinct rows, at 3e-5 of the trained dispersion.

    Source: Hewitt 2021 (as for `mean`); transformers `_init_added_embeddings_weights_with_mean`.
    """
    rows = trained.double()
    centre = rows.mean(0)
    rows = rows - centre
    values, vectors = torch.linalg.eigh(rows.T @ rows / len(rows))
    spread = vectors * (share * values.clamp_min(0)).sqrt()  # rounding makes null directions slightly negative
    noise = torch.randn(count, len(centre), generator=generator, dtype=torch.float64)
    return (centre + noise @ spread.T).float()


def description(matrix: Float[Tensor, "rows dim"], token_ids: Sequence[Sequence[int]]) -> Float[Tensor, "tokens dim"]:
    """The mean row of each new token's description tokens, of all that describe it, by how often they occur.

    Raises:
        InputError: a token has no description.
    Source: for codes, over the texts of all items that carry the code: SA-Init of TS-Rec.
    """
    empty = [i for i, ids in enumerate(token_ids) if not len(ids)]
    if empty:
        raise InputError(f"new token number {empty[0]} has no description: describe each, or start it otherwise")
    return torch.stack([matrix[torch.as_tensor(ids)].double().mean(0) for ids in token_ids]).float()


def rescaled(rows: Float[Tensor, "tokens dim"], trained: Float[Tensor, "text dim"]) -> Float[Tensor, "tokens dim"]:
    """Each row's direction at the median norm of trained rows: means of many rows are short, and a short row is a faint token.

    Raises:
        InputError: a row is zero.
    Source: NVIDIA Nemotron tokenizer_extension (2026), subword mean with correction to the median norm.
    """
    lengths = torch.linalg.vector_norm(rows.double(), dim=1, keepdim=True)
    if not bool((lengths > 0).all()):
        raise InputError(
            "a new row starts at zero and has no direction to rescale: start it otherwise, or leave norm as it is"
        )
    target = torch.linalg.vector_norm(trained.double(), dim=1).median()
    return (rows.double() / lengths * target).float()


def spread_out(
    rows: Float[Tensor, "tokens dim"], trained: Float[Tensor, "text dim"], share: float
) -> Float[Tensor, "tokens dim"]:
    """The rows, each as far from their mean as it takes for their dispersion to be `share` of the trained rows'.

    Nothing else about them changes: which row lies near which, about their mean, stays as it was.

    Raises:
        InputError: all rows are one point.
    Source: reports/studies/office: means of descriptions had 7 % of the vocabulary's spread, and were learned no better than one point.
    """
    now = dispersion(rows)
    if not now:
        raise InputError("the new rows start as one point, which has no spread to enlarge: start them otherwise")
    centre = rows.double().mean(0)
    return (centre + (rows.double() - centre) * (share * dispersion(trained) / now)).float()


def codebook(
    codebooks: Float[Tensor, "tokens code"], described: Float[Tensor, "tokens dim"], *, ridge: float = 1e-2
) -> Float[Tensor, "tokens dim"]:
    """Codebook vectors C mapped linearly onto description rows D: the ridge fit D̂ = μ_D + (C − μ_C) W.

    W = (CᵀC + ridge · tr(CᵀC)/k · I)⁻¹ CᵀD on centred C and D. Keeps from the text what the codebook's
    geometry can explain. Identical codebook vectors give the mean description row.
    """
    code, text = codebooks.double(), described.double()
    centred = code - code.mean(0)
    gram = centred.T @ centred
    weight = float(gram.diagonal().mean())
    if weight == 0:
        return text.mean(0).float().expand(len(text), -1).clone()
    solved = torch.linalg.solve(
        gram + ridge * weight * torch.eye(len(gram), dtype=gram.dtype), centred.T @ (text - text.mean(0))
    )
    return (text.mean(0) + centred @ solved).float()
