"""Who is asked what, and who belongs together."""

import pytest
import torch

from gti_diag.errors import InputError
from gti_train.catalogue.records import Catalogue, Event, Item
from gti_train.catalogue.splits import global_time, leave_one_out
from gti_train.recommend.cases import cases, slices

HISTORIES = {"a": [0, 1, 2, 3], "b": [4], "c": [0, 5], "e": [0, 1, 0, 1, 6, 0]}


def asked_of(histories, items, split=leave_one_out, **how):
    """The cases of a split of histories of item numbers."""
    events = {user: tuple(Event(str(item), t) for t, item in enumerate(met)) for user, met in histories.items()}
    catalogue = Catalogue(tuple(Item(str(item), "") for item in range(items)), events)
    return cases(split(catalogue), {str(item): item for item in range(items)}, **how)


def test_each_user_is_asked_for_the_last_event_and_trained_on_all_but_two():
    asked = asked_of(HISTORIES, 7)
    assert asked.users == ("a", "e")
    assert asked.histories == [[0, 1, 2], [0, 1, 0, 1, 6]]
    assert asked.relevant == [{3: 1.0}, {0: 1.0}]
    assert asked.training == [[0, 1], [4], [0, 5], [0, 1, 0, 1]]  # histories of 1 and 2 train only
    assert asked.left_out == 2
    assert asked.popular.tolist() == [4, 3, 0, 0, 1, 1, 0]


def test_a_split_by_time_asks_for_the_first_event_after_it():
    asked = asked_of({"a": [0, 1, 2, 3, 4, 5], "b": [0, 1]}, 6, split=lambda c: global_time(c, valid=0.2, test=0.3))
    assert (asked.users, asked.histories, asked.relevant) == (("a",), [[0, 1, 2, 3]], [{4: 1.0}])
    assert asked.left_out == 1


def test_validation_asks_for_the_event_before():
    asked = asked_of(HISTORIES, 7, part="valid")
    assert asked.users == ("a", "e")
    assert asked.relevant == [{2: 1.0}, {6: 1.0}]


def test_grades_replace_the_event_and_users_without_one_are_left_out():
    asked = asked_of(HISTORIES, 7, grades={"a": {5: 2.0, 6: 0.0}, "c": {}, "b": {1: 1.0}})
    assert (asked.users, asked.relevant, asked.left_out) == (("a",), [{5: 2.0}], 3)


def test_slices_tell_cold_targets_popular_ones_and_long_histories():
    histories = {str(u): [*([0] * 6), *([1] * 3), 2, *range(u), u % 4] for u in range(9)}
    asked = asked_of(histories, 12)
    found = slices(asked)
    cold = asked.popular[torch.tensor([next(iter(row)) for row in asked.relevant])] == 0
    assert torch.equal(found["cold"], cold)
    parts = torch.stack([found[f"popularity_{name}"] for name in ("head", "middle", "tail")])
    assert torch.equal(parts.sum(0), (~cold).long())
    assert parts[0].nonzero()[:, 0].tolist() == [
        u for u in range(9) if u % 4 < 3 and not cold[u]
    ]  # of 7 chosen items the first 3
    lengths = torch.stack([found[f"history_{name}"] for name in ("short", "middle", "long")])
    assert lengths.sum(0).tolist() == [1] * 9
    assert [int(mask.sum()) for mask in lengths] == [3, 3, 3]


def test_nobody_to_ask_and_unknown_parts_are_refused():
    with pytest.raises(InputError, match="none of 1 users has a history"):
        asked_of({"a": [1]}, 3)
    with pytest.raises(InputError, match="use one of test, valid"):
        asked_of(HISTORIES, 7, part="train")
