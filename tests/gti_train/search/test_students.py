"""Pruning with healing, two teachers with masks, summaries of a collection: from checkpoint to checkpoint."""

import json
from dataclasses import replace

import pytest
import torch

from gti_diag.errors import InputError
from gti_train.model.loading import load_language_model
from gti_train.search.engagement import Engagement, calibrated, engagement_targets, popularity_of
from gti_train.search.items.stage import make_items
from gti_train.search.items.training import ItemConfig, look_at
from gti_train.search.judge import JudgeConfig, load_judge, save_judge, soft_examples
from gti_train.search.pairs import met
from gti_train.search.prompts import DOCUMENT_FIRST, QUERY_FIRST, Prompter, Wording
from gti_train.search.students import (
    Pruning,
    prune_judge,
    summaries_of,
    task_answers,
    train_ranker,
)  # fmt: skip
from gti_train.search.teacher import teacher_says

from .search_cases import shop

WORDING = Wording("Match?", yes="Y", no="N", tail=":", order=DOCUMENT_FIRST, max_tokens=80)
CONFIG = JudgeConfig(epochs=4, batch=4, family=8, learning_rate=2e-3)
PAIRS = [(q, d) for q in range(12) for d in range(8)]


@pytest.fixture
def judge(tiny_lm, tmp_path):
    model, tokenizer = load_language_model(tiny_lm(), dtype=torch.float32)
    save_judge(model, Prompter(tokenizer, WORDING), tmp_path / "judge", dtype="auto")
    return tmp_path / "judge"


def test_a_pruned_judge_is_a_plain_checkpoint_that_healing_brings_nearer_to_the_judge(judge, tmp_path):
    said = teacher_says(*load_judge(judge), shop(), PAIRS).log_odds

    def apart(folder):
        return float(
            (teacher_says(*load_judge(folder, dtype=torch.float32), shop(), PAIRS).log_odds - said).abs().mean()
        )

    wanted = Pruning(drop=1, neurons=0.5, prompts=8)
    told = {"wanted": wanted, "progress": lambda record, steps: None}
    prune_judge(judge, tmp_path / "raw", shop(), PAIRS, config=replace(CONFIG, epochs=0, learning_rate=0.0), **told)
    record = prune_judge(judge, tmp_path / "healed", shop(), PAIRS, config=CONFIG, **told)
    config = json.loads((tmp_path / "healed" / "config.json").read_text())
    assert (config["num_hidden_layers"], config["intermediate_size"]) == (1, 32)
    assert record["parameters"] < record["parameters_before"] and len(record["unexplained"]) == 1
    assert apart(tmp_path / "healed") < 0.7 * apart(tmp_path / "raw")
    assert json.loads((tmp_path / "healed.pruning.json").read_text()) == record
    with pytest.raises(InputError, match="no pairs to heal on"):
        prune_judge(judge, tmp_path / "none", shop(), [], wanted=wanted, config=CONFIG)


