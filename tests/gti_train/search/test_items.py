"""Items as vectors: the encoder, the joint objective, what is kept and served, and the alarms."""

from dataclasses import replace

import pytest
import torch

from gti_diag.errors import InputError
from gti_train.model.loading import load_language_model
from gti_train.model.tree_passes import find_way
from gti_train.search.items import alarms
from gti_train.search.items.encoder import encode, encoder_of
from gti_train.search.items.objective import ItemAnswers, ItemLesson
from gti_train.search.items.tokens import ItemTokens, load_items, request, save_items, slot_token
from gti_train.search.items.training import (
    Hybrid,
    ItemConfig,
    item_lessons,
    load_hybrid,
    look_at,
    rank_items,
    save_hybrid,
    train_hybrid,
)  # fmt: skip
from gti_train.search.prompts import ORDERS, Prompter, Wording
from gti_train.search.scoring import score
from gti_train.search.teacher import teacher_says

from .search_cases import shop

DOCUMENTS = [[5, 6, 7, 8, 9], [10], [11, 12, 13]]
CONFIG = ItemConfig(slots=2, layers=1, batch=8, family=4, learning_rate=1e-3, every=0, epochs=30)


@pytest.fixture
def hybrid(tiny_lm):
    model, tokenizer = load_language_model(tiny_lm(), dtype=torch.float32)
    return Hybrid.begin(model, Prompter(tokenizer, Wording("Match?", yes="Y", no="N", tail=":", max_tokens=80)), CONFIG)


def trained(encoder):
    """As after training: the correction is no longer zero."""
    with torch.no_grad():
        encoder.out.weight.normal_(0, 0.05, generator=torch.Generator().manual_seed(0))
    return encoder


def test_before_training_the_ranker_reads_the_first_tokens_of_a_document(hybrid):
    queries, pairs = [[20, 21], [22]], [(query, document) for query in range(2) for document in range(3)]
    items = ItemTokens(("a", "b", "c"), hybrid.encoder(DOCUMENTS), slot_token(hybrid.prompter))
    texts = [hybrid.prompter.tokenizer.decode(query) for query in queries]
    asked, overrides = items.asked(hybrid.prompter, [(texts[query], document) for query, document in pairs])
    started = [[5, 6], [10, 10], [11, 12]]  # a document of one token is read again
    text = hybrid.prompter.assembled([(hybrid.prompter.tokens(f" {texts[q]}"), started[d]) for q, d in pairs])
    found = score(hybrid.ranker, asked.ids, hybrid.prompter.rows, overrides=overrides)
    torch.testing.assert_close(found, score(hybrid.ranker, text.ids, hybrid.prompter.rows), atol=1e-5, rtol=0)
    assert float(found.std()) > 1e-3


def test_a_document_has_the_same_vectors_alone_and_in_company(hybrid):
    encoder = trained(hybrid.encoder)
    alone = torch.cat([encoder([ids]) for ids in DOCUMENTS])
    torch.testing.assert_close(encoder(DOCUMENTS), alone, atol=1e-5, rtol=0)
    cached = encode(encoder, DOCUMENTS)
    torch.testing.assert_close(cached.float(), alone, atol=0.02, rtol=0)  # products may be in bfloat16
    assert cached.dtype == torch.float16
    with pytest.raises(InputError, match="9 layers"):
        encoder_of(hybrid.ranker, slots=1, layers=9)


def test_the_objective_is_that_of_one_pair_at_a_time_and_reaches_encoder_and_ranker(hybrid):
    trained(hybrid.encoder)
    states = torch.randn(3, 48, generator=torch.Generator().manual_seed(0))
    lessons = [
        ItemLesson((5, 6, 7), ((20, 21), (22,)), (0.9, 0.1), states[:2]),
        ItemLesson((8, 9), ((20, 21),), (0.5,), states[2:]),
    ]
    parameters = hybrid.parameters()
    way = find_way(hybrid.ranker, [[1, 2, 3, 4]])
    told = {"prompter": hybrid.prompter, "way": way, "align": 0.5, "micro_tokens": 64, "compute": torch.float32}
    objective = ItemAnswers(hybrid.ranker, hybrid.encoder, lessons, **told)
    found = sum(part() for part in objective.parts([0, 1]))
    expected = torch.zeros(())
    for lesson in lessons:
        vectors = hybrid.encoder([lesson.document])[0]
        for query, target, state in zip(lesson.queries, lesson.targets, lesson.states, strict=True):
            ids = hybrid.prompter.assembled([(query, [0, 0])]).ids[0]
            rows = hybrid.ranker.get_input_embeddings()(torch.tensor(ids))
            tail = len(hybrid.prompter.tail)
            given = torch.cat([rows[: -2 - tail], vectors, rows[len(ids) - tail :]])
            hidden = hybrid.ranker.base_model(inputs_embeds=given[None]).last_hidden_state[0, -1]
            q = hybrid.ranker.lm_head(hidden)[list(hybrid.prompter.rows)].softmax(0)
            p = torch.tensor([target, 1 - target])
            expected = (
                expected + (p * (p.log() - q.log())).sum() + 0.5 * (1 - torch.cosine_similarity(hidden, state, dim=0))
            )
    assert found.item() == pytest.approx(expected.item(), abs=1e-4)
    gradients = torch.autograd.grad(found, parameters, retain_graph=True)
    for one, other in zip(gradients, torch.autograd.grad(expected, parameters), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)
    assert any(p is hybrid.encoder.slots for p in parameters) and objective.supervised([0, 1]) == 3


