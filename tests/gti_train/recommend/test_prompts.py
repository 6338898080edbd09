"""Histories become prompts that share their beginnings, and nothing held out is ever in them."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gti_diag.errors import InputError
from gti_train.catalogue.splits import global_time, leave_one_out
from gti_train.catalogue.world import product_world
from gti_train.model.loading import load_language_model
from gti_train.model.sequences import encode
from gti_train.recommend.prompts import (
    HISTORY_PHRASINGS,
    NEXT,
    TASKS,
    TITLE,
    TO_CODE,
    TO_TEXT,
    WORDS,
    fine_tuning_examples,
    history_prompt,
    validation_examples,
    windows,
)
from gti_train.semantic_ids.making import semantic_ids


@pytest.fixture(scope="module")
def world():
    catalogue = product_world(items=90, users=12)
    catalogue = replace(catalogue, histories=leave_one_out(catalogue).train)
    return catalogue, semantic_ids(catalogue, dimensions=8, sizes=(6, 5))


def test_a_phrasing_asks_first_and_ends_with_the_history():
    assert history_prompt(["<a_0><b_1>", "<a_2><b_0>"], phrasing=2).endswith(": <a_0><b_1> <a_2><b_0>")
    for task in HISTORY_PHRASINGS:
        assert len({history_prompt(["x", "y"], phrasing=i, task=task) for i in range(3)}) == 3


def test_bad_histories_are_refused():
    with pytest.raises(InputError, match="the history is empty"):
        history_prompt([])
    with pytest.raises(InputError, match="phrasing 3 is unknown: use one of 0…2"):
        history_prompt(["x"], phrasing=3)


@given(length=st.integers(0, 60), longest=st.integers(1, 20))
def test_windows_cover_every_event_and_keep_to_their_length(length, longest):
    found = list(windows(length, longest))
    assert [event for _, event in found] == list(range(1, length))
    for start, event in found:
        assert start == 0 if event <= longest else (event - longest) <= start < event
        assert event - start > (longest - 1) // 2 or start == 0


def test_each_family_asks_for_every_next_item_of_a_user(world):
    catalogue, sids = world
    families = fine_tuning_examples(catalogue, sids, longest=4)
    trained = [[e.item_id for e in events] for events in catalogue.histories.values()]
    trained = [met for met in trained if len(met) > 1]
    assert len(families) == 3 * len(trained)
    for family, met in zip(families[::3], trained, strict=True):
        assert [example.item_id for example in family] == met[1:]
        assert [example.answer for example in family] == ["".join(sids.of(item)) for item in met[1:]]
        assert family[0].prompt == history_prompt(["".join(sids.of(met[0]))])


def test_the_examples_of_a_user_share_tokens(world, tiny_lm):
    catalogue, sids = world
    _, tokenizer = load_language_model(tiny_lm(new_tokens=sids.tokens))
    family = max(fine_tuning_examples(catalogue, sids), key=len)
    ids = [encode(example, tokenizer, new=(), max_tokens=500).ids for example in family]
    for one, two in pairwise(ids):
        shared = next(i for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b)
        assert shared >= len(one) - len("\n") - len(sids.of(family[0].item_id)) - 1  # all but the turn's end and answer


def test_no_held_out_event_is_learned_from():
    world = product_world(items=90, users=12)
    sids = semantic_ids(world, dimensions=8, sizes=(6, 5))
    catalogue = replace(world, histories=leave_one_out(world).train)
    for task in (NEXT, WORDS, TITLE):
        said = {
            (example.prompt, example.answer)
            for family in fine_tuning_examples(catalogue, sids, tasks=[task])
            for example in family
        }
        allowed = set()
        for events in world.histories.values():
            met = [event.item_id for event in events][:-2]
            title = {item.id: item.title for item in catalogue.items}
            code = {item.id: "".join(sids.of(item.id)) for item in catalogue.items}
            shown, wanted = (title if task == WORDS else code), (title if task == TITLE else code)
            for n in range(1, len(met)):
                for phrasing in range(3):
                    asked = history_prompt([shown[i] for i in met[:n]], phrasing=phrasing, task=task)
                    allowed.add((asked, wanted[met[n]]))
        assert said == allowed


def test_alignment_tasks_are_the_questions_of_grounding(world):
    catalogue, sids = world
    to_code = fine_tuning_examples(catalogue, sids, tasks=[TO_CODE])
    to_text = fine_tuning_examples(catalogue, sids, tasks=[TO_TEXT])
    assert len(to_code) == len(to_text) == 3 * len(catalogue.items)
    assert all(example.answer == "".join(sids.of(example.item_id)) for (example,) in to_code)
    assert {example.kind for (example,) in to_text} == {TO_TEXT}


def test_unusable_requests_are_refused(world):
    catalogue, sids = world
    with pytest.raises(InputError, match=r"tasks \['banana'\]: choose one or more of next, "):
        fine_tuning_examples(catalogue, sids, tasks=["banana"])
    with pytest.raises(InputError, match="no user has two events to learn from"):
        fine_tuning_examples(product_world(items=90, users=0), sids)
    assert set(HISTORY_PHRASINGS) < set(TASKS)


def test_validation_asks_for_what_follows_the_training_events():
    world = product_world(items=90, users=12)
    sids, split = semantic_ids(world, dimensions=8, sizes=(6, 5)), leave_one_out(world)
    found = validation_examples(world, split, sids, longest=3)
    events = [e for e in world.histories.values() if len(e) > 2]
    assert [example.item_id for (example,) in found] == [e[-2].item_id for e in events]
    assert found[0][0].prompt == history_prompt(["".join(sids.of(e.item_id)) for e in events[0][:-2][-3:]])
    late = global_time(world, valid=0.3)
    for family in validation_examples(world, late, sids):
        assert [example.item_id for example in family][-1:] != []
    assert sum(map(len, validation_examples(world, late, sids))) <= len(late.valid.rows)
