"""Retrieval: BM25 by the book, the contrastive loss by its definition, and an encoder that gets better by it."""

import math

import pytest
import torch

from gti_diag.errors import InputError
from gti_train.search.bi_encoder import encoded, load_encoder, retrieved
from gti_train.search.bm25 import BM25
from gti_train.search.collection import Collection, Query
from gti_train.search.contrast import Contrast, lessons
from gti_train.search.evaluation import quality
from gti_train.search.pairs import Sampling
from gti_train.search.retriever import RetrieverConfig, found_by, geometry, train_retriever
from gti_train.search.signals import combine

from .search_cases import shop

TEXTS = ["The red kettle: a KETTLE for two", "A light tent", "Warm light, warm lamp, warm room"]


def test_bm25_is_the_formula_word_by_word():
    words = [["the", "red", "kettle", "a", "kettle", "for", "two"], ["a", "light", "tent"],
             ["warm", "light", "warm", "lamp", "warm", "room"]]  # fmt: skip
    average = sum(map(len, words)) / 3

    def score(query: list[str], document: list[str]) -> float:
        total = 0.0
        for word in query:
            f, n = document.count(word), sum(word in other for other in words)
            idf = math.log(1 + (3 - n + 0.5) / (n + 0.5))
            total += idf * f * 1.9 / (f + 0.9 * (0.6 + 0.4 * len(document) / average))
        return total

    queries = {"warm light": ["warm", "light"], "kettle, kettle": ["kettle", "kettle"], "unheard of": []}
    expected = [[score(asked, document) for document in words] for asked in queries.values()]
    torch.testing.assert_close(BM25(TEXTS)(list(queries)), torch.tensor(expected, dtype=torch.float64))


def test_the_loss_is_its_definition_query_by_query():
    generator = torch.Generator().manual_seed(0)
    cosines = torch.rand(5, 7, generator=generator) * 2 - 1
    grades = torch.tensor([[1, 0.5, 0.25, 0, 0, 0, 0], [0, 1, 1, 0.75, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0],
                           [0.25, 0.5, 0.75, 1, 0, 0, 0], [0.5, 0.5, 1, 0, 0, 0.25, 0]])  # fmt: skip
    made, total = Contrast(temperature=0.1, margin=0.4, weight=0.5), 0.0
    for s, g in zip(cosines.tolist(), grades.tolist(), strict=True):
        negatives = [math.exp(s[j] / 0.1) for j in range(7) if g[j] == 0]
        each = [
            -math.log(math.exp(s[i] / 0.1) / (math.exp(s[i] / 0.1) + sum(negatives))) for i in range(7) if g[i] == 1
        ]
        hinges = [max(0.0, 0.4 * (g[i] - g[j]) - (s[i] - s[j])) for i in range(7) for j in range(7) if g[i] > g[j] > 0]
        total += sum(each) / len(each) + 0.5 * (sum(hinges) / len(hinges) if hinges else 0.0)
    assert float(made.loss(cosines, grades)) == pytest.approx(total, rel=1e-5)


def test_a_lesson_is_of_queries_after_the_same_document():
    collection = shop()
    found = lessons(collection, [[0, 2, 4, 6]] * len(collection.queries), Sampling(2, 2, 0), queries=2, seed=0)
    assert sorted(q for lesson in found for q in lesson.queries) == list(range(len(collection.queries)))
    for lesson in found:
        assert len(lesson.queries) <= 2 and len(lesson.documents) == 4
        assert {collection.relevant[q][lesson.documents[0]] for q in lesson.queries} == {4}


def test_more_documents_than_there_are_cannot_be_retrieved():
    rows = torch.nn.functional.normalize(torch.randn(4, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    places, values = retrieved(rows, rows, 2)
    assert places[:, 0].tolist() == [0, 1, 2, 3] and bool((values[:, 0] > 0.999).all())
    with pytest.raises(InputError, match="5 of 4 documents cannot be retrieved"):
        retrieved(rows, rows, 5)


def test_tuning_brings_the_best_document_up_and_leaves_an_encoder_that_others_open(tmp_path):
    """MiniLM takes invented words for nothing; after a few steps it knows what they are after."""
    from sentence_transformers import SentenceTransformer

    documents = shop().documents
    meant = {"zorp": 0, "quib": 2, "flim": 4, "drax": 6}
    queries = tuple(Query(f"{word}{i}", f"{word} {i}") for word in meant for i in range(4))
    judged = {q.id: {documents[meant[q.text[:4]]].id: 2, documents[meant[q.text[:4]] + 1].id: 1} for q in queries}
    collection = Collection(documents, queries, judged)
    before = quality(found_by(load_encoder("minilm"), collection, 8)[0], collection, k=2).mean(0)
    losses = []
    train_retriever(
        "minilm", tmp_path / "tuned", collection=collection, compute="float32",
        config=RetrieverConfig(epochs=10, batch=4, queries=4, learning_rate=1e-4, sampling=Sampling(2, 2, 0)),
        progress=lambda record, steps: losses.append(record.loss),
    )  # fmt: skip
    tuned = load_encoder(str(tmp_path / "tuned"))
    after = quality(found_by(tuned, collection, 8)[0], collection, k=2).mean(0)
    assert before[0] < 0.6 and after[0] > 0.95 and after[1] == 1
    assert len(losses) == 10 and losses[-1] < losses[0] / 2
    plain = SentenceTransformer(str(tmp_path / "tuned"), device="cpu")
    assert plain.max_seq_length == tuned.max_seq_length == 256
    vectors = encoded(tuned, [d.text for d in documents])
    torch.testing.assert_close(
        vectors, plain.encode([d.text for d in documents], convert_to_tensor=True), atol=1e-5, rtol=0
    )
    assert set(geometry(vectors, k=2)) == {"effective_rank_centred", "mean_cosine", "uniformity", "hubness"}


def test_an_encoder_that_cannot_be_loaded_is_named(tmp_path):
    with pytest.raises(InputError, match=r"--encoder .*: cannot be loaded \(.*\); give minilm, a folder or a hub id"):
        load_encoder(str(tmp_path))


def test_signals_are_weighed_by_what_they_say_of_grades():
    """Two signals carry half of the truth each, one is noise: the combination ranks better than each, and ignores noise."""
    generator = torch.Generator().manual_seed(0)
    collection = shop()
    grades = torch.tensor([[float(g.get(d, 0)) for d in range(8)] for g in collection.relevant])
    noise = torch.randn(3, *grades.shape, generator=generator)
    signals = torch.stack([(grades >= 2) + 0.1 * noise[0], (grades == 4) + 0.1 * noise[1], 50 + 10 * noise[2]])
    made = combine(("shelf", "colour", "noise"), signals, collection, near=8)
    assert min(made.weights[:2]) > 10 * abs(made.weights[2])
    together = quality(made.top(signals, 2), collection, k=2)[:, 0].mean()
    alone = [quality(s.sort(dim=1, descending=True)[1][:, :2], collection, k=2)[:, 0].mean() for s in signals]
    assert together > max(alone) and together > 0.99
    with pytest.raises(InputError, match="the signal 'flat' is the same"):
        combine(("shelf", "flat"), torch.stack([signals[0], torch.ones_like(grades)]), collection)
