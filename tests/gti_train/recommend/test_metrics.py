"""Metrics against trec_eval's own code, and expectations over ties against all orders."""

import itertools
import math

import pytest
import pytrec_eval
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gti_diag.errors import InputError
from gti_train.recommend import metrics
from gti_train.recommend.metrics import Ties, hit_rate_at_k, mrr_at_k, ndcg_at_k, precision_at_k, recall_at_k

ITEMS, CUTS = 12, (1, 3, 5, 10)
OURS = {"recall": recall_at_k, "P": precision_at_k, "success": hit_rate_at_k}
grades = st.dictionaries(st.integers(0, ITEMS - 1), st.integers(0, 3), min_size=1).filter(lambda g: any(g.values()))


def trec(ranked, relevant, measures):
    """trec_eval per user: ranks become descending scores."""
    qrels = {str(u): {str(item): int(g) for item, g in row.items()} for u, row in enumerate(relevant)}
    run = {str(u): {str(item): float(-rank) for rank, item in enumerate(row)} for u, row in enumerate(ranked.tolist())}
    found = pytrec_eval.RelevanceEvaluator(qrels, measures).evaluate(run)
    return [found[str(u)] for u in range(len(relevant))]


@settings(deadline=None, max_examples=50)
@given(st.lists(grades, min_size=1, max_size=5), st.data())
def test_every_metric_is_trec_evals(relevant, data):
    ranked = torch.stack([torch.tensor(data.draw(st.permutations(range(ITEMS)))) for _ in relevant])
    cuts = ",".join(map(str, CUTS))
    expected = trec(ranked, relevant, {f"{name}.{cuts}" for name in (*OURS, "ndcg_cut")} | {"recip_rank"})
    squared = trec(ranked, [{item: 2**g - 1 for item, g in row.items()} for row in relevant], {f"ndcg_cut.{cuts}"})
    for k in CUTS:
        for name, metric in OURS.items():
            assert metric(ranked, relevant, k).tolist() == pytest.approx([row[f"{name}_{k}"] for row in expected])
        linear, exponential = (
            ndcg_at_k(ranked, relevant, k, gains=gains).tolist() for gains in ("linear", "exponential")
        )
        assert linear == pytest.approx([row[f"ndcg_cut_{k}"] for row in expected])
        assert exponential == pytest.approx([row[f"ndcg_cut_{k}"] for row in squared])
    assert mrr_at_k(ranked, relevant, ITEMS).tolist() == pytest.approx([row["recip_rank"] for row in expected])


@settings(deadline=None, max_examples=50)
@given(grades, st.integers(1, 3))
def test_a_threshold_is_trec_evals_relevance_level(row, level):
    ranked = torch.arange(ITEMS)[None]
    if max(row.values()) < level:
        with pytest.raises(InputError, match="user 0 has no relevant item"):
            recall_at_k(ranked, [row], 5, at_least=level)
        return
    found = pytrec_eval.RelevanceEvaluator(
        {"0": {str(i): g for i, g in row.items()}}, {"P.5", "recall.5"}, relevance_level=level
    )
    expected = found.evaluate({"0": {str(i): -float(i) for i in range(ITEMS)}})["0"]
    assert precision_at_k(ranked, [row], 5, at_least=level).item() == pytest.approx(expected["P_5"])
    assert recall_at_k(ranked, [row], 5, at_least=level).item() == pytest.approx(expected["recall_5"])


EVERY = (recall_at_k, precision_at_k, hit_rate_at_k, mrr_at_k, ndcg_at_k)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.integers(1, 3), min_size=1, max_size=3),
    st.dictionaries(st.integers(0, 20), st.integers(1, 3), min_size=1, max_size=4),
    st.integers(1, 12),
)
def test_ties_give_the_mean_over_all_orders_inside_the_groups(sizes, graded, k):
    groups = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    count, k = len(groups), min(k, len(groups))
    row = {item % count: g for item, g in graded.items()}
    runs = [range(sum(sizes[:i]), sum(sizes[: i + 1])) for i in range(len(sizes))]
    orders = [
        list(itertools.chain(*run)) for run in itertools.product(*(list(itertools.permutations(r)) for r in runs))
    ]
    for metric in EVERY:
        mean = metric(torch.tensor(orders), [row] * len(orders), k).mean().item()
        expected = metric(torch.tensor(orders[:1]), [row], k, ties=Ties(groups)).item()
        assert expected == pytest.approx(mean), metric.__name__


def test_items_left_out_take_no_place_in_their_group():
    groups = torch.tensor([0, 0, 0, 1])
    ties = Ties(groups, absent=[{1}, None])
    ranked = torch.tensor([[0, 2, 3], [0, 1, 2]])
    assert recall_at_k(ranked, [{2}, {2}], 1, ties=ties).tolist() == pytest.approx([1 / 2, 1 / 3])


@pytest.mark.parametrize("gains", metrics.GAINS)
@settings(deadline=None, max_examples=50)
@given(relevant=st.lists(grades, min_size=2, max_size=4), data=st.data())
def test_ndcg_is_one_for_the_best_list_and_never_more(gains, relevant, data):
    k = data.draw(st.sampled_from(CUTS))
    ranked = torch.stack([torch.tensor(data.draw(st.permutations(range(ITEMS)))) for _ in relevant])
    assert (ndcg_at_k(ranked, relevant, k, gains=gains) <= 1 + 1e-12).all()
    best = torch.tensor([sorted(range(ITEMS), key=lambda item: -row.get(item, 0)) for row in relevant])
    assert ndcg_at_k(best, relevant, k, gains=gains).tolist() == pytest.approx([1.0] * len(relevant))


def test_relevant_items_may_be_given_in_any_form():
    ranked = torch.tensor([[4, 0, 2], [1, 3, 0]])
    wanted = [1 / math.log2(3), 1 / math.log2(4)]
    by_item = torch.zeros(2, 5)
    by_item[0, 0] = by_item[1, 0] = 1
    for relevant in (
        [{0}, [0]],
        [{0: 1.0}, (0,)],
        torch.tensor([0, 0]),
        torch.tensor([[0], [0]]),
        by_item,
        by_item.bool(),
    ):
        assert ndcg_at_k(ranked, relevant, 3).tolist() == pytest.approx(wanted)


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        (([[0, 1]], [{0}], 3), "k is 3 and the lists have 2 items"),
        (([[0, 1]], [{0}], 0), "k is 0"),
        (([[0, 1]], [{0}, {1}], 1), "1 ranked lists for 2 users"),
        (([[0, 0]], [{0}], 2), "names an item twice"),
        (([0, 1], [{0}], 1), "users × ranks"),
        (([[0, 1]], [set()], 1), "user 0 has no relevant item"),
        (([[0, 1]], [{0: -1.0}], 1), "grades are 0 or more"),
        (([[0, 1]], [{0}], 1, "squared"), "use one of exponential, linear"),
    ],
)  # fmt: skip
def test_what_has_no_value_is_refused(arguments, complaint):
    ranked, *others = arguments
    with pytest.raises(InputError, match=complaint):
        ndcg_at_k(torch.tensor(ranked), *others)
