"""Which rows look as rows do that no text ever trained: the indicators of under-trained tokens, calibrated on known ones."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

FEWEST = 8  # known rows that can calibrate an indicator
MOST = 0.01  # share of the other rows beyond which the indicator does not tell
DEVIATIONS = 4.0
ROUNDING = 1e-6


@dataclass(frozen=True)
class Window:
    """Where the indicator of a never trained row lies."""

    low: float
    high: float

    def holds(self, values: Float[Tensor, " tokens"]) -> Bool[Tensor, " tokens"]:
        return (values >= self.low) & (values <= self.high)


def cosine_distances(
    rows: Float[Tensor, "unused dim"], *, mean: Float[Tensor, " dim"]
) -> tuple[Float[Tensor, " dim"], Float[Tensor, " unused"]]:
    """The unit direction u of Σ (xᵢ − mean) over never trained rows, and of each 1 − cos(xᵢ − mean, Σ_{j≠i} (xⱼ − mean)).

    Rows of a head that no text trains all drift the same way: down in every softmax. Each row is compared with the others,
    so that its own share does not make it look nearer than an unknown one.

    Raises: ValueError for fewer than two rows, or if one equals the mean or the others cancel out.
    Source: Land & Bartolo, Fishing for Magikarp (EMNLP 2024), §2.2, cosine distance to the mean of known unused rows, for tied
        and for output matrices; centred, as there after the removal of a constant component.
    """
    if len(rows) < 2:
        raise ValueError(f"{len(rows)} never trained rows: a direction needs two")
    offset = rows.double() - mean.double()
    total = offset.sum(0)
    others = total - offset
    lengths = torch.linalg.vector_norm(offset, dim=1) * torch.linalg.vector_norm(others, dim=1)
    length = float(torch.linalg.vector_norm(total))
    if length == 0 or not bool((lengths > 0).all()):
        raise ValueError("a never trained row equals the mean, or they cancel out: no direction")
    return total / length, 1 - ((offset * others).sum(1) / lengths).clamp(-1, 1)


def cosine_window(known: Float[Tensor, " unused"]) -> Window:
    """Distances up to the larger of 2 · median and median + 4 · 1.4826 · median absolute deviation of the known ones.

    Raises: ValueError for fewer than 8 known rows.
    Source: Land & Bartolo (2024), with a robust limit (Rousseeuw & Leroy 1987, §1.1) in place of their 2 % of the vocabulary.
    """
    middle, deviation = _centre(known)
    return Window(-torch.inf, max(2 * middle, middle + DEVIATIONS * deviation) + ROUNDING)


def norm_window(known: Float[Tensor, " unused"]) -> Window:
    """Norms within median ± 4 · 1.4826 · median absolute deviation of the never trained ones.

    Raises: ValueError for fewer than 8 known rows.
    Source: Land & Bartolo (2024), §2.2, ‖row‖ of an untied input matrix; two-sided, for a start need not be short.
    """
    middle, deviation = _centre(known)
    slack = DEVIATIONS * deviation + ROUNDING * middle
    return Window(middle - slack, middle + slack)


def _centre(known: Tensor) -> tuple[float, float]:
    if len(known) < FEWEST:
        raise ValueError(f"{len(known)} rows are known to be never trained: {FEWEST} are needed to tell others by them")
    middle = float(known.median())
    return middle, 1.4826 * float((known - middle).abs().median())
