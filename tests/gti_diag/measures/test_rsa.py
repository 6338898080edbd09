import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.nn.functional import one_hot

from gti_diag.measures import rsa, spearman, streamed_ranks
from gti_diag.measures.alignment import Space
from gti_diag.measures.permute import shuffles
from gti_diag.measures.rsa import mantel_test, pearson_rsa, rho_a, rsa_interval, spearman_rsa
from tests import references_rsa as literal

LITERAL = {pearson_rsa: literal.pearson, spearman_rsa: literal.spearman, rho_a: literal.rho_a}
STATISTICS = pytest.mark.parametrize("statistic", LITERAL)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def related(tokens: int, seed: int = 0, *, shared: float = 1.0, offset: float = 0.0, dims=(12, 5)):
    """Two spaces of which the second keeps some coordinates of the first, under noise."""
    generator = seeded(seed)
    x = torch.randn(tokens, dims[0], generator=generator, dtype=torch.float64)
    y = shared * x[:, : dims[1]] + torch.randn(tokens, dims[1], generator=generator, dtype=torch.float64)
    return x + offset, y


def expected(statistic, x, y) -> float:
    return LITERAL[statistic](literal.dissimilarities(x), literal.dissimilarities(y))


def lattice(tokens: int):
    """Rows of small whole numbers: many ties among their cosines."""
    row = st.lists(st.integers(-2, 2), min_size=3, max_size=3).filter(any)
    return st.lists(row, min_size=tokens, max_size=tokens).map(lambda rows: torch.tensor(rows, dtype=torch.float64))


def varied(rows) -> bool:
    found = literal.dissimilarities(rows)
    return max(found) - min(found) > 1e-9


@STATISTICS
@given(data=st.data(), tokens=st.integers(3, 7))
@settings(max_examples=40, deadline=None)
def test_statistics_equal_their_definitions_with_ties(statistic, data, tokens):
    x, y = data.draw(lattice(tokens)), data.draw(lattice(tokens))
    assume(varied(x) and varied(y))
    assert statistic(x, y) == pytest.approx(expected(statistic, x, y), abs=1e-9)


@STATISTICS
@given(seed=st.integers(0, 10_000), tokens=st.integers(4, 24))
@settings(max_examples=25, deadline=None)
def test_statistics_see_angles_only(statistic, seed, tokens):
    x, y = related(tokens, seed)
    value = statistic(x, y)
    assert -1 - 1e-12 <= value <= 1 + 1e-12
    assert value == pytest.approx(expected(statistic, x, y), abs=1e-9)
    assert statistic(y, x) == pytest.approx(value, abs=1e-9)
    assert statistic(x, x) == pytest.approx(1, abs=1e-9)
    rotation = torch.linalg.qr(torch.randn(12, 12, generator=seeded(seed), dtype=torch.float64)).Q
    lengths = torch.rand(tokens, 1, generator=seeded(seed), dtype=torch.float64) + 0.1
    assert statistic(x @ rotation * lengths, y * 1e-3) == pytest.approx(value, abs=1e-9)
    order = torch.randperm(tokens, generator=seeded(seed))
    assert statistic(x[order], y[order]) == pytest.approx(value, abs=1e-9)


def test_ties_pinned():
    x, y = [1, 1, 2, 3, 3, 3, 4], [2, 1, 2, 5, 4, 5, 6]
    assert literal.spearman(x, y) == pytest.approx(0.9432422182837987, abs=1e-15)
    assert literal.rho_a(x, y) == pytest.approx(0.8839285714285714, abs=1e-15)
    textbook = 1 - 6 * sum((r - s) ** 2 for r, s in zip(literal.midranks(x), literal.midranks(y), strict=True)) / (
        343 - 7
    )
    assert textbook == pytest.approx(0.9464285714, abs=1e-9)  # what the formula without tie correction says


def test_categories_are_ties_for_both_rank_statistics():
    """Prefixes of codes as a reference: nearly all ties, equal only up to rounding of the products behind them."""
    codes = torch.cartesian_prod(torch.arange(3), torch.arange(4))
    reference = torch.cat([one_hot(codes[:, 0]), one_hot(codes[:, 0] * 4 + codes[:, 1])], dim=1).double()
    reference = reference @ torch.linalg.qr(torch.randn(15, 15, generator=seeded(), dtype=torch.float64)).Q
    x = torch.randn(12, 6, generator=seeded(1), dtype=torch.float64)
    for statistic in (spearman_rsa, rho_a):
        assert statistic(x, reference) == pytest.approx(expected(statistic, x, reference), abs=1e-12)
    assert abs(rho_a(x, reference)) < abs(spearman_rsa(x, reference))


