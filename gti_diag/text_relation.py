"""How the new rows relate to the text rows: spread, place and directions, nearest words, and what noise would show."""

from functools import partial

import torch
from torch import Tensor

from . import relation, spectra
from .exhibits import evenly
from .group_measures import Measured
from .group_rows import GroupRows

HALF = 0.5  # the principal subspace of text: as many axes as carry half of its variance
ISOTROPIC_DRAWS = 4  # 1 for more than 4,096 rows, where the draws hardly differ
BAND = 4.0  # standard deviations: noise leaves this band once in 16,000 times
NEIGHBOURS = 5
NEIGHBOUR_TOKENS = 1024  # the neighbours of at most this many new tokens are listed


def relate(new: dict, text: dict, held: dict[str, GroupRows], moments: dict[str, spectra.Moments]) -> None:
    """Add to the measures of the new group those that compare it with the text group."""
    found = Measured()
    for name in ("dispersion", "median_dispersion"):
        found.add(f"{name}_ratio", partial(_ratio, new[name], text[name]))
    rows, dim = held["new"].rows, held["new"].rows.shape[1]
    spread = text["dispersion"] or 0.0
    found.add(
        "centroid_distance", lambda: relation.centroid_distance(rows, mean=moments["text"].mean, dispersion=spread)
    )
    found.add("norm_shift", lambda: _norm_shift(new["norm"], text["norm"]))
    found.add("text_subspace_energy", lambda: relation.subspace_energy(
        rows, main_axes(moments["text"]), mean=moments["new"].mean).share)  # fmt: skip
    found.add("mahalanobis", lambda: _mahalanobis(rows, moments["text"]) / dim**0.5)
    found.add("mean_cosine_to_text", lambda: relation.mean_cross_cosine(
        *(group.rows[group.nonzero(torch.arange(len(group.ids))).to(rows.device)] for group in (held["new"], held["text"]))
    ))  # fmt: skip
    new |= found.values
    new["undefined"] |= found.undefined


def main_axes(text: spectra.Moments) -> Tensor:
    """The fewest principal axes of the text rows that carry half of their variance, dim × k.

    Raises:
        ValueError: the text rows do not vary.
    """
    s = spectra.singular_values(text, centred=True)
    return spectra.principal_axes(text, spectra.components_for(s, HALF), centred=True)


def isotropic_null(count: int, axes: Tensor, *, generator: torch.Generator) -> dict:
    """What `count` rows of independent Gaussian noise would show: centred effective rank, and energy within `axes`.

    The energy share is k/d with variance 2k(d − k) / (n d²(d + 2)), that of the mean of n Beta(k/2, (d − k)/2) draws.
    """
    dim, k = axes.shape
    ranks = []
    draws = ISOTROPIC_DRAWS if count <= 4096 else 1
    for _ in range(draws):
        rows = torch.randn(count, dim, generator=generator)
        ranks.append(spectra.effective_rank(spectra.singular_values(rows, centred=True)))
    chance = k / dim
    margin = BAND * (2 * k * (dim - k) / (count * dim**2 * (dim + 2))) ** 0.5
    return {
        "draws": draws,
        "axes": k,
        "effective_rank_centred": {"low": min(ranks), "high": max(ranks)},
        "text_subspace_energy": {"low": chance - margin, "chance": chance, "high": chance + margin},
    }


def neighbours(text: GroupRows, new: GroupRows) -> list[dict]:
    """The nearest text tokens (by cosine) of up to 1,024 new tokens, evenly chosen; zero rows have none."""
    picked = new.nonzero(evenly(len(new.ids), NEIGHBOUR_TOKENS))
    k = min(NEIGHBOURS, len(text.nonzero(torch.arange(len(text.ids)))))
    if not len(picked) or not k:
        return []
    found = relation.nearest(new.rows[picked.to(new.rows.device)], text.rows, k=k)
    cosines, places = found.cosine.cpu(), found.index.cpu()
    entries = []
    for row, place in enumerate(picked.tolist()):
        near = zip(text.named(places[row]), text.ids[places[row]].tolist(), cosines[row].tolist(), strict=True)
        entries.append(
            {
                "token": new.tokens[place],
                "id": int(new.ids[place]),
                "level": None if new.levels is None else int(new.levels[place]),
                "nearest": [{"token": t, "id": i, "cosine": round(c, 4)} for t, i, c in near],
            }
        )
    return entries


def _ratio(value: float | None, of: float | None) -> float:
    if value is None or not of:
        raise ValueError("the text rows have no dispersion to compare with")
    return value / of


def _norm_shift(new: dict, text: dict) -> float:
    if text["std"] == 0:
        raise ValueError("the text norms are all equal: no unit to measure a shift in")
    return (new["mean"] - text["mean"]) / text["std"]


def _mahalanobis(rows: Tensor, text: spectra.Moments) -> float:
    covariance = text.scatter(centred=True) / text.count
    return float(relation.mahalanobis(rows, mean=text.mean, covariance=covariance).square().mean().sqrt())
