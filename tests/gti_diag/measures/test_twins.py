"""Clusters of nearly equal rows: against single linkage over all pairs."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gti_diag.measures import geometry, twins


def planted(sizes, *, alone=400, dim=96, noise=1e-3, seed=0):
    """Rows far apart, and clusters of rows near one of them."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(alone, dim, generator=generator, dtype=torch.float64)
    for start, size in enumerate(sizes):
        rows = torch.cat([rows, rows[start] + noise * torch.randn(size - 1, dim, generator=generator)])
    return rows


def found(rows, reach):
    sketch = rows @ twins.sketch_lines(rows.shape[1])
    distance = lambda a, b: torch.linalg.vector_norm(rows[a] - rows[b], dim=1)  # noqa: E731
    return twins.clusters(sketch, torch.full((len(rows),), reach, dtype=torch.float64), distance)


def literal(rows, reach):
    """Single linkage: the label of each row is the least row that a chain of links leads to."""
    labels = list(range(len(rows)))
    gaps = torch.cdist(rows, rows)
    changed = True
    while changed:
        changed = False
        for i, j in (gaps <= reach).nonzero().tolist():
            low = min(labels[i], labels[j])
            if labels[i] != low or labels[j] != low:
                labels[i] = labels[j] = low
                changed = True
    return labels


@settings(max_examples=10)
@given(st.lists(st.integers(2, 30), max_size=4), st.integers(0, 100))
def test_clusters_are_single_linkage(sizes, seed):
    rows = planted(sizes, alone=60, dim=40, seed=seed)
    assert found(rows, 0.05).tolist() == literal(rows, 0.05)


def test_large_clusters_stay_whole():
    labels = found(planted([2, 20, 900]), 0.05)
    assert sorted(labels.bincount()[labels.bincount() > 1].tolist()) == [2, 20, 900]


def test_links_are_transitive():
    step = torch.zeros(1, 8, dtype=torch.float64)
    step[0, 0] = 1.0
    chain = torch.arange(30, dtype=torch.float64)[:, None] * step
    assert found(chain, 1.0).tolist() == [0] * 30 and found(chain, 0.9).tolist() == list(range(30))


def test_the_sketch_keeps_lengths_on_average_and_few_dimensions_exactly():
    rows = torch.randn(2000, 300, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ratio = torch.linalg.vector_norm(rows @ twins.sketch_lines(300), dim=1) / torch.linalg.vector_norm(rows, dim=1)
    assert float(ratio.square().mean()) == pytest.approx(1, abs=0.02) and float(ratio.max()) < twins.MARGIN
    few = rows[:, :10]  # as many lines as dimensions
    assert torch.allclose(
        torch.linalg.vector_norm(few @ twins.sketch_lines(10), dim=1), torch.linalg.vector_norm(few, dim=1)
    )


def test_the_spread_is_the_dispersion_of_the_rows():
    rows = torch.randn(2000, 300, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) + 5
    spread = twins.sketch_spread(rows @ twins.sketch_lines(300))
    assert spread == pytest.approx(geometry.dispersion(rows), rel=0.02)


def test_what_has_no_clusters_is_refused():
    with pytest.raises(ValueError, match="2 rows and 3 reaches"):
        twins.clusters(torch.zeros(2, 4), torch.zeros(3), lambda a, b: a.double())
    with pytest.raises(ValueError, match="0 rows"):
        twins.sketch_spread(torch.zeros(0, 4))