@pytest.mark.parametrize(("products", "apart"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_what_a_teacher_says_is_what_the_judge_scores_whatever_the_order_of_the_pairs(
    judge, monkeypatch, products, apart
):
    monkeypatch.setattr("gti_train.search.teacher.best_dtype", lambda device: products)  # whatever this machine's is
    model, prompter = load_judge(judge)
    found = teacher_says(model, prompter, shop(), PAIRS)
    some = [PAIRS[i] for i in (17, 3, 50)]
    alone = teacher_says(model, prompter, shop(), some)
    torch.testing.assert_close(alone.log_odds, found.log_odds[[17, 3, 50]], atol=apart, rtol=0)
    torch.testing.assert_close(alone.states, found.states[[17, 3, 50]], atol=max(apart, 5e-3), rtol=0)


def test_the_engagement_teacher_prefers_what_is_relevant_and_popular_and_sees_no_grades():
    collection, places = shop(), torch.arange(8).expand(12, 8)
    grades = torch.tensor([[judged.get(d, 0) for d in range(8)] for judged in collection.relevant])
    odds = grades.float() - 2
    popularity = torch.linspace(0, 1, 8)
    wanted = Engagement(sessions=400)
    found = engagement_targets(collection, places, odds, popularity, wanted)
    assert found.shape == (12, 8, 2) and bool(((found > 0) & (found < 1)).all())
    assert float(found[..., 0][grades == 4].mean()) > float(found[..., 0][grades == 0].mean()) + 0.3
    assert bool((found[..., 1] < found[..., 0]).all())  # applying is rarer than clicking
    zero = found[..., 0].masked_fill(grades > 0, float("nan"))
    row = zero[0][~zero[0].isnan()]
    assert row.tolist() == sorted(row.tolist())  # equal in relevance: by popularity


def test_calibration_keeps_ndcg_and_plateaus_alone_lose_it():
    collection, places = shop(), torch.arange(8).expand(12, 8)
    grades = torch.tensor([[judged.get(d, 0) for d in range(8)] for judged in collection.relevant]).float()
    scores = grades + torch.linspace(0, 0.1, 8)
    found = calibrated(collection, places, scores, torch.linspace(0, 1, 8), Engagement(sessions=3))
    assert found["ndcg"]["before"] == found["ndcg"]["after"] == pytest.approx(1)
    worst = calibrated(collection, places, -scores, torch.linspace(0, 1, 8), Engagement(sessions=3))["ndcg"]
    assert worst["after"] == worst["before"] != worst["by_probability"]  # all on one plateau: as they came


def test_popularity_counts_good_answers():
    assert popularity_of(shop())[0] == pytest.approx(torch.tensor(4.0).log()) and popularity_of(shop())[1] == 0


def test_a_teacher_is_asked_about_what_training_meets_alone(judge, tmp_path, monkeypatch):
    few = replace(CONFIG, epochs=0.1)  # 16 families, of which one step meets 4
    chosen, steps = met(PAIRS, few, by_document=True)
    documents = {PAIRS[i][1] for i in chosen}
    assert steps == 1 and len(chosen) < len(PAIRS) and chosen == sorted(chosen) and len(documents) > 1
    assert met(PAIRS, CONFIG, by_document=True)[0] == list(range(len(PAIRS)))
    asked = []
    for module in ("students", "items.stage"):
        spied = lambda m, p, c, pairs: (asked.append(pairs), teacher_says(m, p, c, pairs))[1]  # noqa: E731
        monkeypatch.setattr(f"gti_train.search.{module}.teacher_says", spied)
    prune_judge(judge, tmp_path / "out", shop(), PAIRS, wanted=Pruning(0, 1.0, 8), config=few)
    config = ItemConfig(slots=1, layers=1, epochs=few.epochs, batch=few.batch, family=few.family, every=0)
    make_items(judge, tmp_path / "items", shop(), [(pair, 0.5) for pair in PAIRS], every=shop(), config=config)
    assert asked == [[PAIRS[i] for i in chosen]] * 2


@pytest.mark.parametrize("every, looks", [(0, 1), (2, 2), (3, 2)])
def test_item_tokens_are_looked_at_on_the_way_and_once_after_the_last_step(judge, tmp_path, monkeypatch, every, looks):
    seen = []
    spied = lambda *given: seen.append(look_at(*given)) or seen[-1]  # noqa: E731
    monkeypatch.setattr("gti_train.search.items.stage.look_at", spied)
    config = ItemConfig(slots=1, layers=1, steps=4, batch=2, family=4, every=every)
    values = make_items(judge, tmp_path / "items", shop(), [(p, 0.5) for p in PAIRS], every=shop(), config=config)
    assert len(seen) == looks and values == seen[-1]
    assert json.loads((tmp_path / "items" / "geometry.json").read_text()) == values


@pytest.mark.parametrize("fast, ran_in", [(torch.float32, torch.float32), (torch.bfloat16, torch.bfloat16)])
def test_a_judge_stored_in_half_precision_is_run_in_what_is_fast_here(judge, tmp_path, monkeypatch, fast, ran_in):
    save_judge(*load_judge(judge), tmp_path / "half", dtype=torch.bfloat16)
    monkeypatch.setattr("gti_train.model.loading.best_dtype", lambda device: fast)
    assert load_judge(tmp_path / "half")[0].dtype == ran_in
    assert load_judge(tmp_path / "half", dtype="bfloat16")[0].dtype == torch.bfloat16  # what is asked for is had


@pytest.mark.parametrize("highest", [1, 2, 10])
def test_engagement_knows_any_scale_of_grades(highest):
    """Yes and no on any scale are 0 and 4, and no document has to stand out by its popularity."""
    four = replace(shop(), judgements={q: dict.fromkeys(grades, 4) for q, grades in shop().judgements.items()})
    other = replace(four, judgements={q: dict.fromkeys(grades, highest) for q, grades in four.judgements.items()})
    torch.testing.assert_close(popularity_of(other), popularity_of(four))
    places, odds, same = torch.arange(8).expand(12, 8), torch.randn(12, 8), torch.zeros(8)
    found = [engagement_targets(part, places, odds, same, Engagement(sessions=50)) for part in (four, other)]
    assert found[0].isfinite().all() and torch.equal(*found)


def test_a_ranker_learns_from_both_teachers_and_says_that_engagement_is_simulated(judge, tmp_path, monkeypatch):
    words = {"click": ("C", "S"), "apply": ("A", "L")}
    monkeypatch.setattr("gti_train.search.students.WORDS", words)
    places, losses, ran_in = torch.arange(8).expand(12, 8), [], []

    def says(model, *args, **told):
        ran_in.append(model.dtype)
        return teacher_says(model, *args, **told)

    monkeypatch.setattr("gti_train.search.students.teacher_says", says)
    train_ranker(
        judge, tmp_path / "ranker", shop(), places, config=CONFIG, engagement=Engagement(sessions=50), order=QUERY_FIRST,
        progress=lambda record, steps: losses.append(record.loss),
    )  # fmt: skip
    assert sum(losses[-3:]) < 0.5 * sum(losses[:3])
    assert ran_in == [torch.float32] * 2  # written in bfloat16, which many processors only emulate
    told = json.loads((tmp_path / "ranker.engagement.json").read_text())
    assert told["simulated"] is True and set(told["answers"]) == {"relevance", "click", "apply"}
    assert told["ndcg"]["after"] == told["ndcg"]["before"] and "1" in told["calibration"]["knots"]
    assert load_judge(tmp_path / "ranker")[1].wording.order == QUERY_FIRST


def test_two_tasks_never_share_an_answer(judge, monkeypatch):
    prompter = load_judge(judge)[1]
    monkeypatch.setattr("gti_train.search.students.WORDS", {"click": ("Y", "S")})
    with pytest.raises(InputError, match="two tasks"):
        task_answers(prompter)


def test_families_share_a_document_and_hold_each_pair_once(judge):
    prompter = load_judge(judge)[1]
    targets = torch.arange(len(PAIRS)).float()[:, None] / 100
    found = soft_examples(prompter, shop(), PAIRS, targets, torch.ones_like(targets), config=CONFIG)
    assert sorted(e.targets[0] for family in found for e in family) == pytest.approx(targets[:, 0].tolist())
    assert all(len({round(e.targets[0] * 100) % 8 for e in family}) == 1 for family in found)  # one document each


def test_every_document_gets_a_summary_that_fits(judge, tmp_path):
    model, prompter = load_judge(judge)
    documents = tuple(replace(d, body=f"{d.body}. Nothing else. Made in May.") for d in shop().documents)
    collection = replace(shop(), documents=documents)
    found = summaries_of(model, prompter, collection, [[0, 1]] * 12, tmp_path / "s.jsonl", budget=14, queries=2)
    assert [s.doc_id for s in found] == [d.id for d in documents]
    for summary, document in zip(found, documents, strict=True):
        assert len(prompter.tokens(f" {summary.text}")) <= 14 and summary.text.split()[0] in document.text


def test_a_document_that_is_the_answer_to_no_query_is_asked_with_its_title_first(judge, tmp_path, monkeypatch):
    whole, asked = shop(), {}
    best, some, none = (document.id for document in whole.documents[:3])
    collection = replace(whole, judgements={query.id: {best: 2, some: 1} for query in whole.queries})
    monkeypatch.setattr("gti_train.search.students.summarise_all", lambda named, own, *args, **told: asked.update(own))
    summaries_of(*load_judge(judge), collection, [[]] * 12, tmp_path / "s.jsonl", budget=14, queries=2)
    first, second = (query.text for query in whole.queries[:2])
    assert asked[best] == [first, second]
    assert asked[some] == [whole.documents[1].title, first] and asked[none] == [whole.documents[2].title]
