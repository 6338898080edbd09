"""Summaries keep what moves the judge, fit the budget, and go on where a killed run was."""

import json

import pytest
import torch

from gti_diag.errors import InputError
from gti_train.search.summaries import Summary, probes, read_summaries, sentences, summarise, summarise_all

TEXT = "The kettle boils. It is red; it has a lid! Does it whistle? Yes.\nMade in May"


def words(text):
    return len(text.split())


def judge(pairs):
    """A judge that counts the words a query and a document share."""
    return torch.tensor([float(len(set(q.split()) & set(d.replace(".", "").split()))) for q, d in pairs])


def test_sentences_lose_nothing_but_the_space_between_them():
    found = sentences(TEXT)
    assert found == ["The kettle boils.", "It is red;", "it has a lid!", "Does it whistle?", "Yes.", "Made in May"]
    assert " ".join(found).split() == TEXT.split()


def test_what_the_queries_need_stays_and_what_moves_nothing_goes():
    parts = ["kettle boils.", "nothing here.", "red lid.", "nor here at all."]
    kept, moved = summarise(parts, ["kettle", "red kettle"], judge, budget=4, length=words)
    assert kept == [0, 2] and moved == 0
    kept, moved = summarise(parts, ["kettle", "red kettle"], judge, budget=2, length=words)
    assert kept == [0] and moved == 0.5  # losing red moves one of two queries by one, losing kettle both


def test_each_step_leaves_out_the_sentence_that_moves_the_scores_least():
    parts = ["a b.", "b c.", "c d.", "a d."]
    asked = []

    def score(pairs):
        asked.append([text for _, text in pairs])
        return judge(pairs)

    kept, moved = summarise(parts, ["a b c", "d"], score, budget=4, length=words)
    left, whole = list(range(4)), judge([("a b c", " ".join(parts)), ("d", " ".join(parts))])
    for _ in range(2):
        changes = {}
        for out in left:
            text = " ".join(parts[i] for i in left if i != out)
            changes[out] = float((judge([("a b c", text), ("d", text)]) - whole).abs().mean())
        left.remove(min(changes, key=changes.get))
    assert kept == left and moved == min(changes.values())
    assert len(asked) == 3  # the whole, and once for each sentence given up


def test_a_text_within_the_budget_stays_and_one_sentence_always_does():
    assert summarise(["a b.", "c."], ["a"], judge, budget=9, length=words) == ([0, 1], 0.0)
    assert summarise(["a b c d."], ["a"], judge, budget=1, length=words) == ([0], 0.0)
    with pytest.raises(InputError, match="1 sentences and 0 queries"):
        summarise(["a."], [], judge, budget=1, length=words)


def test_a_killed_run_goes_on_where_it_was(tmp_path):
    documents = {"x": "kettle boils. nothing here.", "y": "red lid. nor here."}
    queries = {"x": ["kettle"], "y": ["red"]}
    cache, calls = tmp_path / "summaries.jsonl", []

    def score(pairs):
        calls.append(pairs)
        return judge(pairs)

    found = summarise_all(documents, queries, score, budget=2, length=words, cache=cache)
    assert [s.text for s in found] == ["kettle boils.", "red lid."]
    before = len(calls)
    cache.write_bytes(cache.read_bytes()[:-9])  # killed within the last line
    assert summarise_all(documents, queries, score, budget=2, length=words, cache=cache) == found
    assert len(calls) == before + 2 and [s.doc_id for s in read_summaries(cache)] == ["x", "y"]
    assert read_summaries(cache)[0] == Summary(**json.loads(cache.read_text().splitlines()[0]))


def test_a_malformed_line_is_named(tmp_path):
    path = tmp_path / "summaries.jsonl"
    path.write_text('{"doc_id": "x", "text": "t", "moved": "far"}\n')
    with pytest.raises(InputError, match=r"summaries\.jsonl:1.*moved"):
        read_summaries(path)


def test_probes_are_the_best_judged_queries_then_those_that_find_the_document():
    judged, near = [{0: 1}, {0: 4, 1: 2}, {}], [[1, 0], [0, 1], [0, 1]]
    found = probes(judged, ["p", "q", "r"], 2, near=near)
    assert found == {0: ["q", "p"], 1: ["q", "p"]}
