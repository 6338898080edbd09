"""The tree of items against a dictionary of prefixes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gti_diag.errors import InputError
from gti_train.recommend import trie as module
from gti_train.recommend.filters import allowed
from gti_train.recommend.trie import Trie


@st.composite
def code_tables(draw):
    sizes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    rows = draw(st.lists(st.tuples(*(st.integers(0, size - 1) for size in sizes)), min_size=1, max_size=30))
    return torch.tensor(rows), [torch.arange(size) + 10 * level for level, size in enumerate(sizes)]


def prefixes(codes, depth):
    """Each prefix of this length and the items below it, in the order of the codes."""
    found = {}
    for item, row in enumerate(codes.tolist()):
        found.setdefault(tuple(row[:depth]), []).append(item)
    return dict(sorted(found.items()))


def node_of(tree, prefix):
    node = torch.zeros((), dtype=torch.long)
    for depth, code in enumerate(prefix):
        node = tree.step(depth, node, torch.tensor(code))
    return int(node)


@settings(deadline=None, max_examples=50)
@given(code_tables())
def test_every_prefix_is_a_node_with_its_items_and_children(table):
    codes, tokens = table
    tree = Trie(codes, tokens)
    for depth in range(tree.levels + 1):
        below = prefixes(codes, depth)
        assert tree.count(depth) == len(below)
        for node, (prefix, items) in enumerate(below.items()):
            start, end = tree.starts[depth][node], tree.starts[depth][node + 1]
            assert sorted(tree.items[start:end].tolist()) == items
            assert int(tree.first[depth][node]) == items[0]
            assert node_of(tree, prefix) == node
            if depth:
                assert int(tree.codes[depth][node]) == prefix[-1]
                assert int(tree.parents[depth][node]) == node_of(tree, prefix[:-1])
    leaves = list(prefixes(codes, tree.levels).values())
    assert [int(leaf) for leaf in tree.leaf_of] == [
        leaves.index(next(g for g in leaves if i in g)) for i in range(len(codes))
    ]
    assert [tree.items[s:e].tolist() for s, e in zip(tree.starts[-1], tree.starts[-1][1:], strict=False)] == leaves


@settings(deadline=None, max_examples=50)
@given(code_tables(), st.data())
def test_a_child_is_found_in_a_table_and_by_search_alike(table, data):
    codes, tokens = table
    dense = Trie(codes, tokens)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "DENSE_CELLS", data.draw(st.integers(0, 20)))
        sparse = Trie(codes, tokens)
    for depth in range(dense.levels):
        nodes = torch.arange(dense.count(depth)).repeat_interleave(len(tokens[depth]))
        every = torch.arange(len(tokens[depth])).repeat(dense.count(depth))
        found = dense.step(depth, nodes, every)
        assert torch.equal(found, sparse.step(depth, nodes, every))
        known = {(*prefix,) for prefix in prefixes(codes, depth + 1)}
        assert int((found < dense.count(depth + 1)).sum()) == len(known)


@settings(deadline=None, max_examples=50)
@given(code_tables(), st.data())
def test_a_node_is_allowed_where_an_allowed_item_lies_below(table, data):
    codes, tokens = table
    tree, numbers = Trie(codes, tokens), st.sets(st.integers(0, len(codes) - 1))
    only, exclude = data.draw(st.none() | numbers), data.draw(numbers)
    masks = allowed(tree, [0], only=[only], exclude=[exclude])
    free = (set(range(len(codes))) if only is None else only) - exclude
    assert (masks is None) == (only is None and not exclude)
    for depth in range(tree.levels + 1) if masks else ():
        expected = [bool(free & set(items)) for items in prefixes(codes, depth).values()]
        assert masks.nodes[depth][0].tolist() == expected
        assert masks.items[0].tolist() == [int(item) in free for item in tree.items]


def test_codes_too_many_for_one_number_are_sorted_all_the_same():
    codes = torch.randint(0, 2, (50, 9), generator=torch.Generator().manual_seed(1)) * (2**31 - 1)
    assert [codes[i].tolist() for i in module._sorted(codes)] == sorted(codes.tolist())


def test_memory_is_told_and_grows_with_the_items_not_with_the_codes():
    codes = torch.randint(0, 64, (20_000, 4), generator=torch.Generator().manual_seed(0))
    tree = Trie(codes, [torch.arange(64)] * 4)
    tensors = [
        t
        for value in vars(tree).values()
        for t in (value if isinstance(value, list) else [value])
        if torch.is_tensor(t)
    ]
    assert tree.nbytes == sum(t.nbytes for t in tensors)
    assert tree.nbytes < 20_000 * 4 * 6 * 8 + sum(table.nbytes for table in tree.tables)


@pytest.mark.parametrize(
    "codes, tokens, complaint",
    [
        (torch.zeros(0, 2, dtype=torch.long), [torch.arange(2)] * 2, "1 or more items"),
        (torch.zeros(3, dtype=torch.long), [torch.arange(2)], "shape"),
        (torch.zeros(3, 2), [torch.arange(2)] * 2, "integers"),
        (torch.zeros(3, 2, dtype=torch.long), [torch.arange(2)], "1 lists of tokens for 2 levels"),
        (torch.tensor([[0, 1], [0, 2]]), [torch.arange(2)] * 2, "item 1 has code 2 on level 2, which has tokens for 0…1"),
        (torch.tensor([[0, -1]]), [torch.arange(2)] * 2, "item 0 has code -1 on level 2"),
        (torch.tensor([[0, 1]]), [torch.arange(2), torch.tensor([5, 5])], "two codes of level 2 have the same token"),
    ],
)  # fmt: skip
def test_a_tree_that_cannot_be_is_refused(codes, tokens, complaint):
    with pytest.raises(InputError, match=complaint):
        Trie(codes, tokens)
