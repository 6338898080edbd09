"""The geometry of new rows while they are grounded, for the step records."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gti_train.model.matrices import matrices, trained_ids
from gti_train.model.sidecar import Sidecar

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)


MOST_TOKENS = 1024  # evenly chosen, of which agreement with a reference is taken: its cost is their square
PREFERRED = ("item_means", "codebooks")  # what a code means is its items


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

    spread = float(dispersion(trained.float()))
    ordered = sorted((references or {}).items(), key=lambda entry: PREFERRED.index(entry[0]))

    def measure(rows: Tensor) -> dict[str, float]:
        rows = rows.detach().float().cpu()
        measures: dict[str, Callable[[], Any]] = {
            "effective_rank": lambda: effective_rank(singular_values(rows)),
            "effective_rank_centred": lambda: effective_rank(singular_values(rows, centred=True)),
            "dispersion_ratio": lambda: dispersion(rows) / spread,
        }
        for place, (name, vectors) in enumerate(ordered):
            measures |= _agreements(rows, vectors, "rsa" if not place else f"rsa_{name}", counts, levels)
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


def _agreements(
    rows: Tensor, vectors: Tensor, name: str, counts: Sequence[int] | None, levels: Sequence[int] | None
) -> dict[str, Callable[[], float]]:
    """RSA over all tokens, and over each level, of those that have a vector."""
    from gti_diag.measures.partial import agreement
    from gti_diag.measures.tiles import evenly

    known = (vectors != 0).any(1).nonzero()[:, 0]
    known = known[evenly(len(known), MOST_TOKENS)]
    carried = None if counts is None else torch.tensor(counts)
    numbers = torch.tensor(list(levels or [1] * len(rows)))

    def value(places: Tensor) -> float:
        held = None if carried is None else carried[places]
        return agreement(rows[places], vectors[places], counts=held, levels=numbers[places]).value

    found: dict[str, Callable[[], float]] = {name: partial(value, known)}
    for level in numbers.unique().tolist() if levels else ():
        found[f"{name}_level_{level}"] = partial(value, known[numbers[known] == level])
    return found


def geometry_of(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", sidecar: Sidecar, references: Mapping[str, Tensor]
) -> Callable[[Tensor], dict[str, float]]:
    """`row_geometry` against the trained rows that `model` has now."""
    matrix = matrices(model)["input"].data
    trained = trained_ids(tokenizer, sidecar.ids, rows=len(matrix)).to(matrix.device)
    return row_geometry(matrix[trained].cpu(), references=references, counts=sidecar.counts, levels=sidecar.levels)
