"""The geometry of new rows while they are grounded, for the step records."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from gti_train.model.matrices import matrices, trained_ids
from gti_train.model.sidecar import Sidecar

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)


def row_geometry(
    trained: Tensor,
    *,
    references: Mapping[str, Tensor] | None = None,
    counts: Sequence[int] | None = None,
    levels: Sequence[int] | None = None,
) -> Callable[[Tensor], dict[str, float]]:
    """A function from new rows to their geometry, for the step records.

    effective_rank, effective_rank_centred, dispersion_ratio (to the `trained` rows); with `references`, RSA about level
    means, `counts` held constant where known, over all new rows (`rsa`) and each level (`rsa_level_1`, …): with item means
    where they are, and under `rsa_codebooks`, … with the codebooks beside them. What is undefined for the rows is left out.
    """
    from gti_diag.measures.geometry import dispersion
    from gti_diag.measures.spectra import effective_rank, singular_values
    from gti_diag.training.agreement import Meanings

    spread = float(dispersion(trained.float()))
    meanings = Meanings(references or {}, counts, levels)

    def measure(rows: Tensor) -> dict[str, float]:
        rows = rows.detach().float().cpu()
        measures: dict[str, Callable[[], Any]] = {
            "effective_rank": lambda: effective_rank(singular_values(rows)),
            "effective_rank_centred": lambda: effective_rank(singular_values(rows, centred=True)),
            "dispersion_ratio": lambda: dispersion(rows) / spread,
        }
        measures |= meanings.agreements(rows)
        found = {}
        for name, quantity in measures.items():
            try:
                value = float(quantity())
            except ValueError:
                value = math.nan
            if math.isfinite(value):
                found[name] = value
            else:
                log.debug("%s is undefined for these rows", name)
        return found

    return measure


def geometry_of(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", sidecar: Sidecar, references: Mapping[str, Tensor]
) -> Callable[[Tensor], dict[str, float]]:
    """`row_geometry` against the trained rows that `model` has now."""
    matrix = matrices(model)["input"].data
    trained = trained_ids(tokenizer, sidecar.ids, rows=len(matrix)).to(matrix.device)
    return row_geometry(matrix[trained].cpu(), references=references, counts=sidecar.counts, levels=sidecar.levels)
