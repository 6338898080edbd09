"""How the new rows relate to the text rows: spread, place and directions, and what noise would show."""

from functools import partial

import torch
from torch import Tensor

from gti_diag.measures import relation, spectra

from .group_measures import Measured, Summary

HALF = 0.5  # the principal subspace of text: as many axes as carry half of its variance,
MOST_AXES = 512  # … but no more: eigenvectors of 8,192 columns take memory and minutes
ISOTROPIC_DRAWS = 4  # 1 for more than 4,096 rows, where the draws hardly differ
BAND = 4.0  # standard deviations: noise leaves this band once in 16,000 times
CROWD = 0.01  # of the vocabulary's spread: rows that near are one point to the model


def relate(new: dict, text: dict, rows: Tensor, ours: Summary, theirs: Summary, axes: Tensor | None) -> None:
    """Add to the measures of a group of new rows those that compare it with the text group.

    `axes` are the `main_axes` of text, None where it does not vary.
    """
    found = Measured()
    for name in ("dispersion", "median_dispersion"):
        found.add(f"{name}_ratio", partial(_ratio, new[name], text[name]))
    spread, dim = text["dispersion"] or 0.0, rows.shape[1]
    found.add(
        "centroid_distance", lambda: relation.centroid_distance(ours.mean[None], mean=theirs.mean, dispersion=spread)
    )
    found.add(
        "norm_shift",
        lambda: relation.norm_shift(new["norm"]["mean"], mean=text["norm"]["mean"], std=text["norm"]["std"]),
    )
    found.add("text_subspace_energy", lambda: _energy(rows, _need(axes), ours))
    found.add("crowded_rows", lambda: _crowded(new, ours.nearest, CROWD * spread))
    found.add("text_angle", lambda: _mean_angle(ours, _need(axes)))
    found.add("mahalanobis", lambda: _mahalanobis(rows, theirs.moments) / dim**0.5)
    found.add("mean_cosine_to_text", lambda: relation.mean_cross_cosine(
        *(_directions(group.directions) for group in (ours, theirs))))  # fmt: skip
    new |= found.values
    new["undefined"] |= found.undefined


def main_axes(text: Summary) -> Tensor | None:
    """The fewest principal axes of the text rows that carry half of their variance (at most 512), dim × k.

    None where the text rows do not vary.
    """
    if not float(text.spectrum[0]) > 0:
        return None
    assert text.moments is not None, "the text group keeps its moments"
    return spectra.principal_axes(
        text.moments, min(MOST_AXES, spectra.components_for(text.spectrum, HALF)), centred=True
    )


def _need(axes: Tensor | None) -> Tensor:
    if axes is None:
        raise ValueError("the text rows do not vary: they have no main directions")
    return axes


def _directions(directions):
    if directions is None:
        raise ValueError("all rows of a group are zero: they have no directions")
    return directions


def _mean_angle(ours: Summary, axes: Tensor) -> float:
    """Mean principal angle in degrees between the leading axes of the new rows and as many of text, 16 at most."""
    if ours.axes is None:
        raise ValueError(ours.floor or "the new rows span too few directions to compare them with text's")
    k = min(ours.axes.shape[1], axes.shape[1])
    return float(torch.rad2deg(relation.principal_angles(axes[:, :k], ours.axes[:, :k]).mean()))


def _energy(rows: Tensor, axes: Tensor, ours: Summary) -> float:
    if ours.floor is not None:
        raise ValueError(ours.floor)
    return relation.subspace_energy(rows, axes, mean=ours.mean).share


def _crowded(new: dict, nearest: Tensor | None, radius: float) -> int:
    """How many rows have another within `radius`, zero rows included; scaled up where only some rows were searched."""
    if not radius > 0:
        raise ValueError("the text rows have no dispersion to compare with")
    zero = new["zero_rows"]
    share = 0.0 if nearest is None else float((nearest <= radius).double().mean())
    return round(share * (new["count"] - zero)) + (zero if zero > 1 else 0)


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


def _ratio(value: float | None, of: float | None) -> float:
    if value is None or not of:
        raise ValueError("the text rows have no dispersion to compare with")
    return value / of


def _mahalanobis(rows: Tensor, text: spectra.Moments | None) -> float:
    assert text is not None, "the text group keeps its moments"
    covariance = text.scatter(centred=True).div_(text.count)
    return float(
        relation.mahalanobis(rows, mean=text.mean, covariance=covariance, overwrite=True).square().mean().sqrt()
    )