@pytest.mark.parametrize("common", [0.0, 1.0, 1e3, 1e5])
def test_a_common_component_costs_no_digits(common):
    """Rows about a huge mean: 1 - cos is 1e-10 and less, which float32 cosines cannot see and float64 ones barely can."""
    x, y = related(40, offset=common)
    centre = torch.full((12,), common, dtype=torch.float64)
    tangent = (x - centre) - (x - centre) @ centre[:, None] * centre / (centre @ centre) if common else x
    if common >= 1e3:  # angles about so distant an origin are distances in the plane across
        distances = torch.pdist(tangent).square()
        reference = literal.pearson(distances.tolist(), literal.dissimilarities(y))
        assert pearson_rsa(x, y) == pytest.approx(reference, abs=20 / common)
    else:
        assert pearson_rsa(x, y) == pytest.approx(expected(pearson_rsa, x, y), abs=1e-9)


def test_float32_rows_drawn_about_their_mean_are_measured_not_guessed():
    """The default resize of transformers: mean + covariance / 1e9. The noise is real in float32 and gone in bfloat16."""
    old = torch.randn(400, 16, generator=seeded()) * 0.02 + torch.linspace(0.2, 0.4, 16)
    noise = torch.randn(60, 16, generator=seeded(1)) * 0.02 * 1e-9**0.5
    rows = old.mean(0) + noise
    y = noise[:, :4].double()
    exact = expected(pearson_rsa, rows.double(), y)
    assert pearson_rsa(rows, y) == pytest.approx(exact, abs=1e-4)  # the literal loses digits, not we
    assert spearman_rsa(rows, y) > 0.1
    for statistic in LITERAL:
        with pytest.raises(ValueError, match="x: all rows are one point at bfloat16 precision"):
            statistic(rows.bfloat16(), y)
        with pytest.raises(ValueError, match="y: all rows are one point at float32 precision"):
            statistic(y, rows.mean(0).expand(60, 16).clone())


@STATISTICS
def test_statistics_refuse_what_has_no_answer(statistic):
    x, y = related(6)
    zero, gone = x.clone(), x.clone()
    zero[4], gone[2, 1] = 0, float("nan")
    for args, said in (
        ((zero, y), "row 4 of x is all zeros"),
        ((y, gone), "row 2 of y is not finite"),
        ((x, torch.eye(6)), "all pairs of y are equally dissimilar"),
        ((x, y[:5]), "x has 6 tokens and y has 5"),
        ((x[:2], y[:2]), "2 tokens are too few"),
    ):
        with pytest.raises(ValueError, match=said):
            statistic(*args)


def test_rows_are_left_as_they_were():
    x, y = related(10)
    before = x.clone(), y.clone()
    for statistic in LITERAL:
        statistic(x, y)
        rsa_interval(x, y, statistic=statistic, samples=3, generator=seeded())
        mantel_test(x, y, statistic=statistic, permutations=3, generator=seeded())
    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])


@STATISTICS
def test_agrees_with_scipy_and_rsatoolbox(statistic):
    from rsatoolbox.data import Dataset
    from rsatoolbox.rdm import calc_rdm, compare
    from scipy.spatial.distance import pdist
    from scipy.stats import pearsonr, spearmanr

    x, y = related(60, offset=2.0)
    value = statistic(x, y)
    if statistic is not rho_a:
        correlation = {pearson_rsa: pearsonr, spearman_rsa: spearmanr}[statistic]
        assert value == pytest.approx(correlation(pdist(x.numpy(), "cosine"), pdist(y.numpy(), "cosine"))[0], abs=1e-12)
    x, y = (
        x - x.mean(1, keepdim=True),
        y - y.mean(1, keepdim=True),
    )  # its correlation distance is our cosine of such rows
    rdms = [calc_rdm(Dataset(rows.numpy()), method="correlation") for rows in (x, y)]
    method = {pearson_rsa: "corr", spearman_rsa: "spearman", rho_a: "rho-a"}[statistic]
    assert statistic(x, y) == pytest.approx(compare(*rdms, method=method).item(), abs=1e-9)


