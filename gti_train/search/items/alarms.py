"""Have item tokens collapsed? The measures of gti_diag while they train, and whether the ranker reads them at all."""

import logging
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from gti_diag.analysis.thresholds import THRESHOLDS
from gti_train.grounding.geometry import row_geometry

log = logging.getLogger(__name__)
REPEATED = 0.99  # mean cosine of an item's slots, about the mean of all item tokens
UNREAD = 0.9  # of NDCG that shuffled item tokens leave


def item_geometry(
    vectors: Float[Tensor, "documents slots dim"], vocabulary: Float[Tensor, "tokens dim"]
) -> dict[str, float]:
    """Spread against `vocabulary`, effective ranks, and with several slots how alike those of one document are.

    slot_repetition: the mean cosine of two slots of a document, about the mean of all item tokens; 1: each says the same.
    """
    flat = vectors.float().flatten(0, 1)
    values = row_geometry(vocabulary)(flat)
    if vectors.shape[1] > 1:
        rows = vectors.float() - flat.mean(0)
        units = rows / torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
        cosines = units @ units.mT
        pairs = torch.triu_indices(cosines.shape[1], cosines.shape[1], 1)
        repetition = cosines[:, pairs[0], pairs[1]].mean()
        values |= {"slot_repetition": float(repetition)} if bool(repetition.isfinite()) else {}
    return values


def alarms(values: Mapping[str, float]) -> list[str]:
    """What is wrong with item tokens of this geometry and this NDCG (`ndcg`, and `ndcg_shuffled` with other items' tokens)."""
    found = []
    least = THRESHOLDS["dispersion_ratio"].value
    if values.get("dispersion_ratio", 1.0) < least:
        found.append(
            f"item tokens are near enough one point: their spread is {values['dispersion_ratio']:.2g} of the vocabulary's "
            f"(below {least})"
        )
    if values.get("slot_repetition", 0.0) > REPEATED:
        found.append(f"the slots of an item repeat each other: their mean cosine is {values['slot_repetition']:.3f}")
    if values.get("ndcg_shuffled", 0.0) > UNREAD * values.get("ndcg", float("inf")):
        found.append(
            f"the ranker does not read item tokens: with those of other items NDCG is {values['ndcg_shuffled']:.3f}, "
            f"with their own {values['ndcg']:.3f}"
        )
    return found


def warn(values: Mapping[str, float], *, step: int) -> None:
    """Log every alarm of one look."""
    for text in alarms(values):
        log.warning("step %d: %s", step, text)
