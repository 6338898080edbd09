import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gti_diag.measures.alignment import linear_cka, neighbourhood_overlap, procrustes_distance
from tests import references_rsa as literal

HSIC = {False: literal.hsic_biased, True: literal.hsic_debiased}
MEASURES = {
    "biased": lambda x, y: linear_cka(x, y, debiased=False),
    "debiased": lambda x, y: linear_cka(x, y, debiased=True),
    "procrustes": procrustes_distance,
    "neighbours": lambda x, y: neighbourhood_overlap(x, y, k=2),
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def rotation(dim: int, seed: int = 0) -> torch.Tensor:
    return torch.linalg.qr(normal(dim, dim, seed=seed)).Q


@pytest.mark.parametrize("debiased", [False, True])
@given(seed=st.integers(0, 10_000), tokens=st.integers(6, 14), offset=st.sampled_from([0.0, 3.0]))
@settings(max_examples=15, deadline=None)
def test_cka_equals_its_definition(debiased, seed, tokens, offset):
    x, y = normal(tokens, 4, seed=seed) + offset, normal(tokens, 7, seed=seed + 1)
    y[:, :4] += x
    assert linear_cka(x, y, debiased=debiased) == pytest.approx(literal.cka(x, y, HSIC[debiased]), abs=1e-8)


@pytest.mark.parametrize("name", MEASURES)
@given(seed=st.integers(0, 10_000), tokens=st.integers(8, 20))
@settings(max_examples=15, deadline=None)
def test_invariances_symmetry_and_bounds(name, seed, tokens):
    measure = MEASURES[name]
    x = normal(tokens, 5, seed=seed)
    y = normal(tokens, 3, seed=seed + 1) + x[:, :3]
    value = measure(x, y)
    assert {"biased": 0, "debiased": -math.inf, "procrustes": 0, "neighbours": 0}[name] <= value
    assert value <= {"procrustes": 2**0.5}.get(name, 1 if name != "debiased" else math.inf) + 1e-9
    assert measure(y, x) == pytest.approx(value, abs=1e-9)
    assert measure(x @ rotation(5, seed) * 3, y) == pytest.approx(value, abs=1e-9)
    if name != "neighbours":  # those are angles about the origin
        assert measure(x + 2, y - 1) == pytest.approx(value, abs=1e-9)
    order = torch.randperm(tokens, generator=seeded(seed))
    assert measure(x[order], y[order]) == pytest.approx(value, abs=1e-9)
    assert measure(x, x @ rotation(5, seed)) == pytest.approx(0 if name == "procrustes" else 1, abs=1e-7)


@pytest.mark.parametrize(
    "tokens,dims,biased", [(50, (200, 200), 0.80), (100, (1024, 32), 0.47), (256, (1024, 1024), 0.80)]
)
def test_cka_of_unrelated_spaces(tokens, dims, biased):
    """The biased form calls unrelated spaces alike, and so does a tool that zeroes the diagonals everywhere but in tr(KL)."""
    x, y = normal(tokens, dims[0]), normal(tokens, dims[1], seed=1)
    assert linear_cka(x, y, debiased=False) == pytest.approx(biased, abs=0.02)
    assert abs(linear_cka(x, y, debiased=True)) < 0.03
    assert _with_diagonal_kept(x, y) == pytest.approx(biased, abs=0.02)


def _with_diagonal_kept(x: torch.Tensor, y: torch.Tensor) -> float:
    def hsic(k, l):  # noqa: E741
        n, trace = len(k), (k * l).sum()
        k, l = k - k.diag().diag(), l - l.diag().diag()  # noqa: E741
        return trace + k.sum() * l.sum() / ((n - 1) * (n - 2)) - 2 * (k @ l).sum() / (n - 2)

    k, l = x @ x.T, y @ y.T  # noqa: E741
    return (hsic(k, l) / (hsic(k, k) * hsic(l, l)).sqrt()).item()


def test_procrustes_finds_the_best_rotation():
    """No rotation of the plane does better, and the best one does as well."""
    x, y = normal(9, 2), normal(9, 2, seed=1)
    a, b = ((rows - rows.mean(0)) / (rows - rows.mean(0)).norm() for rows in (x, y))
    found = []
    for degree in range(3600):
        c, s = math.cos(math.radians(degree / 10)), math.sin(math.radians(degree / 10))
        for turn in (torch.tensor([[c, -s], [s, c]]), torch.tensor([[c, s], [s, -c]])):
            found.append((a - b @ turn.double()).norm().item())
    assert procrustes_distance(x, y) == pytest.approx(min(found), abs=1e-5)
    assert procrustes_distance(x, y) <= min(found) + 1e-9
    padded = torch.cat([y, torch.zeros(9, 3, dtype=torch.float64)], dim=1)
    assert procrustes_distance(x, padded) == pytest.approx(procrustes_distance(x, y), abs=1e-12)


def test_procrustes_agrees_with_scipy():
    from scipy.spatial import procrustes

    x, y = normal(30, 6), normal(30, 6, seed=1)
    cosine = 1 - procrustes_distance(x, y) ** 2 / 2
    assert 1 - cosine**2 == pytest.approx(procrustes(x.numpy(), y.numpy())[2], abs=1e-12)  # it also fits the scale


@given(seed=st.integers(0, 10_000), tokens=st.integers(5, 12), k=st.integers(1, 3))
@settings(max_examples=20, deadline=None)
def test_neighbourhood_overlap_is_literal(seed, tokens, k):
    x = normal(tokens, 4, seed=seed) + 1
    y = normal(tokens, 3, seed=seed + 1) + x[:, :3]
    assert neighbourhood_overlap(x, y, k=k) == pytest.approx(literal.neighbourhood_overlap(x, y, k), abs=1e-12)


def test_neighbourhood_overlap_in_tiles_and_by_chance(monkeypatch):
    x, y = normal(300, 6), normal(300, 6, seed=1)
    whole = neighbourhood_overlap(x, y, k=10)
    monkeypatch.setattr("gti_diag.measures.alignment.TILE", 70)
    assert neighbourhood_overlap(x, y, k=10) == whole
    assert whole == pytest.approx(10 / 299, abs=0.01)


@pytest.mark.parametrize("name", MEASURES)
def test_refuses_what_has_no_answer(name):
    measure = MEASURES[name]
    x, y = normal(8, 3), normal(8, 4, seed=1)
    gone = y.clone()
    gone[5, 0] = float("inf")
    for args, said in (
        ((x, y[:7]), "x has 8 tokens and y has 7"),
        ((x[:1], y[:1]), "1 tokens are too few"),
        ((x, gone), "row 5 of y is not finite"),
        ((x[:1].expand(8, 3).clone(), y), "x: all rows are one point at float64 precision"),
        ((x, (1 + 1e-3 * y).bfloat16()), "y: all rows are one point at bfloat16 precision"),
    ):
        with pytest.raises(ValueError, match=said):
            measure(*args)


def test_refuses_ambiguous_neighbours_and_structure_that_chance_explains():
    x, y = normal(8, 3), normal(8, 4, seed=1)
    with pytest.raises(ValueError, match="neighbours 1 and 2 of row 0 of x are equally near"):
        neighbourhood_overlap(_pair(x), y, k=1)
    with pytest.raises(ValueError, match="k is 7"):
        neighbourhood_overlap(x, y, k=7)
    with pytest.raises(ValueError, match="row 0 of x is all zeros"):
        neighbourhood_overlap(x * torch.arange(8).double()[:, None], y, k=1)
    with pytest.raises(ValueError, match="no structure beyond"):
        linear_cka(torch.eye(8), y, debiased=True)


def _pair(x: torch.Tensor) -> torch.Tensor:
    """x with row 1 repeated as row 2, right beside row 0."""
    rows = x.clone()
    rows[1] = rows[2] = rows[0] + 0.01
    return rows
