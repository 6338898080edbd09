import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import silhouette_samples

from gti_diag.measures import hierarchy
from tests import references, strategies
from tests.conftest import vocabulary_like

# Two roots with two children of two leaves each: a strict tree, tokens numbered level by level.
TREE = torch.tensor([[r, 2 + 2 * r + c, 6 + 4 * r + 2 * c + leaf] for r in (0, 1) for c in (0, 1) for leaf in (0, 1)])


def tree_rows(noise=0.0):
    """Each token's row is its parent's plus a direction of its own: cosines grow with shared depth."""
    own = torch.eye(14, dtype=torch.float64)
    rows = own.clone()
    for root, child, leaf in TREE.tolist():
        rows[child] = own[root] + own[child]
        rows[leaf] = own[root] + own[child] + own[leaf]
    return rows + noise * torch.randn(14, 14, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def random_items(seed, items=30, levels=3, codes=4):
    drawn = torch.randint(codes, (items, levels), generator=torch.Generator().manual_seed(seed))
    return drawn + codes * torch.arange(levels)


# --- levels


@given(rows=strategies.rows(least=6), count=st.integers(1, 4))
def test_level_contrast_is_the_mean_over_pairs(rows, count):
    levels = 1 + torch.arange(len(rows)) % count
    found = hierarchy.level_contrast(rows, levels)
    assert [one.level for one in found] == list(range(1, count + 1))
    assert sum(one.count for one in found) == len(rows)
    literal = rows.numpy()
    for one in found:
        own = [i for i in range(len(rows)) if levels[i] == one.level]
        pairs = [references.cosine(literal[i], literal[j]) for i in own for j in own if i != j]
        cross = [references.cosine(literal[i], literal[j]) for i in own for j in range(len(rows)) if j not in own]
        assert one.within == (pytest.approx(np.mean(pairs), abs=1e-9) if pairs else None)
        assert one.between == (pytest.approx(np.mean(cross), abs=1e-9) if cross else None)


def test_levels_that_share_a_direction_stand_out():
    rows = vocabulary_like(40, 16) * 0.1
    rows[:20, 0] += 1
    rows[20:, 1] += 1
    levels = torch.arange(40) // 20 + 1
    assert all(one.within > one.between + 0.5 for one in hierarchy.level_contrast(rows, levels))
    assert float(hierarchy.level_silhouette(rows, levels).mean()) > 0.5
    assert abs(float(hierarchy.level_silhouette(rows, 1 + torch.arange(40) % 2).mean())) < 0.2


@given(rows=strategies.rows(least=8), count=st.integers(2, 4))
def test_silhouette_is_literal_and_agrees_with_scikit_learn(rows, count):
    levels = torch.arange(len(rows)) % count
    found = hierarchy.level_silhouette(rows, levels).numpy()
    np.testing.assert_allclose(found, references.silhouette(rows.numpy(), levels.tolist()), atol=1e-7)
    theirs = silhouette_samples(rows.numpy(), levels.numpy(), metric="cosine")
    np.testing.assert_allclose(found, theirs, atol=1e-7)
    assert float(np.abs(found).max()) <= 1


def test_silhouette_of_lone_and_of_identical_tokens_is_zero():
    rows = torch.eye(3)
    assert hierarchy.level_silhouette(rows, torch.tensor([1, 2, 2]))[0] == 0
    assert hierarchy.level_silhouette(torch.ones(4, 2), torch.tensor([1, 1, 2, 2])).tolist() == [0, 0, 0, 0]


# --- the tree of codes


def test_in_a_strict_tree_shared_depth_is_the_depth_of_the_common_ancestor():
    tokens, depth = hierarchy.shared_depth(TREE, 3)
    assert tokens.tolist() == list(range(6, 14))
    assert depth[0].tolist() == [2, 2, 1, 1, 0, 0, 0, 0]
    tokens, depth = hierarchy.shared_depth(TREE, 2)
    assert depth.tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]


@given(seed=st.integers(0, 40), level=st.integers(2, 3))
def test_with_reused_codes_it_is_the_mean_shared_prefix(seed, level):
    items = random_items(seed)
    tokens, depth = hierarchy.shared_depth(items, level)
    for a, s in enumerate(tokens.tolist()):
        for b, t in enumerate(tokens.tolist()):
            literal = references.shared_depth(items.tolist(), level, s, t)
            assert float(depth[a, b]) == pytest.approx(literal, abs=1e-12)


def test_prefix_contrast_and_cophenetic_correlation_on_a_known_tree():
    """Leaves of one child: cosine 2/3, of one root: 1/3, else 0. Weights 2, 1: (4·2·2/3 + 8·1·1/3) / (4·2 + 8·1)."""
    found = hierarchy.prefix_contrast(tree_rows(), TREE, level=3)
    assert (found.pairs, found.sibling_pairs) == (28, 12)
    assert found.siblings == pytest.approx((4 * 2 * 2 / 3 + 8 * 1 / 3) / 16)
    assert found.strangers == pytest.approx(0, abs=1e-12)
    assert hierarchy.cophenetic_correlation(tree_rows(), TREE, level=3) == pytest.approx(1)


@given(seed=st.integers(0, 40))
def test_cophenetic_correlation_is_pearson_over_pairs(seed):
    rows, items = vocabulary_like(12, 6, seed=seed), random_items(seed)
    tokens, depth = hierarchy.shared_depth(items, 3)
    upper = np.triu_indices(len(tokens), 1)
    cosines = [
        references.cosine(rows[tokens[i]].double().numpy(), rows[tokens[j]].double().numpy())
        for i, j in zip(*upper, strict=True)
    ]
    expected = np.corrcoef(depth.numpy()[upper], cosines)[0, 1]
    found = hierarchy.cophenetic_correlation(rows, items, level=3)
    assert found == pytest.approx(expected, abs=1e-9)
    assert hierarchy.cophenetic_correlation(rows * 7, items, level=3) == pytest.approx(found)


def test_shuffled_rows_lose_the_tree():
    noisy = tree_rows(noise=0.05)
    kept = hierarchy.cophenetic_correlation(noisy, TREE, level=3)
    order = torch.randperm(14, generator=torch.Generator().manual_seed(2))
    assert kept > 0.95
    assert hierarchy.cophenetic_correlation(noisy[order], TREE, level=3) < 0.6


# --- refusals


def test_refusals():
    rows = vocabulary_like(14, 6)
    with pytest.raises(ValueError, match="3 levels for 14 rows"):
        hierarchy.level_contrast(rows, torch.tensor([1, 1, 2]))
    with pytest.raises(ValueError, match="one level"):
        hierarchy.level_silhouette(rows, torch.ones(14, dtype=torch.long))
    with pytest.raises(ValueError, match="level 1 of 3: shared prefixes begin at level 2"):
        hierarchy.shared_depth(TREE, 1)
    with pytest.raises(ValueError, match="28 of 28 token pairs share a prefix"):
        hierarchy.prefix_contrast(rows, torch.cat([TREE[:, :1] * 0, TREE[:, 1:]], 1), level=3)
    with pytest.raises(ValueError, match="does not vary"):
        hierarchy.cophenetic_correlation(torch.ones(14, 6), TREE, level=3)
    dead = rows.clone()
    dead[8] = 0
    with pytest.raises(ValueError, match="row 8 is all zeros"):
        hierarchy.level_contrast(dead, torch.arange(14))
    with pytest.raises(ValueError, match="token 8 is all zeros"):
        hierarchy.cophenetic_correlation(dead, TREE, level=3)