@pytest.mark.parametrize("tokens,dims", [(700, (40, 8)), (900, (6, 30))])
def test_streamed_ranks_equal_exact_ones_to_a_bin(monkeypatch, tokens, dims):
    monkeypatch.setattr(streamed_ranks, "COLUMNS", 384)  # several tiles in a row, the last one narrower
    x, y = related(tokens, dims=(max(dims), min(dims)))
    x, y = (x, y) if dims[0] > dims[1] else (y, x)
    r, s = Space(x).comparable, Space(y).comparable
    exact = spearman.rank_sums(r, s, exact=True)
    streamed = streamed_ranks.streamed_sums(streamed_ranks.binned(r), streamed_ranks.binned(s))
    assert streamed.pairs == exact.pairs
    for found, wanted in zip(streamed[1:3], exact[1:3], strict=True):
        assert found == pytest.approx(wanted, rel=1e-7)
    correlations = [sums.product / (sums.first * sums.second) ** 0.5 for sums in (streamed, exact)]
    assert correlations[0] == pytest.approx(correlations[1], abs=5e-7)
    monkeypatch.setattr(spearman, "EXACT_PAIRS", 1000)
    assert spearman_rsa(x, y) == pytest.approx(correlations[0], abs=1e-12)
    assert spearman_rsa(x, y, exact=True) == pytest.approx(correlations[1], abs=1e-12)


