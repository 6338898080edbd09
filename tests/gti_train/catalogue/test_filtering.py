"""The k-core is the largest one, repeats go by name, and a catalogue's numbers are those counted by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tests.strategies  # noqa: F401  no deadlines
from gti_diag.errors import InputError
from gti_train.catalogue.describing import describe, gini
from gti_train.catalogue.filtering import k_core, repeats
from gti_train.catalogue.records import Catalogue, Event, Item

pairs = st.lists(st.tuples(st.sampled_from("uvw"), st.sampled_from("abcd")), min_size=1, max_size=30)


def made(rows):
    histories = {}
    for time, (user, item) in enumerate(rows):
        histories.setdefault(user, []).append(Event(item, time))
    return Catalogue(tuple(Item(name, name) for name in "abcd"), {u: tuple(e) for u, e in histories.items()})


def core_reference(rows, users, items):
    while True:
        left = [
            (u, i)
            for u, i in rows
            if sum(u == v for v, _ in rows) >= users and sum(i == j for _, j in rows) >= items
        ]  # fmt: skip
        if left == rows:
            return left
        rows = left


@given(pairs, st.integers(0, 4), st.integers(0, 4))
def test_k_core_is_what_is_left_when_nothing_changes(rows, users, items):
    expected = core_reference(rows, users, items)
    if not expected:
        with pytest.raises(InputError, match="no event is left"):
            k_core(made(rows), users=users, items=items)
        return
    core = k_core(made(rows), users=users, items=items)
    assert sorted((u, event.item_id) for u, events in core.histories.items() for event in events) == sorted(expected)
    kept = [item.id for item in core.items]
    assert kept == [name for name in "abcd" if sum(name == i for _, i in expected) >= items]


@pytest.mark.parametrize(("keep", "expected"), [("all", "aabab"), ("first", "ab"), ("changes", "abab")])
def test_repeats_go_by_name(keep, expected):
    left = repeats(made([("u", item) for item in "aabab"]), keep)
    assert "".join(event.item_id for event in left.histories["u"]) == expected


def test_unknown_rules_for_repeats_are_refused():
    with pytest.raises(InputError, match="--repeats 'none' is unknown: use one of all, first, changes"):
        repeats(made([("u", "a")]), "none")


@given(st.lists(st.integers(0, 50), min_size=1, max_size=20).filter(any))
def test_gini_is_the_mean_difference_over_twice_the_mean(counts):
    values = np.array(counts)
    differences = np.abs(values[:, None] - values[None, :]).mean()
    assert gini(values) == pytest.approx(differences / (2 * values.mean()), abs=1e-12)


def test_the_inequality_of_nothing_is_refused():
    with pytest.raises(ValueError, match="all zero"):
        gini(np.zeros(3, dtype=int))


def test_a_catalogue_in_numbers():
    found = describe(made([("u", "a"), ("u", "a"), ("u", "b"), ("v", "c")]))
    assert (found["items"], found["users"], found["events"]) == (4, 2, 4)
    assert (found["items_without_events"], found["repeated_events"], found["items_without_text"]) == (1, 1, 0)
    assert found["history_length"]["mean"] == 2 and found["history_length"]["most"] == 3
    assert found["splits"]["leave_one_out"] == {"train": 2, "valid": 1, "test": 1, "cold_share": 1.0}
    assert found["time"] == {"first": 0, "last": 3}


def test_what_does_not_exist_is_none():
    found = describe(Catalogue((Item("a", ""),)))
    assert (
        found["popularity_gini"] is found["time"] is found["history_length"] is found["splits"]["global_time"] is None
    )
    assert found["items_without_text"] == 1 and found["splits"]["leave_one_out"]["cold_share"] is None
