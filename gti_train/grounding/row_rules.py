"""What a damaged row is replaced by: one function a rule, from healthy rows to rows of a like norm.

Every rule leaves rows apart from each other by `APART` of the way to some healthy row: rows that are one point are what a scan finds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gti_diag.errors import InputError

APART = 0.05
SAMPLED = 16_384  # healthy rows, evenly chosen, that stand for all


@dataclass(frozen=True)
class Healthy:
    """Healthy rows of one matrix (float64), and how long they are."""

    rows: Float[Tensor, "healthy dim"]

    @property
    def mean(self) -> Float[Tensor, " dim"]:
        return self.rows.mean(0)

    @property
    def norms(self) -> Float[Tensor, " healthy"]:
        return torch.linalg.vector_norm(self.rows, dim=1)

    def offsets(self, count: int, generator: torch.Generator) -> Float[Tensor, "tokens dim"]:
        """The offsets from the mean of `count` healthy rows drawn at random, no row twice.

        Raises:
            InputError: there are fewer healthy rows.
        """
        if count > len(self.rows):
            raise InputError(f"{count:,} rows to repair by {len(self.rows):,} healthy ones: too few to keep them apart")
        return self.rows[torch.randperm(len(self.rows), generator=generator)[:count]] - self.mean


def at_median(rows: Float[Tensor, "tokens dim"], healthy: Healthy) -> Float[Tensor, "tokens dim"]:
    """The directions of `rows` at the median norm of healthy rows.

    Raises:
        InputError: a row has no direction.
    Source: NVIDIA NeMo Automodel, embedding row repair (2026), with the median in place of the root mean square, which giants move.
    """
    lengths = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    if not bool((lengths > 0).all()) or not bool(torch.isfinite(lengths).all()):
        raise InputError(
            "a row to take a direction from is zero or not finite: use --rule mean, or leave its id out with --ids"
        )
    return rows / lengths * healthy.norms.median()


def within_norms(rows: Float[Tensor, "tokens dim"], healthy: Healthy) -> Float[Tensor, "tokens dim"]:
    """Rows shorter than 1 % of the healthy ones, or longer than 99 %, brought to that length."""
    lengths = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    low, high = torch.quantile(healthy.norms[:SAMPLED], torch.tensor([0.01, 0.99], dtype=torch.float64))
    return rows / lengths * lengths.clamp(low, high)


def mean_rows(healthy: Healthy, count: int, generator: torch.Generator) -> Float[Tensor, "tokens dim"]:
    """x̄ + 0.05 (xₐ − x̄), xₐ a healthy row for each; no shorter than healthy rows are.

    Source: Hewitt (2021), the mean start, with rows kept apart.
    """
    return within_norms(healthy.mean + APART * healthy.offsets(count, generator), healthy)


def described_rows(
    texts: Sequence[Float[Tensor, "pieces dim"]], healthy: Healthy, generator: torch.Generator
) -> Float[Tensor, "tokens dim"]:
    """The mean row of each token's description, at the median norm, kept apart as the others."""
    means = torch.stack([text.mean(0) for text in texts]) + APART * healthy.offsets(len(texts), generator)
    return at_median(means, healthy)


def copied_rows(row: Float[Tensor, " dim"], healthy: Healthy, count: int, generator: torch.Generator) -> Tensor:
    """`count` rows near one healthy row: x + 0.05 (xₐ − x̄)."""
    return row + APART * healthy.offsets(count, generator)