def tied_spaces(tokens: int) -> dict[str, torch.Tensor]:
    x = related(tokens)[0]
    kinds = torch.arange(tokens) % 40
    pair = torch.randn(tokens, 300, generator=seeded(1), dtype=torch.float64)
    pair[7] = pair[tokens - 3]
    return {
        "categories": one_hot(kinds).double(),
        "prefix depth": torch.cat([one_hot(kinds % 5), one_hot(kinds)], 1).double(),
        "repeated rows": x[:16].repeat(tokens // 16 + 1, 1)[:tokens],
        "tight clusters": x[:4].repeat(tokens // 4 + 1, 1)[:tokens] + 1e-3 * x,
        "one pair of equal rows among wide ones": pair,
    }


@pytest.mark.parametrize("case", tied_spaces(16))
def test_ties_and_clusters_are_streamed_as_exactly_as_they_are_sorted(monkeypatch, case):
    rows, y = tied_spaces(1300)[case], related(1300)[1]
    exact = [spearman_rsa(rows, other, exact=True) for other in (y, rows.flip(0))]
    monkeypatch.setattr(spearman, "EXACT_PAIRS", 1000)
    monkeypatch.setattr(spearman, "centred_ranks", None)  # no list of pairs is made
    ties_only = case in ("categories", "prefix depth", "repeated rows")
    for other, wanted, close in zip((y, rows.flip(0)), exact, (1e-6, 1e-10 if ties_only else 1e-6), strict=True):
        assert spearman_rsa(rows, other) == pytest.approx(wanted, abs=close)
        assert spearman_rsa(other, rows) == pytest.approx(wanted, abs=close)


def test_pairs_that_are_all_alike_are_refused_in_a_stream_too(monkeypatch):
    monkeypatch.setattr(spearman, "EXACT_PAIRS", 100)
    with pytest.raises(ValueError, match="all pairs of x are equally dissimilar"):
        spearman_rsa(torch.eye(60, dtype=torch.float64), related(60)[1])
    with pytest.raises(ValueError, match="all pairs of the reference are equally dissimilar"):
        spearman_rsa(related(60)[1], Space(torch.eye(60, dtype=torch.float64), "the reference"))


def test_a_stride_through_the_tokens_hides_no_cluster(monkeypatch):
    """Every sixth token is of one cluster: evenly spaced tokens would see that cluster only, or never."""
    monkeypatch.setattr(spearman, "EXACT_PAIRS", 1000)
    x, y = related(2049)
    x[::2] = x[0] + 1e-3 * x[::2]
    assert spearman_rsa(x, y) == pytest.approx(spearman_rsa(x, y, exact=True), abs=1e-6)


# --- Mantel -----------------------------------------------------------------------------------------------------------


@STATISTICS
def test_mantel_draws_from_the_permutation_distribution(statistic):
    x, y = related(5, 3)
    null = [statistic(x, y[list(order)]) for order in literal.all_orders([0] * 5)]
    observed = statistic(x, y)
    share = sum(value >= observed - 1e-12 for value in null) / 120
    found = mantel_test(x, y, statistic=statistic, permutations=4000, generator=seeded())
    assert found.observed == pytest.approx(observed, abs=1e-12)
    assert found.p_value == pytest.approx(share, abs=4 * (0.25 / 4000) ** 0.5)
    assert found.null_mean == pytest.approx(np.mean(null), abs=4 * np.std(null) / 4000**0.5)
    assert found.null_std == pytest.approx(np.std(null), rel=0.05)
    assert found.permutations == 4000


@STATISTICS
@pytest.mark.parametrize("tokens", [30, 90])
def test_the_null_has_the_moments_of_permuted_rows(statistic, tokens):
    labels = torch.arange(tokens) % 2
    x, y = related(tokens)
    y = y + labels[:, None]
    orders = shuffles(labels, 300, seeded(1))
    wanted = torch.tensor([statistic(x, y[order]) for order in orders])
    found = mantel_test(x, y, statistic=statistic, permutations=2000, generator=seeded(), within=labels)
    assert found.observed == pytest.approx(statistic(x, y), abs=1e-12)
    assert found.null_mean == pytest.approx(wanted.mean().item(), abs=5 * wanted.std().item() / 300**0.5)
    assert found.null_std == pytest.approx(wanted.std().item(), rel=0.25)


def test_many_tokens_are_permuted_by_products_and_to_the_same_values(monkeypatch):
    """More than one block of rows, levels that differ, and a common direction that float32 must not drown in."""
    x, y = related(300)
    x, y = x + 30, y + torch.arange(3).repeat_interleave(100)[:, None]
    monkeypatch.setattr(rsa, "PAIRED_TOKENS", 100)
    for first, second in ((x, y), (y, x)):  # the wider space second, too
        found = torch.cat(
            list(rsa._Pearson(first, second).shuffled(torch.zeros(300).long(), samples=3, generator=seeded()))
        )
        orders = shuffles(torch.zeros(300).long(), 3, seeded())
        assert found.tolist() == pytest.approx([pearson_rsa(first, second[order]) for order in orders], abs=2e-6)


def test_sequential_permutations_stop_at_the_deciding_draw():
    x, y = related(20, shared=0.0)
    every = mantel_test(x, y, permutations=400, generator=seeded())
    found = mantel_test(x, y, permutations=400, enough=10, generator=seeded())
    assert every.p_value > 0.1 and found.permutations < 400
    assert found.p_value == 10 / found.permutations
    one_less = mantel_test(x, y, permutations=found.permutations - 1, generator=seeded())
    assert one_less.p_value == 10 / found.permutations  # (1 + 9) / (1 + draws): the last draw was the tenth


def test_sequential_permutations_take_all_draws_for_what_is_there():
    x, y = related(20)
    found = mantel_test(x, y, permutations=150, enough=10, generator=seeded())
    assert found == mantel_test(x, y, permutations=150, generator=seeded())
    assert found.permutations == 150


def test_mantel_within_levels_is_not_fooled_by_the_levels():
    """Two spaces that share which level a token is of, and nothing else."""
    level = torch.arange(3).repeat_interleave(20)
    means = 3 * torch.randn(3, 12, generator=seeded(), dtype=torch.float64)
    x, y = related(60, shared=0.0)
    x, y = x + means[level], y + means[level][:, :5]
    assert mantel_test(x, y, permutations=199, generator=seeded()).p_value == 0.005
    assert mantel_test(x, y, permutations=199, generator=seeded(), within=level).p_value > 0.05


def test_few_tokens_cannot_be_significant():
    x, _ = related(4)
    found = mantel_test(x, x, permutations=2000, generator=seeded())
    assert found.observed == pytest.approx(1)
    assert found.p_value >= 1 / 24 - 0.015  # one of the 24 orders is the identity


def test_any_statistic_can_be_permuted():
    x, y = related(12)

    def product(a, b):
        return pearson_rsa(a, b) * 2

    double = mantel_test(x, y, statistic=product, permutations=50, generator=seeded())
    single = mantel_test(x, y, permutations=50, generator=seeded())
    assert double.p_value == single.p_value
    assert double.null_std == pytest.approx(2 * single.null_std)


@pytest.mark.parametrize("statistic, enough, tokens", [
    (pearson_rsa, None, 12), (spearman_rsa, None, 12), (pearson_rsa, 8, 12), (pearson_rsa, None, 80), (pearson_rsa, 8, 80),
])  # fmt: skip
def test_mantel_p_is_uniform_where_spaces_are_unrelated(statistic, enough, tokens):
    p = []
    for seed in range(300):
        x, y = related(tokens, seed, shared=0.0)
        found = mantel_test(x, y, statistic=statistic, permutations=39, enough=enough, generator=seeded(seed))
        p.append(found.p_value)
    grid = np.unique(np.round(p, 9))  # a p-value is uniform on the values that it can take
    reached = np.array([np.mean(np.array(p) <= value + 1e-9) for value in grid])
    assert np.abs(reached - grid).max() < 1.63 / 300**0.5  # Kolmogorov-Smirnov at the 1 % level


def test_mantel_refuses():
    x, y = related(6)
    with pytest.raises(ValueError, match="at least one permutation"):
        mantel_test(x, y, permutations=0, generator=seeded())
    with pytest.raises(ValueError, match="at least one permutation"):
        mantel_test(x, y, enough=0, generator=seeded())
    with pytest.raises(ValueError, match="5 labels for 6 tokens"):
        mantel_test(x, y, generator=seeded(), within=torch.zeros(5, dtype=torch.long))
    with pytest.raises(ValueError, match="nothing to permute"):
        mantel_test(x, y, generator=seeded(), within=torch.arange(6))


# --- bootstrap --------------------------------------------------------------------------------------------------------


@STATISTICS
def test_redrawn_tokens_never_meet_their_copies(statistic):
    x, y = related(14)
    draws = torch.randint(14, (6, 14), generator=seeded())
    weights = torch.stack([torch.bincount(draw, minlength=14) for draw in draws]).double()
    found, _ = rsa._REWEIGHTED[statistic](x, y, weights)
    wanted = [LITERAL[statistic](*(literal.redrawn_pairs(draw.tolist(), rows) for rows in (x, y))) for draw in draws]
    assert found.tolist() == pytest.approx(wanted, abs=1e-9)


@STATISTICS
def test_redrawing_many_tokens_is_close_to_exact(statistic, monkeypatch):
    """Tiles, float32, first-order expansion of ranks: what changes for size must not change the answer."""
    x, y = related(150)
    draws = torch.randint(150, (40, 150), generator=seeded())
    weights = torch.stack([torch.ones(150), *(torch.bincount(draw, minlength=150) for draw in draws)]).double()
    wanted, noise = rsa._REWEIGHTED[statistic](x, y, weights)
    monkeypatch.setattr(rsa, "FIRST_ORDER_TOKENS", 10)
    monkeypatch.setattr(rsa, "BATCH", 4 * 33)
    monkeypatch.setattr(spearman, "RERANKED_TOKENS", 10)
    found, found_noise = rsa._REWEIGHTED[statistic](x, y, weights)
    assert found[0].item() == pytest.approx(statistic(x, y), abs=1e-6)
    assert found_noise == pytest.approx(noise, rel=1e-4)
    assert (found - wanted).std() < 0.05 * wanted.std()


@STATISTICS
def test_influence_is_the_change_when_a_pair_weighs_more(statistic):
    """The variance that pairs bring of their own, from literal influences: raise one pair's weight and look."""
    x, y = related(9)
    first, second = literal.dissimilarities(x), literal.dissimilarities(y)
    repeats = 400  # every pair 400 times, one of them 401 times
    base = LITERAL[statistic](first * 1, second * 1)
    places = [(i, j) for i in range(9) for j in range(i + 1, 9)]
    influence = {}
    for at, place in enumerate(places):
        weighted = _weighted(statistic, first, second, [repeats + (k == at) for k in range(36)])
        influence[place] = (weighted - _weighted(statistic, first, second, [repeats] * 36)) * 36 * repeats
    assert _weighted(statistic, first, second, [1] * 36) == pytest.approx(base, abs=1e-12)
    sums = [sum(value for place, value in influence.items() if i in place) for i in range(9)]
    residual = sum(value**2 for value in influence.values()) - sum(value**2 for value in sums) / 7
    _, found = rsa._REWEIGHTED[statistic](x, y, torch.ones(1, 9, dtype=torch.float64))
    assert found == pytest.approx(residual / 27 / 36, rel=0.02)


def _weighted(statistic, first, second, weights) -> float:
    """The statistic when pair k counts weights[k] times; midranks and all."""

    def ranks(values):
        return [
            sum(w for v, w in zip(values, weights, strict=True) if v < value)
            + sum(w for v, w in zip(values, weights, strict=True) if v == value) / 2
            for value in values
        ]

    total = sum(weights)
    a, b = (np.array(v if statistic is pearson_rsa else ranks(v)) for v in (first, second))
    w = np.array(weights) / total
    a, b = a - w @ a, b - w @ b
    if statistic is rho_a:
        return 12 * (w @ (a * b)) / (total**2 - 1)
    return (w @ (a * b)) / ((w @ a**2) * (w @ b**2)) ** 0.5


@STATISTICS
def test_interval_repeats_widens_and_encloses(statistic):
    x, y = related(40)

    def interval(confidence, seed=0):
        return rsa_interval(x, y, statistic=statistic, samples=200, confidence=confidence, generator=seeded(seed))

    low, high = interval(0.9)
    assert interval(0.9) == (low, high) != interval(0.9, seed=1)
    assert low < statistic(x, y) < high
    wide = interval(0.99)
    assert wide[0] < low < high < wide[1]


@pytest.mark.parametrize("shared", [0.0, 1.0])
def test_interval_covers_the_value_of_the_population(shared):
    """Nominal 90 %; the coin of 150 trials has standard deviation 2.4 points. Plain percentiles cover 99 % of unrelated spaces."""
    truth = pearson_rsa(*related(6000, 999, shared=shared)) if shared else 0.0
    inside = 0
    for seed in range(150):
        low, high = rsa_interval(*related(60, seed, shared=shared), samples=200, confidence=0.9, generator=seeded(seed))
        inside += low <= truth <= high
    assert 0.82 <= inside / 150 <= 0.96


def test_interval_refuses():
    x, y = related(6)
    for options, said in (
        ({"samples": 1}, "samples is 1"),
        ({"confidence": 95.0}, "confidence 95"),
        ({"statistic": lambda a, b: 0.0}, "only pearson_rsa, spearman_rsa and rho_a"),
    ):
        with pytest.raises(ValueError, match=said):
            rsa_interval(x, y, generator=seeded(), **options)
    with pytest.raises(ValueError, match="too few different tokens"):
        rsa_interval(x[:4], y[:4], generator=seeded())


@pytest.mark.parametrize("statistic", [rsa.spearman_rsa, rsa.rho_a])
def test_ranks_of_rounding_are_refused_although_one_row_is_far_off(statistic):
    generator = torch.Generator().manual_seed(0)
    hugging = (1 + 2e-3 * torch.randn(60, 16, generator=generator)).to(torch.bfloat16)
    hugging[7] = torch.randn(16, generator=generator)
    with pytest.raises(ValueError, match=r"x: the typical row .* rounding to bfloat16"):
        statistic(hugging, torch.randn(60, 4, generator=generator))
    copies = torch.ones(60, 16, dtype=torch.bfloat16)
    copies[:20] = torch.randn(20, 16, generator=generator).to(torch.bfloat16)
    statistic(copies, torch.randn(60, 4, generator=generator))  # exact copies tie: no noise


# --- sorting


@pytest.mark.parametrize("copies", [0, 3, 400])
def test_values_that_share_their_leading_bits_are_sorted_by_the_others(copies, monkeypatch):
    if copies < spearman.EXCHANGES:
        monkeypatch.setattr(np, "argsort", None)  # exchanges do
    drawn = np.random.default_rng(0).random(2000)
    near = 0.5 + np.arange(copies)[::-1] * 2.0**-52
    values = np.concatenate([drawn, near, drawn[:300]])
    order = spearman._order(values)
    assert np.array_equal(np.sort(order), np.arange(len(values))) and np.array_equal(values[order], np.sort(values))


@pytest.mark.parametrize("values", [[], [2.0], [1.0, 1.0, 1.0]])
def test_values_without_spread_have_an_order(values):
    assert spearman._order(np.array(values)).tolist() == list(range(len(values)))
