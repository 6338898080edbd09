"""The judge: it learns what it is shown, whichever text comes first, and is served as it was trained."""

from dataclasses import replace

import pytest
import torch

from gti_diag.errors import InputError
from gti_train.search.judge import JudgeConfig, judge_pairs, load_judge, train_judge
from gti_train.search.pairs import Sampling, families, sampled_pairs
from gti_train.search.prompts import DOCUMENT_FIRST, QUERY_FIRST, Wording

from .search_cases import shop

WORDING = Wording("Is it good?", " warm", " light", "\nFit:", max_tokens=256)


def everything(collection):
    pairs = [(q, d) for q in range(len(collection.queries)) for d in range(len(collection.documents))]
    return [(pair, collection.relevant[pair[0]].get(pair[1], 0) / 4) for pair in pairs]


@pytest.mark.parametrize("order", [DOCUMENT_FIRST, QUERY_FIRST])
def test_a_judge_learns_soft_grades_and_scores_as_it_was_trained(tiny_lm, tmp_path, order):
    collection = shop()
    labels = everything(collection)
    config = JudgeConfig(epochs=60, batch=4, family=8, learning_rate=3e-3)
    train_judge(
        tiny_lm(), tmp_path / "judge", wording=replace(WORDING, order=order), collection=collection, labels=labels,
        config=config, compute="float32",
    )  # fmt: skip
    model, prompter = load_judge(tmp_path / "judge")
    assert prompter.wording == replace(WORDING, order=order)
    found = judge_pairs(model, prompter, collection, [pair for pair, _ in labels]).sigmoid()
    wanted = torch.tensor([label for _, label in labels])
    assert (found - wanted).abs().mean() < 0.2 < (wanted.mean() - wanted).abs().mean()
    backwards = judge_pairs(model, prompter, collection, [pair for pair, _ in labels[::-1]]).sigmoid()
    torch.testing.assert_close(backwards.flip(0), found, atol=1e-5, rtol=0)


def test_a_run_that_was_killed_goes_on_to_the_same_weights(tiny_lm, tmp_path):
    collection, base = shop(), tiny_lm()
    given = {"wording": WORDING, "collection": collection, "labels": everything(collection), "compute": "float32"}
    config = JudgeConfig(epochs=1, batch=2, family=8)

    def stop(record, steps):
        if record.step == 4:
            raise KeyboardInterrupt

    train_judge(base, tmp_path / "whole", config=config, **given)
    with pytest.raises(KeyboardInterrupt):
        train_judge(base, tmp_path / "cut", config=config, save_every=3, progress=stop, **given)
    train_judge(base, tmp_path / "cut", config=config, save_every=3, **given)
    whole, cut = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "cut"))
    assert whole == cut
    assert not (tmp_path / "cut.state").exists()


def test_what_cannot_be_judged_is_refused(tiny_lm, tmp_path):
    with pytest.raises(InputError, match=r"has no judge.json; name a checkpoint of `gti-train search judge`"):
        load_judge(tiny_lm())
    with pytest.raises(InputError, match="no pairs to learn from"):
        train_judge(tiny_lm(), tmp_path / "j", wording=WORDING, collection=shop(), labels=[], config=JudgeConfig())
    given = {"collection": shop(), "labels": everything(shop()), "config": JudgeConfig()}
    with pytest.raises(InputError, match=r"prompts of up to 257 tokens, and .* reads 256: lower --max-tokens"):
        train_judge(tiny_lm(), tmp_path / "j", wording=replace(WORDING, max_tokens=257), **given)
    assert not (tmp_path / "j").exists()


def test_a_query_is_shown_with_its_best_document_and_what_retrieval_takes_for_it():
    collection = shop()
    candidates = [[0, 1, 2, 3]] * len(collection.queries)
    found = sampled_pairs(collection, candidates, Sampling(judged=2, hard=2, random=1), seed=0)
    for query, grades in enumerate(collection.relevant):
        shown = {document: grade for (q, document), grade in found if q == query}
        assert {d: g for d, g in shown.items() if g} == grades
        assert len(shown) in (4, 5)  # two judged, two negatives from the candidates, one from anywhere
        assert sum(d in (0, 1, 2, 3) and not g for d, g in shown.items()) >= 2
    assert found == sampled_pairs(collection, candidates, Sampling(judged=2, hard=2, random=1), seed=0)


def test_families_hold_every_pair_once_and_share_one_side():
    pairs = [(q, d) for q in range(7) for d in range(3)]
    found = families(pairs, by_document=True, most=4, seed=0)
    assert sorted(number for members in found for number in members) == list(range(21))
    assert all(len({pairs[i][1] for i in members}) == 1 and len(members) <= 4 for members in found)
