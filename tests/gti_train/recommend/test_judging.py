"""From ranked sequences of codes to numbers over items, and to the document."""

import pytest
import torch

from gti_diag.document import canonical
from gti_diag.errors import InputError
from gti_train.recommend.baselines import baselines
from gti_train.recommend.decoding import Decoder, decode
from gti_train.recommend.judging import Lists, document, judge, model_lists, records
from gti_train.recommend.trie import Trie

from .decoding_cases import CODES, ITEMS, PROMPTS, TOKENS, literal, ranking, tiny, tree
from .test_cases import asked_of

SEPARATE, GROUPS = CODES.unique(dim=0, return_inverse=True)
KS = (3, 8)
HISTORIES = {str(u): [(7 * u + 3 * p) % ITEMS for p in range(4 + u)] for u in range(4)}


@pytest.fixture(scope="module")
def model():
    return tiny()


@pytest.fixture(scope="module")
def lists(model):
    return model_lists(Decoder(model, Trie(SEPARATE, TOKENS)), PROMPTS, 8, groups=GROUPS, exact=True)


def test_lists_hold_sequences_and_their_items_in_order(model, lists):
    items, scores = decode(model, tree(), PROMPTS, 8, exact=True)
    assert torch.equal(GROUPS[items], GROUPS[lists.items])
    torch.testing.assert_close(scores, lists.scores, rtol=0, atol=1e-5)
    assert all(len(set(row)) == 8 for row in lists.groups.tolist() + lists.items.tolist())


def test_items_left_out_are_in_no_list(model):
    expected, left = literal(model, PROMPTS, "items"), [{int(i) for i in range(u, ITEMS, 2)} for u in range(4)]
    decoder = Decoder(model, Trie(SEPARATE, TOKENS))
    found = model_lists(decoder, PROMPTS, 8, groups=GROUPS, exact=True, exclude=left)
    for row, items, gone in zip(expected, found.items.tolist(), left, strict=True):
        free = ranking(row.round(decimals=4), [item for item in range(ITEMS) if item not in gone])
        assert [int(GROUPS[item]) for item in items] == [int(GROUPS[item]) for item in free[:8]]
        assert not gone & set(items)


def test_a_shared_sequence_counts_as_each_of_its_items_by_expectation():
    groups = torch.tensor([0, 0, 0, 1])
    found = Lists(torch.tensor([[0, 1]]), torch.tensor([[0, 1]]), torch.zeros(1, 2))
    asked = asked_of({"u": [3, 3, 3, 2]}, 4)
    body, values = document(asked, found, (1, 2), groups=groups, baselines={})
    assert values["recall@1"].item() == pytest.approx(1 / 3)
    assert values["recall@2"].item() == pytest.approx(2 / 3)
    assert body["sid_level"]["recall@1"]["value"] == 1


def test_the_document_holds_what_is_promised(lists):
    asked = asked_of(HISTORIES, ITEMS)
    named = baselines(asked.training, torch.randn(ITEMS, 4, generator=torch.Generator().manual_seed(0)))
    body, values = document(asked, lists, KS, groups=GROUPS, baselines=named)
    canonical(body)  # plain JSON, no NaN
    names = {f"{m}@{k}" for m in ("recall", "ndcg", "hit_rate", "precision") for k in KS} | {"mrr"}
    assert set(body["metrics"]) == set(body["sid_level"]) == set(values) == names
    assert set(body["baselines"]) == set(body["against"]) == {"popularity", "repeat", "item-knn", "transitions"}
    for name, entry in body["metrics"].items():
        assert entry["value"] == pytest.approx(values[name].mean().item())
        assert entry["interval"][0] <= entry["value"] <= entry["interval"][1]
    for part in body["slices"].values():
        assert (part["metrics"] is None) == (part["users"] == 0)
    against = body["against"]["popularity"]["recall@8"]
    assert against["p_corrected"] >= against["p_value"]
    assert (against["relative"] is None) == (against["reason"] is not None)
    rows = records(asked, lists, values, [f"i{item}" for item in range(ITEMS)])
    assert [row["user_id"] for row in rows] == list(HISTORIES)
    assert rows[0]["items"] == [f"i{item}" for item in lists.items[0].tolist()]


def test_grades_add_both_thresholds(lists):
    relevant = [{0: 1.0, 5: 2.0, int(lists.items[0, 0]): 2.0}, {7: 1.0}, {8: 2.0}, {9: 1.0}]
    found = judge(lists.items, relevant, (3,), gains="exponential")
    assert {"precision_lenient@3", "precision_strict@3"} <= set(found)
    assert (found["precision_strict@3"] <= found["precision_lenient@3"]).all()
    assert found["precision_strict@3"][0] >= 1 / 3
    assert "precision_strict@3" not in judge(lists.items, [{0}] * 4, (3,), gains="linear")


def test_another_run_at_other_lengths_is_refused(lists):
    asked = asked_of(HISTORIES, ITEMS)
    with pytest.raises(InputError, match="other has no recall@3"):
        document(asked, lists, KS, groups=GROUPS, baselines={}, others={"other": {"mrr": torch.zeros(4)}})
