"""Every quantiser keeps its promises: codes add up, the same seed gives the same codes, and files give it back."""

import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tests.strategies  # noqa: F401  no deadlines
from gti_diag.errors import InputError
from gti_train.semantic_ids.clustering import residual_kmeans
from gti_train.semantic_ids.making import make_ids
from gti_train.semantic_ids.quantiser import Layers, Quantiser, load_quantiser, save_quantiser
from gti_train.semantic_ids.quantisers import QUANTISERS, fit
from gti_train.semantic_ids.sinkhorn import code_prices

from .cases import nested, spread

QUICK = {"rq-vae": {"epochs": 6, "warm_epochs": 2, "hidden": (16,), "dim": 6, "batch": 50, "every": 2}}
SIZES = (8, 4, 4)


def fitted(name, vectors, sizes=SIZES, seed=1):
    return fit(vectors, quantiser=name, sizes=sizes, seed=seed, **QUICK.get(name, {}))


def digests():
    weights = torch.arange(360)
    return [int(fitted(name, spread()).codes.flatten() @ weights) for name in ("residual-kmeans", "rq-vae")]


def encode_reference(quantiser, vectors):
    """c_l = argmin_k |r_l - q_k|² - p_k, one item and one code at a time."""
    codes = []
    for z in quantiser.inward(vectors.double()):
        chosen = []
        for level, book in enumerate(quantiser.books):
            prices = quantiser.prices[level] if quantiser.prices else [0.0] * len(book)
            costs = [float(((z - q) ** 2).sum()) - float(p) for q, p in zip(book, prices, strict=True)]
            chosen.append(costs.index(min(costs)))
            z = z - book[chosen[-1]]
        codes.append(chosen)
    return torch.tensor(codes)


@pytest.mark.parametrize("name", QUANTISERS)
def test_codes_are_those_of_the_formula(name):
    found = fitted(name, spread())
    assert found.codes.shape == (120, 3)
    assert [len(book) for book in found.quantiser.books] == list(SIZES)
    assert torch.equal(found.codes, encode_reference(found.quantiser, spread()))
    assert torch.equal(found.codes, found.quantiser.encode(spread()))


@pytest.mark.parametrize("name", QUANTISERS)
def test_order_of_rows_and_number_of_threads_change_nothing(name):
    vectors, before = spread(), torch.get_num_threads()
    order = torch.randperm(len(vectors), generator=torch.Generator().manual_seed(3))
    one = fitted(name, vectors)
    torch.manual_seed(99)  # the global generator is not read
    torch.set_num_threads(1)
    try:
        other = fitted(name, vectors[order])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(one.codes[order], other.codes)
    for left, right in zip(one.quantiser.books, other.quantiser.books, strict=True):
        assert torch.equal(left, right)
    parts = [one.quantiser.encode(part) for part in vectors.split(7)]
    assert torch.equal(torch.cat(parts), one.codes)
    assert not torch.equal(fitted(name, vectors, seed=2).codes, one.codes) or name == "fsq"  # fsq draws nothing


def test_another_process_with_more_threads_gives_the_same_codes():
    code = (
        "from tests.gti_train.semantic_ids.test_quantisers import digests\n"
        "import torch; print(torch.get_num_threads() > 1, digests())"
    )
    threads = os.environ | {"OMP_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", code], env=threads, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split(" ", 1) == [str((os.cpu_count() or 1) > 1), f"{digests()}\n"]


@pytest.mark.parametrize("name", QUANTISERS)
def test_files_give_the_quantiser_back(name, tmp_path):
    made = fitted(name, spread()).quantiser
    save_quantiser(made, tmp_path)
    back = load_quantiser(tmp_path)
    assert back.name == name
    assert torch.equal(back.encode(spread(seed=5)), made.encode(spread(seed=5)))
    codes = made.encode(spread())
    assert (back.decode(codes) is None) == (made.decode(codes) is None) == (name == "fsq")
    if name != "fsq":
        assert torch.equal(back.decode(codes), made.decode(codes))


def test_damaged_quantisers_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"quantiser\.safetensors: no such file"):
        load_quantiser(tmp_path)
    (tmp_path / "quantiser.safetensors").write_bytes(b"short")
    with pytest.raises(InputError, match="no quantiser of ours"):
        load_quantiser(tmp_path)


def test_residual_kmeans_finds_the_tree():
    found = residual_kmeans(nested(), sizes=(4, 6, 5))
    groups = found.codes[:, 0].reshape(4, 12)
    assert (groups == groups[:, :1]).all() and len(groups[:, 0].unique()) == 4
    residual = nested()
    for level, book in enumerate(found.quantiser.books):
        before = residual.square().sum()
        residual = residual - book[found.codes[:, level]]
        assert residual.square().sum() < before


