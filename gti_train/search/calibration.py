"""From scores to probabilities of a click at a position, by isotonic regressions that do not reorder.

An isotonic fit is flat in places; documents on one plateau are equal in probability and not in score. Whoever sorts by the
probability alone lets chance order them: `order` sorts by probability, then by score.

Source: isotonic calibration, Zadrozny and Elkan 2002.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from gti_diag.errors import InputError

EDGES = (1, 2, 3, 6, 11)  # first positions of the groups that have a fit of their own


@dataclass(frozen=True)
class Calibration:
    """For each group of positions, by its first one, scores and the probabilities at them; between them it is linear."""

    knots: Mapping[int, tuple[tuple[float, ...], tuple[float, ...]]]

    def __call__(self, scores: Float[Tensor, "*n"], *, position: int) -> Float[Tensor, "*n"]:
        """P(click | score, shown at `position`, counted from 1)."""
        first = max((edge for edge in self.knots if edge <= position), default=min(self.knots))
        x, y = self.knots[first]
        found = np.interp(scores.double().numpy(), x, y)
        return torch.from_numpy(np.asarray(found))


def calibrate(
    scores: Float[Tensor, " n"],
    positions: Int[Tensor, " n"],
    clicked: Float[Tensor, " n"],
    *,
    edges: Sequence[int] = EDGES,
) -> Calibration:
    """Fit one isotonic regression for each group of positions that was shown.

    Raises:
        InputError: nothing was shown, or a position below 1.
    """
    from sklearn.isotonic import IsotonicRegression

    if not len(scores) or int(positions.min()) < 1:
        raise InputError(f"{len(scores)} scores to calibrate, at positions counted from 1: give some")
    groups = torch.bucketize(positions, torch.tensor(edges), right=True) - 1
    knots = {}
    for place, edge in enumerate(edges):
        inside = groups == place
        if bool(inside.any()):
            fit = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
            fit.fit(scores[inside].double().numpy(), clicked[inside].double().numpy())
            knots[edge] = (tuple(fit.X_thresholds_.tolist()), tuple(fit.y_thresholds_.tolist()))
    return Calibration(knots)


def order(probabilities: Float[Tensor, "queries n"], scores: Float[Tensor, "queries n"]) -> Int[Tensor, "queries n"]:
    """Places by probability, the highest first, and on a plateau by score; equal ones keep their order."""
    by_score = scores.argsort(dim=1, descending=True, stable=True)
    return by_score.gather(1, probabilities.gather(1, by_score).argsort(dim=1, descending=True, stable=True))
