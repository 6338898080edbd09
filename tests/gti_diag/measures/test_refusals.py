"""What no measure of the core computes with: NaN, infinity, no rows at all. A ValueError says so."""

from functools import partial

import pytest
import torch

from gti_diag.measures import alignment, dimension, geometry, hierarchy, jackknife, relation, rsa, spectra
from tests.conftest import vocabulary_like

COUNT = 20
OTHERS = vocabulary_like(COUNT, 6, seed=1)
LEVELS = torch.arange(COUNT) % 2
ITEMS = torch.stack([torch.arange(10).repeat(4) * 2, torch.arange(40) % 10 * 2 + 1], 1)
AXES = torch.eye(6)[:, :2]
MEAN = torch.zeros(6)


def seeded(measure, *others):
    return lambda rows: measure(rows, *others, generator=torch.Generator().manual_seed(0))


MEASURES = {
    "moments": spectra.moments,
    "singular_values": spectra.singular_values,
    "leading_axes": lambda rows: spectra.leading_axes([rows], 2),
    "centroid": geometry.centroid,
    "dispersion": geometry.dispersion,
    "median_dispersion": geometry.median_dispersion,
    "precision_floor": lambda rows: geometry.precision_floor(rows, rows.dtype),
    "directions": geometry.directions,
    "mean_cosine": geometry.mean_cosine,
    "cosine_matrix": geometry.cosine_matrix,
    "block_mean_cosine": lambda rows: geometry.block_mean_cosine(rows, LEVELS[: len(rows)]),
    "uniformity": dimension.uniformity,
    "two_nn": dimension.two_nn,
    "hubness": partial(dimension.hubness, k=3),
    "near_duplicates": lambda rows: dimension.near_duplicates(rows, rows.dtype),
    "nearest_others": partial(dimension.nearest_others, k=2),
    "centroid_distance": partial(relation.centroid_distance, mean=MEAN, dispersion=1.0),
    "subspace_energy": lambda rows: relation.subspace_energy(rows, AXES, mean=MEAN),
    "mahalanobis": partial(relation.mahalanobis, mean=MEAN, covariance=torch.eye(6)),
    "cross_cosine": lambda rows: relation.cross_cosine(rows, OTHERS),
    "mean_cross_cosine": lambda rows: relation.mean_cross_cosine(rows, OTHERS),
    "nearest": lambda rows: relation.nearest(rows, OTHERS, k=2),
    "drift": lambda rows: relation.drift(OTHERS[: len(rows)], rows),
    "level_contrast": lambda rows: hierarchy.level_contrast(rows, LEVELS[: len(rows)]),
    "level_silhouette": lambda rows: hierarchy.level_silhouette(rows, LEVELS[: len(rows)]),
    "prefix_contrast": lambda rows: hierarchy.prefix_contrast(rows, ITEMS, level=2),
    "cophenetic_correlation": lambda rows: hierarchy.cophenetic_correlation(rows, ITEMS, level=2),
    "linear_cka": lambda rows: alignment.linear_cka(rows, OTHERS[: len(rows)], debiased=True),
    "procrustes_distance": lambda rows: alignment.procrustes_distance(rows, OTHERS[: len(rows)]),
    "neighbourhood_overlap": lambda rows: alignment.neighbourhood_overlap(rows, OTHERS[: len(rows)], k=2),
    "pearson_rsa": lambda rows: rsa.pearson_rsa(rows, OTHERS[: len(rows)]),
    "spearman_rsa": lambda rows: rsa.spearman_rsa(rows, OTHERS[: len(rows)]),
    "rho_a": lambda rows: rsa.rho_a(rows, OTHERS[: len(rows)]),
    "rsa_interval": seeded(rsa.rsa_interval, OTHERS),
    "mantel_test": seeded(rsa.mantel_test, OTHERS),
    "jackknife_interval": lambda rows: jackknife.jackknife_interval(rows, OTHERS[: len(rows)]),
}
# An item names a row that is not there; no rows have no pairs and no levels.
ANSWERED = {"prefix_contrast", "cophenetic_correlation", "cross_cosine", "level_contrast"}


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_rows_that_are_not_finite(name, value):
    rows = vocabulary_like(COUNT, 6)
    rows[4, 1] = value
    if name == "median_dispersion" and value == torch.inf:
        return  # half of the rows may be anywhere: that is what it is for
    with pytest.raises(ValueError):
        MEASURES[name](rows)


@pytest.mark.parametrize("name", sorted(MEASURES.keys() - ANSWERED))
def test_no_rows(name):
    with pytest.raises(ValueError):
        MEASURES[name](torch.empty(0, 6))
