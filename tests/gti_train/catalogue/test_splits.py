"""Histories in columns are the mapping that they stand for, and no event is lost or shown twice by a split."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tests.strategies  # noqa: F401  no deadlines
from gti_diag.errors import InputError
from gti_train.catalogue.records import Catalogue, Event, Gathering, Item
from gti_train.catalogue.splits import global_time, leave_one_out

ITEMS = tuple(Item(name, name.upper()) for name in "abcd")
events = st.tuples(st.sampled_from("xyz"), st.sampled_from("abcd"), st.integers(-9, 9))


def gathered(rows):
    found = Gathering("abcd")
    for row in rows:
        found.add(*row)
    return found.histories()


def reference(rows):
    """User -> events in order of time, with loops and a stable sort."""
    users = {}
    for user, item, time in rows:
        users.setdefault(user, []).append(Event(item, time))
    return {user: tuple(sorted(found, key=lambda event: event.time)) for user, found in users.items()}


@given(st.lists(events, max_size=30))
def test_columns_are_the_mapping(rows):
    assert gathered(rows) == reference(rows)
    assert dict(gathered(rows)) == dict(Catalogue(ITEMS, reference(rows)).columns)


def test_unknown_items_cannot_be_added():
    with pytest.raises(KeyError, match="q"):
        Gathering("abcd").add("x", "q", 1)


@given(st.lists(events, max_size=40))
def test_leave_one_out_takes_the_last_two_events_of_each_user(rows):
    split = leave_one_out(Catalogue(ITEMS, gathered(rows)))
    for user, found in reference(rows).items():
        if len(found) < 3:
            assert split.train[user] == found and user not in split.test and user not in split.valid
        else:
            assert (*split.train[user], *split.valid[user], *split.test[user]) == found
            assert len(split.valid[user]) == len(split.test[user]) == 1


@given(st.lists(events, min_size=2, max_size=40).filter(lambda rows: len({row[2] for row in rows}) > 1))
def test_global_time_cuts_all_histories_at_the_same_moments(rows):
    split = global_time(Catalogue(ITEMS, gathered(rows)), valid=0.2, test=0.2)
    parts = (split.train, split.valid, split.test)
    times = [sorted(part.times.tolist()) for part in parts]
    assert sorted(time for part in times for time in part) == sorted(row[2] for row in rows)
    for earlier, later in ((0, 1), (0, 2), (1, 2)):
        assert not times[earlier] or not times[later] or times[earlier][-1] < times[later][0]
    assert len(times[2]) <= 0.2 * len(rows) and len(times[0]) > 0


def test_impossible_splits_are_refused():
    catalogue = Catalogue(ITEMS, {"x": (Event("a", 4), Event("b", 4))})
    with pytest.raises(InputError, match="same time"):
        global_time(catalogue)
    with pytest.raises(InputError, match="leave nothing to train"):
        global_time(catalogue, valid=0.5, test=0.5)
    with pytest.raises(InputError, match="3 or more"):
        leave_one_out(catalogue, least=2)


def test_a_mask_keeps_events_and_drops_empty_users():
    histories = gathered([("x", "a", 1), ("y", "b", 2), ("x", "c", 3)])
    kept = histories.where(np.array([False, True, False]))
    assert kept == {"x": (Event("c", 3),)}
    assert kept.item_ids == histories.item_ids
