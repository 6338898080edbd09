"""Where a token's row lies among all rows: what geometry lets one expect of the model, before it is asked."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gti_diag.analysis.scan_findings import NEAREST
from gti_train.model.matrices import matrices

if TYPE_CHECKING:
    from transformers import PreTrainedModel

EXPECTED = ("distinct", "crowded", "dead")  # what the row lets one expect of its token


@dataclass(frozen=True)
class Place:
    """The token with the nearest other row and the nearest of the same level (by cosine); how far both rows are, as a share of the
    spread of all rows; the row's norm over the median norm."""

    nearest: int
    sibling: int | None
    distance: float
    sibling_distance: float | None
    norm: float

    def geometry(self) -> dict[str, Any]:
        """For a record. `crowded`: within 1 % of the spread of another row, as a scan tells clusters; `dead`: zero, or not finite."""
        dead = not math.isfinite(self.norm) or self.norm == 0
        expected = "dead" if dead else "crowded" if self.distance <= NEAREST else "distinct"
        numbers = {"norm": self.norm, "nearest": self.distance, "sibling": self.sibling_distance}
        return {"expected": expected, **{name: _finite(value) for name, value in numbers.items()}}


class Surroundings:
    """The input rows of a model, and how to find a token's place among them."""

    def __init__(self, model: "PreTrainedModel") -> None:
        self.rows: Tensor = matrices(model)["input"].data
        self.norms = torch.linalg.vector_norm(self.rows, dim=1, dtype=torch.float32)
        alive = torch.isfinite(self.norms) & (self.norms > 0)
        sound = self.rows[alive].float()
        self.typical = float(self.norms[alive].median())
        self.spread = float((sound - sound.mean(0)).square().sum(1).mean().sqrt())
        self.units = torch.nn.functional.normalize(torch.where(alive[:, None], self.rows.float(), 0.0), dim=1)

    def place(self, id: int, siblings: Sequence[int]) -> Place:
        """Of the token `id`; `siblings` are the tokens of its level (itself included)."""
        cosines = self.units @ self.units[id]
        cosines[id] = -torch.inf
        others = torch.tensor([other for other in siblings if other != id], dtype=torch.long, device=self.rows.device)
        near, sibling = int(cosines.argmax()), int(others[cosines[others].argmax()]) if len(others) else None
        apart = [None if other is None else self._apart(id, other) for other in (near, sibling)]
        return Place(near, sibling, apart[0] or 0.0, apart[1], float(self.norms[id]) / self.typical)

    def _apart(self, one: int, other: int) -> float:
        """Distance of two rows as a share of the spread of all."""
        return float(torch.linalg.vector_norm(self.rows[one].double() - self.rows[other].double())) / self.spread


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