@pytest.fixture
def taught(hybrid):
    """The hybrid after some steps on a shop where all want a lamp, and the loss on the way."""
    collection = shop()
    lamps = {d.id: 4 for d in collection.documents if d.group == "lamp"}
    collection = replace(collection, judgements=dict.fromkeys(collection.judgements, lamps))
    labels = [((q, d), collection.relevant[q].get(d, 0) / 4) for q in range(len(collection.queries)) for d in range(8)]
    said = teacher_says(hybrid.ranker, hybrid.prompter, collection, [pair for pair, _ in labels])
    config = replace(CONFIG, labels=1.0, align=0.0)
    lessons = item_lessons(hybrid, collection, labels, said, config)
    assert sum(len(lesson.queries) for lesson in lessons) == len(labels)
    records = list(train_hybrid(hybrid, lessons, config, compute=torch.float32))
    return hybrid, collection, [record.loss for record in records]


def test_training_teaches_the_ranker_to_read_items_and_a_saved_folder_scores_alike(taught, tmp_path):
    hybrid, collection, losses = taught
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    candidates = torch.arange(8).expand(len(collection.queries), 8)
    values = look_at(hybrid, collection, candidates)
    assert values["ndcg"] > 0.9 > values["ndcg_shuffled"] + 0.1
    assert not alarms.alarms(values)
    before = rank_items(hybrid.ranker, hybrid.prompter, hybrid.items(collection), collection, candidates)
    save_hybrid(hybrid, collection, tmp_path / "out", dtype=torch.float32, geometry=values)
    again, items = load_hybrid(tmp_path / "out")
    torch.testing.assert_close(rank_items(again.ranker, again.prompter, items, collection, candidates), before)
    torch.testing.assert_close(encode(again.encoder, again.documents(collection)), items.vectors)


@pytest.mark.parametrize("order", ORDERS)
def test_a_request_holds_what_is_scored_in_process(hybrid, order):
    hybrid.prompter = Prompter(hybrid.prompter.tokenizer, replace(hybrid.prompter.wording, order=order))
    vectors = torch.randn(3, 2, 48, generator=torch.Generator().manual_seed(1)).half()
    items = ItemTokens(("a", "b", "c"), vectors, slot_token(hybrid.prompter))
    body = request(hybrid.prompter, items, "red kettle", [2, 0])
    prompts, overrides = items.asked(hybrid.prompter, [("red kettle", 2), ("red kettle", 0)])
    found = score(hybrid.ranker, prompts.ids, hybrid.prompter.rows, shared=prompts.shared, overrides=overrides)
    for own, item, given in zip(found, body["items"], body["item_embed_overrides"], strict=True):  # as the server would
        ids = torch.tensor([item + body["query"] if body["item_first"] else body["query"] + item])
        rows = hybrid.ranker.get_input_embeddings()(ids).clone()
        rows[ids == body["embed_override_token_id"]] = torch.tensor(given)
        yes, no = hybrid.ranker(inputs_embeds=rows).logits[0, -1, body["label_token_ids"]]
        assert float(yes - no) == pytest.approx(float(own), abs=1e-4)


def test_item_tokens_are_kept_and_a_damaged_folder_is_named(tmp_path):
    items = ItemTokens(("a", "b"), torch.randn(2, 2, 4).half(), 2)
    save_items(items, tmp_path)
    again = load_items(tmp_path)
    assert again.ids == items.ids and torch.equal(again.vectors, items.vectors)
    (tmp_path / "items.json").write_text('{"schema": 1, "token": 2, "ids": ["a"]}')
    with pytest.raises(InputError, match="1 ids for vectors"):
        load_items(tmp_path)


def test_shuffling_moves_every_item(hybrid):
    items = ItemTokens(tuple("abcde"), torch.arange(5.0).view(5, 1, 1), 2)
    moved = items.shuffled(0).vectors.flatten()
    assert sorted(moved.tolist()) == [0, 1, 2, 3, 4] and not bool((moved == items.vectors.flatten()).any())


def test_each_alarm_rings_where_it_should_and_a_good_start_is_silent():
    generator = torch.Generator().manual_seed(0)
    vocabulary = torch.randn(200, 8, generator=generator)
    good = torch.randn(20, 2, 8, generator=generator)
    healthy = alarms.item_geometry(good, vocabulary) | {"ndcg": 0.6, "ndcg_shuffled": 0.2}
    assert alarms.alarms(healthy) == []
    point = alarms.item_geometry(good * 1e-4 + 1, vocabulary)
    assert any("one point" in text for text in alarms.alarms(point))
    same = alarms.item_geometry(good[:, :1].expand(-1, 2, -1), vocabulary)
    assert same["slot_repetition"] == pytest.approx(1, abs=1e-5)
    assert any("repeat each other" in text for text in alarms.alarms(same))
    assert any("does not read" in text for text in alarms.alarms({"ndcg": 0.5, "ndcg_shuffled": 0.49}))
