"""Collections: read as they were written, refused where they are malformed, split so that no group is on both sides."""

import json

import pytest
import torch

from gti_diag.errors import InputError
from gti_train.search.collection import Collection, Document, Query, apart, split, write_collection
from gti_train.search.evaluation import quality, report, reranked
from gti_train.search.reading import read_collection
from gti_train.search.world import product_search


def small() -> Collection:
    """Twelve documents in six groups of two; query i is after group i and thinks well of the next one's first."""
    documents = tuple(Document(f"d{i}", f"title {i}", f"text {i}", f"g{i // 2}") for i in range(12))
    queries = tuple(Query(f"q{i}", f"words {i}") for i in range(6))
    judged = {f"q{i}": {f"d{2 * i}": 4, f"d{2 * i + 1}": 4, f"d{(2 * i + 2) % 12}": 2} for i in range(6)}
    return Collection(documents, queries, judged)


def test_what_is_written_is_read_again(tmp_path):
    write_collection({"train": small()}, tmp_path)
    assert read_collection(tmp_path, "train") == small()


def test_beir_and_trec_files_are_read(tmp_path):
    corpus = [{"_id": "a", "title": "A", "text": "first"}, {"_id": "b", "text": "second", "metadata": {}}]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(line) + "\n" for line in corpus))
    (tmp_path / "queries.jsonl").write_text('{"_id": "q", "text": "who"}\n{"_id": "r", "text": "unjudged"}\n')
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\tb\t1\nq\ta\t0\n")
    beir = read_collection(tmp_path, "test")
    assert [d.text for d in beir.documents] == ["A. first", "second"] and beir.relevant == [{1: 1, 0: 0}]
    (tmp_path / "qrels.old.tsv").write_text("q 0 b 1\nq 0 a 0\n")
    assert read_collection(tmp_path, "old") == beir


@pytest.mark.parametrize(
    ("file", "line", "said"),
    [
        ("qrels.t.tsv", "q0\td1", r"qrels.t.tsv:19: 2 columns; write query, document and grade"),
        ("qrels.t.tsv", "q0\td9\thigh", r"grade 'high'; a grade is a whole number from 0 to 100"),
        ("qrels.t.tsv", "q0\td9\t-1", r"grade '-1'"),
        ("qrels.t.tsv", "q9\td9\t1", r"query 'q9' is unknown"),
        ("qrels.t.tsv", "q0\td99\t1", r"document 'd99' is unknown"),
        ("qrels.t.tsv", "q0\td0\t1", r"document 'd0' is judged twice for query 'q0'"),
        ("queries.t.jsonl", '{"query_id": "q9", "text": " "}', r"queries.t.jsonl:7: query 'q9' has an empty text"),
        ("queries.t.jsonl", '{"query_id": "q0", "text": "x"}', r"query 'q0' occurs twice"),
        ("documents.jsonl", '{"doc_id": "n", "text": ""}', r"documents.jsonl:13: document 'n' has an empty text"),
        ("documents.jsonl", '{"doc_id": "a b", "text": "x"}', r"document 'a b' holds a blank; leave blanks out"),
        ("documents.jsonl", '{"doc_id": 5, "text": "x"}', r"doc_id is 5, it should be a text"),
        ("documents.jsonl", "not json", r"documents.jsonl:13: is not usable JSON"),
    ],
)
def test_a_malformed_line_is_named(tmp_path, file, line, said):
    write_collection({"t": small()}, tmp_path)
    with (tmp_path / file).open("a") as opened:
        opened.write(line + "\n")
    with pytest.raises(InputError, match=said):
        read_collection(tmp_path, "t")


def test_a_folder_that_is_no_collection_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"has none of documents.jsonl, docs.jsonl, corpus.jsonl"):
        read_collection(tmp_path, "train")
    write_collection({"t": small()}, tmp_path)
    (tmp_path / "qrels.t.tsv").write_text("q0\td0\t0\n")
    with pytest.raises(InputError, match="no query has a document with a grade above 0"):
        read_collection(tmp_path, "t")


def test_a_split_shares_no_group(tmp_path):
    for seed in range(5):
        train, test = split(small(), share=0.5, seed=seed)
        held_out = {group for best in test.best_groups for group in best}
        assert len(held_out) == 3 and len(test.queries) == 3 and len(test.documents) == 12
        assert not held_out & {document.group for document in train.documents}
        assert not {q.id for q in train.queries} & {q.id for q in test.queries}
        assert {d for grades in train.judgements.values() for d in grades} <= set(train.places)
        assert apart(small(), test) == train
    with pytest.raises(InputError, match="holding out 0 of 6 groups leaves one side without a query"):
        split(small(), share=0.0, seed=0)
    with pytest.raises(InputError, match="every training query is after a document that the test asks for"):
        apart(small(), small())


def test_quality_is_of_all_judged_documents():
    collection = small()
    perfect = torch.tensor([[2 * i, 2 * i + 1, (2 * i + 2) % 12, (2 * i + 5) % 12] for i in range(6)])
    assert torch.equal(quality(perfect, collection, k=4), torch.ones(6, 2, dtype=torch.float64))
    worse = perfect.clone()
    worse[0] = torch.tensor([2, 3, 0, 1])  # gain 3 of the second group's first document, 15 of its own two
    values = quality(worse, collection, k=2)
    assert values[0, 0] == pytest.approx(3 / (15 * (1 + 1 / torch.log2(torch.tensor(3.0)).item())))
    assert values[0, 1] == 0 and bool((values[1:] == 1).all())
    told = report({"perfect": quality(perfect, collection, k=2), "worse": values}, seed=0, against=["perfect"])
    assert told["worse"]["minus perfect"]["best"]["value"] == pytest.approx(-1 / 6)
    assert "minus perfect" not in told["perfect"]


def test_reranking_keeps_the_order_of_ties():
    found = reranked(torch.tensor([[7, 3, 5]]), torch.tensor([[0.0, 2.0, 0.0]]))
    assert found.tolist() == [[3, 7, 5]]


def test_grades_of_the_embedded_collection_follow_from_the_products():
    from gti_train.catalogue.world import product_world

    collection = product_search(items=162, queries=60, seed=3)
    items = {item.id: item for item in product_world(items=162, users=0, seed=3).items}
    assert collection == product_search(items=162, queries=60, seed=3) and len(collection.queries) == 60
    graded = {grade for grades in collection.judgements.values() for grade in grades.values()}
    assert graded == {1, 2, 3, 4}
    for query in collection.queries:
        grades = collection.judgements[query.id]
        best = [items[d] for d, grade in grades.items() if grade == 4]
        shelf = best[0].category
        facts = [{*item.attributes.values(), item.brand} for item in best]
        asked = {fact for fact in set.intersection(*facts) if fact in query.text}
        assert asked, query.text
        for identifier, grade in grades.items():
            item = items[identifier]
            true = asked & {*item.attributes.values(), item.brand}
            expected = 1 if item.category != shelf else 4 if true == asked else 3 if true else 2
            assert grade == expected and item.category[:2] == shelf[:2]
    train, test = split(collection, share=0.3, seed=0)
    assert not {d.group for d in train.documents} & {group for best in test.best_groups for group in best}
