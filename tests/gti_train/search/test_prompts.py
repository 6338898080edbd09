"""Prompts: one function, whose question survives every truncation."""

from dataclasses import replace

import pytest

from gti_diag.errors import InputError
from gti_train.search.prompts import DOCUMENT_FIRST, QUERY_FIRST, Prompter, Wording, read_policy

WORDING = Wording("Is it good for the road?", " warm", " light", "\nFit:")
QUERY, DOCUMENT = "a red kettle", "A light tent for two people, easy to carry, easy to dry. " * 4


def test_the_parts_stand_in_the_order_that_was_asked_for(tiny_tokenizer):
    for order, text in (
        (QUERY_FIRST, "Is it good for the road?\nQuery: a red kettle\nDocument: a tent\nFit:"),
        (DOCUMENT_FIRST, "Is it good for the road?\nDocument: a tent\nQuery: a red kettle\nFit:"),
    ):
        prompter = Prompter(tiny_tokenizer, replace(WORDING, order=order))
        found = prompter.prompts([(QUERY, "a tent")])
        assert tiny_tokenizer.decode(found.ids[0]) == text
        assert tiny_tokenizer.decode(found.ids[0][: found.shared[0]]) == text[: text.rindex(":", 0, -1) + 1]


@pytest.mark.parametrize("order", [QUERY_FIRST, DOCUMENT_FIRST])
def test_truncation_cuts_the_document_and_nothing_else_at_every_length(tiny_tokenizer, order):
    whole = Prompter(tiny_tokenizer, replace(WORDING, order=order, max_tokens=10_000))
    full = whole.prompts([(QUERY, DOCUMENT)]).ids[0]
    document = whole.tokens(f" {DOCUMENT}")
    begin = next(i for i in range(len(full)) if full[i : i + len(document)] == document)
    fixed = len(full) - len(document)
    for length in range(fixed + 1, len(full) + 3):
        cut = Prompter(tiny_tokenizer, replace(WORDING, order=order, max_tokens=length)).prompts([(QUERY, DOCUMENT)])
        kept = min(length - fixed, len(document))
        assert cut.ids[0] == full[: begin + kept] + full[begin + len(document) :]
    with pytest.raises(InputError, match=f"take {fixed} tokens and leave none of {fixed} for a document"):
        Prompter(tiny_tokenizer, replace(WORDING, order=order, max_tokens=fixed)).prompts([(QUERY, DOCUMENT)])


def test_neighbours_share_what_is_said_to_be_shared(tiny_tokenizer):
    by_query = Prompter(tiny_tokenizer, WORDING).prompts([(QUERY, "a tent"), (QUERY, "the lamp")])
    assert by_query.ids[0][: by_query.shared[0]] == by_query.ids[1][: by_query.shared[1]]
    by_document = Prompter(tiny_tokenizer, replace(WORDING, order=DOCUMENT_FIRST)).prompts([(QUERY, "a"), ("b", "a")])
    assert by_document.ids[0][: by_document.shared[0]] == by_document.ids[1][: by_document.shared[1]]


def test_what_cannot_be_asked_is_refused(tiny_tokenizer, tmp_path):
    with pytest.raises(InputError, match="' warm' and ' warmer' begin with the same token"):
        Prompter(tiny_tokenizer, replace(WORDING, no=" warmer"))
    with pytest.raises(InputError, match="answer '' has no token"):
        Prompter(tiny_tokenizer, replace(WORDING, yes=""))
    with pytest.raises(InputError, match="'sideways' is unknown"):
        replace(WORDING, order="sideways")
    with pytest.raises(InputError, match="a query or document is empty"):
        Prompter(tiny_tokenizer, WORDING).prompts([(QUERY, " ")])
    (tmp_path / "policy.txt").write_text(" \n")
    with pytest.raises(InputError, match=r"policy.txt: is empty; say what counts"):
        read_policy(tmp_path / "policy.txt")
    with pytest.raises(InputError, match=r"none.txt: cannot be read"):
        read_policy(tmp_path / "none.txt")
