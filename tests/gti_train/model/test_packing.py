"""Packing keeps to its budgets and holds every sequence once."""

from hypothesis import given
from hypothesis import strategies as st

from gti_train.model.packing import packed
from gti_train.model.trees import node_count

sequence = st.lists(st.integers(0, 2), min_size=2, max_size=9).map(tuple)
families = st.lists(st.lists(sequence, min_size=1, max_size=5), min_size=1, max_size=8)


@given(families=families, row=st.integers(1, 40), budget=st.integers(1, 80))
def test_every_sequence_is_there_once_within_the_budget(families, row, budget):
    passes = packed(families, row=row, budget=budget, overhead=8)
    places = [place for rows in passes for members in rows for place in members]
    assert sorted(places) == [(f, s) for f, family in enumerate(families) for s in range(len(family))]
    for rows in passes:
        sizes = [node_count([families[f][s] for f, s in members]) for members in rows]
        assert all(size <= min(row, budget) or len(members) == 1 for size, members in zip(sizes, rows, strict=True))
        assert max(sizes) * len(rows) <= budget or len(rows) == 1 or max(sizes) <= budget // len(rows) + 1
    assert packed(families, row=row, budget=budget, overhead=8) == passes


def test_a_family_that_fits_stays_together_and_shares_its_row():
    family = [(1, 2, 3, 4), (1, 2, 3, 5), (1, 2, 6, 7)]
    other = [(1, 2, 8, 9)]
    assert packed([other, family], row=8, budget=8, overhead=0) == [[[(1, 0), (1, 1), (1, 2), (0, 0)]]]
    apart = packed([other, family], row=4, budget=4, overhead=0)
    assert sorted(len(members) for rows in apart for members in rows) == [1, 3]


def test_rows_of_like_length_run_together():
    long, other, short = [tuple(range(40))], [tuple(range(60, 100))], [(1, 2, 3)]
    passes = packed([short, long, short, other], row=40, budget=80, overhead=4)
    assert [[len(members) for members in rows] for rows in passes] == [[1, 1], [2]]