@pytest.mark.parametrize("name", ["residual-kmeans", "balanced-kmeans", "product"])
def test_more_levels_leave_less(name):
    vectors = spread(rows=200)
    errors = [float(vectors.square().sum())]
    for levels in (1, 3):
        found = fit(vectors, quantiser=name, sizes=(6,) * levels)
        errors.append(float((found.quantiser.decode(found.codes) - vectors).square().sum()))
    assert errors[2] < errors[1] < errors[0]


def test_balanced_codes_are_used_more_evenly():
    vectors = torch.cat([spread(rows=180) * 0.05, spread(rows=20, seed=1) * 3])  # a dense middle and a thin rim
    most = {}
    for name in ("residual-kmeans", "balanced-kmeans"):
        counts = torch.bincount(fit(vectors, quantiser=name, sizes=(8,)).codes[:, 0], minlength=8)
        most[name] = int(counts.max())
    assert most["balanced-kmeans"] <= 50 < most["residual-kmeans"]  # 25 would be even


def test_product_codes_live_in_slices_of_their_own():
    books = fit(spread(), quantiser="product", sizes=(8, 8)).quantiser.books
    assert not (books[0].abs().sum(dim=0) * books[1].abs().sum(dim=0)).any()


def test_finite_scalar_codes_are_a_grid():
    (book,) = fit(spread(), quantiser="fsq", sizes=(24,)).quantiser.books
    assert len(torch.unique(book[:, 0])) == 8 and len(torch.unique(book[:, 1])) == 3
    with pytest.raises(InputError, match="22 codes cannot be cut"):
        fit(spread(), quantiser="fsq", sizes=(22,))
    with pytest.raises(InputError, match="4 are needed"):
        fit(spread(dim=3), quantiser="fsq", sizes=(64, 64))


def test_layers_are_an_mlp():
    x = torch.tensor([[1.0, -2.0]], dtype=torch.float64)
    layers = Layers((torch.eye(2), torch.tensor([[3.0, 5.0]])), (torch.zeros(2), torch.ones(1)), bounded=True)
    assert layers(x).item() == pytest.approx(torch.tanh(torch.tensor(3.0 + 1)).item())
    assert torch.equal(Layers()(x), x)


@settings(max_examples=8)
@given(st.integers(0, 10**6), st.sampled_from([1e-6, 1.0, 1e6]))
def test_prices_even_out_the_use_of_codes_at_any_scale(seed, scale):
    generator = torch.Generator().manual_seed(seed)
    points, books = torch.randn(90, 3, generator=generator).double(), torch.randn(6, 3, generator=generator).double()
    costs = torch.cdist(points, books).square() * scale
    prices = code_prices(costs, epsilon=0.003, rounds=100)
    assert torch.isfinite(prices).all() and abs(float(prices.mean())) < 1e-9 * scale * 100
    counts = torch.bincount((costs - prices).argmin(dim=1), minlength=6)
    assert int(counts.max()) <= 15 + 6  # 15 is even; rounding to whole items leaves a few


def test_linear_sinkhorn_would_fail_where_prices_do_not():
    costs = torch.rand(20, 4, generator=torch.Generator().manual_seed(0)).double()
    kernel = torch.exp(-(costs.float() * 1000) / 0.003)  # what the linear form computes with
    assert bool((kernel.sum(dim=1) == 0).any())
    assert torch.isfinite(code_prices(costs * 1000)).all()


def test_equal_costs_have_no_prices_and_infinite_ones_are_refused():
    assert code_prices(torch.ones(5, 3)).tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="finite"):
        code_prices(torch.full((2, 2), float("inf")))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sizes": ()}, "1…26 levels"),
        ({"sizes": (4, 1)}, "2 codes or more"),
        ({"sizes": (60,)}, "level 1 has 48 distinct vectors for 60 codes"),
        ({"quantiser": "poem"}, "--quantiser 'poem' is unknown: use one of residual-kmeans"),
        ({"quantiser": "product", "sizes": (2,) * 9}, "8 dimensions for 9 levels"),
        ({"quantiser": "product", "sizes": (60,)}, "level 1 has 48 distinct"),
    ],
)
def test_impossible_requests_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        fit(nested(), **({"sizes": (4,)} | change))


def test_ids_need_a_vector_each_and_a_known_way_to_be_unique():
    found = residual_kmeans(nested(), sizes=(4,))
    with pytest.raises(ValueError, match="1 item ids for 48"):
        make_ids(["one"], nested(), found)
    with pytest.raises(InputError, match="--unique 'perhaps' is unknown"):
        make_ids([str(n) for n in range(48)], nested(), found, unique="perhaps")


def test_a_quantiser_without_rows_has_no_codes():
    quantiser = Quantiser("x", (torch.zeros(2, 3), torch.zeros(2, 3)))
    assert quantiser.encode(torch.zeros(0, 3)).shape == (0, 2)
