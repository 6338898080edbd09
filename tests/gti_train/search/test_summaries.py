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


def test_each_asking_gives_up_half_of_what_is_too_long_cheapest_first():
    parts = ["a b.", "b c.", "c d.", "a d.", "x y.", "z w.", "d e.", "u v."]
    asked, queries = [], ["a b c", "d"]

    def score(pairs):
        asked.append(list(dict.fromkeys(text for _, text in pairs)))
        return judge(pairs)

    def far(places):
        return float((judge([(q, " ".join(parts[i] for i in places)) for q in queries]) - whole).abs().mean())

    kept, moved = summarise(parts, queries, score, budget=8, length=words)
    left, whole, rounds = list(range(8)), judge([(q, " ".join(parts)) for q in queries]), []
    for words_left in (12, 10, 8):  # of 16, then half of what is above 8, a sentence at least
        changes = {out: far([i for i in left if i != out]) for out in left}
        rounds.append([" ".join(parts[i] for i in left if i != out) for out in left])
        for out in sorted(left, key=changes.get)[: len(left) - words_left // 2]:
            left.remove(out)
    assert kept == left
    assert asked == [[" ".join(parts)], *rounds, [" ".join(parts[i] for i in kept)]]
    assert moved == far(kept)


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
    assert len(calls) == before + 3 and [s.doc_id for s in read_summaries(cache)] == ["x", "y"]
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
