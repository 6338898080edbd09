"""The geometry of new rows while they are grounded, for the step records."""

import logging
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gti_train.model.matrices import matrices, trained_ids
from gti_train.model.sidecar import Sidecar

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)


def row_geometry(
    trained: Tensor, *, codebooks: Tensor | None = None, levels: Sequence[int] | None = None
) -> Callable[[Tensor], dict[str, float]]:
    """A function from new rows to their geometry, for the step records.

    effective_rank, effective_rank_centred, dispersion_ratio (to the `trained` rows); with `codebooks`, Pearson
    RSA over all new rows and within each level. A quantity that is undefined for the rows is left out.
    """
    from gti_diag.measures.geometry import dispersion
    from gti_diag.measures.rsa import pearson_rsa
    from gti_diag.measures.spectra import effective_rank, singular_values

    spread = float(dispersion(trained.float()))

    def measure(rows: Tensor) -> dict[str, float]:
        rows = rows.detach().float().cpu()
        measures: dict[str, Callable[[], Any]] = {
            "effective_rank": lambda: effective_rank(singular_values(rows)),
            "effective_rank_centred": lambda: effective_rank(singular_values(rows, centred=True)),
            "dispersion_ratio": lambda: dispersion(rows) / spread,
        }
        if codebooks is not None:
            measures["rsa"] = lambda: pearson_rsa(codebooks, rows)
            numbers = torch.tensor(list(levels or ()))
            for level in numbers.unique().tolist():
                chosen = numbers == level
                measures[f"rsa_level_{level}"] = partial(pearson_rsa, codebooks[chosen], rows[chosen])
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
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", sidecar: Sidecar, codebooks: Tensor | None
) -> Callable[[Tensor], dict[str, float]]:
    """`row_geometry` against the trained rows that `model` has now."""
    matrix = matrices(model)["input"].data
    trained = trained_ids(tokenizer, sidecar.ids, rows=len(matrix)).to(matrix.device)
    return row_geometry(matrix[trained].cpu(), codebooks=codebooks, levels=sidecar.levels)
