"""A tree is its sequences: same loss, same gradient of every weight, whatever they share."""

from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from gti_diag.errors import InputError
from gti_train.model import tree_attention
from gti_train.model.loading import load_language_model
from gti_train.model.sequences import Example, encode
from gti_train.model.tree_passes import APART, BY_TYPE, ONE, Way, find_way, longest_row, tree_loss
from gti_train.model.trees import TokenTree, alike, node_count
from tests.conftest import tiny_config
from tests.gti_train.grounding.grounding_cases import reference_loss as loss_of_answers
from tests.gti_train.grounding.test_grounding import UNUSUAL
from tests.gti_train.model.test_new_rows import FAMILIES

SHARED = [5, 6, 7, 8, 9, 10]
SEQUENCES = [
    [*SHARED, 11, 12, 13],
    [*SHARED, 11, 14, 15, 16],
    [*SHARED, 20],
    [*SHARED[:2], 30, 31, 32],
    [40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51],
    [*SHARED, 11, 12, 13],  # the same example twice
]
ANSWERS = [7, 8, 6, 3, 1, 7]
WEIGHTS = [1.0, 2.0, 0.5, 1.0, 0.25, 1.0]
sequences_of = st.lists(st.lists(st.integers(0, 3), min_size=2, max_size=8), min_size=1, max_size=8)


def forest():
    """The sequences in two rows of unlike length."""
    halves = (slice(0, 4), slice(4, 6))
    trees = [TokenTree.grow(SEQUENCES[h], answers=ANSWERS[h], weights=WEIGHTS[h]) for h in halves]
    return TokenTree.stack(trees)


def reference_loss(model):
    """The literal convention: each sequence through the model alone, its answer tokens, its weight."""
    total = 0.0
    for ids, answer, weight in zip(SEQUENCES, ANSWERS, WEIGHTS, strict=True):
        logits = model(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids))).logits[0]
        nll = F.cross_entropy(logits[answer - 1 : -1].float(), torch.tensor(ids[answer:]), reduction="sum")
        total = total + weight * nll
    return total


def losses_and_gradients(model, loss):
    parameters = [p for p in model.parameters() if p.requires_grad]
    return float(loss.detach()), torch.autograd.grad(loss, parameters, allow_unused=True)


def check_equal(model, way):
    model.requires_grad_(True)
    own = model.config._attn_implementation
    found = losses_and_gradients(model, tree_loss(model, forest(), way))
    model.set_attn_implementation("eager")
    expected = losses_and_gradients(model, reference_loss(model))
    model.set_attn_implementation(own)
    assert found[0] == pytest.approx(expected[0], rel=1e-5)
    compared = 0
    for one, two in zip(found[1], expected[1], strict=True):
        assert (one is None) == (two is None)
        if two is not None and float(two.norm()) > 1e-6:
            assert float((one - two).norm() / two.norm()) < 1e-5
            compared += 1
    assert compared > 10


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_every_gradient_are_those_of_the_sequences(tiny_lm, family, tied):
    model, _ = load_language_model(tiny_lm(family=family, tied=tied))
    if hasattr(model.config, "sliding_window"):
        model.config.sliding_window = 4  # shorter than any path
    way = find_way(model, SEQUENCES)
    assert way.masks == (BY_TYPE if hasattr(model.config, "layer_types") else ONE)
    assert not way.own_head
    check_equal(model, way)


@pytest.mark.parametrize("family", ["llama", "gemma2"])
@pytest.mark.parametrize("block", [1, 3, 64])
def test_attention_by_blocks_of_any_size_is_the_same(tiny_lm, family, block, monkeypatch):
    monkeypatch.setattr(tree_attention, "BLOCK", block)
    model, _ = load_language_model(tiny_lm(family=family))
    if family == "gemma2":
        model.config.sliding_window = 4
    way = find_way(model, SEQUENCES)
    assert model.config._attn_implementation == tree_attention.NAME
    assert longest_row(model, 2048) == 2048
    check_equal(model, way)


@settings(max_examples=60, deadline=None)
@given(sequences=sequences_of, block=st.integers(1, 9), window=st.none() | st.integers(1, 4))
def test_blocks_see_what_their_nodes_descend_from(sequences, block, window):
    tree = TokenTree.stack([TokenTree.grow(sequences), TokenTree.grow([[1] * 9])])
    rows, nodes = tree.ids.shape
    with patch.object(tree_attention, "BLOCK", block):
        mask = tree_attention.block_mask(tree, window, torch.float32)
    per_row = len(mask) // rows
    for number, (added, above) in enumerate(zip(mask.as_subclass(torch.Tensor), mask.above.tolist(), strict=True)):
        row, first = number // per_row, number % per_row * block
        seen = torch.tensor([*(node - row * nodes for node in above), *range(first, first + block)])
        for node in range(first, min(first + block, nodes)):
            expected = tree.ancestors(window)[row, node].nonzero()[:, 0].tolist()
            assert sorted(seen[added[0, node - first] == 0].tolist()) == expected


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_librarys_own_attention_takes_trees(tiny_lm, attention):
    model, _ = load_language_model(tiny_lm())
    model.set_attn_implementation(attention)
    check_equal(model, Way(ONE))


@pytest.mark.parametrize("family", ["llama", "gemma2", "opt"])
def test_taken_apart_it_is_the_same(tiny_lm, family):
    model, _ = load_language_model(tiny_lm(family=family))
    check_equal(model, Way(APART))
    check_equal(model, Way(APART, own_head=True))


MASKS = {"gpt_oss": BY_TYPE, "deepseek_v3": ONE, "lfm2": APART, "llama4_text": ONE}


@pytest.mark.parametrize("family", UNUSUAL)
def test_unusual_models_are_asked(family, tiny_tokenizer, caplog):
    config = tiny_config(family, len(tiny_tokenizer), False, **UNUSUAL[family][0])
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).float().eval()
    way = find_way(model, SEQUENCES)
    assert way.masks == MASKS[family]
    assert ("every sequence is run by itself" in caplog.text) == (way.masks == APART)
    check_equal(model, way)


@pytest.mark.parametrize("family", ["mamba", "bloom", "mistral"])
def test_states_and_positions_by_order_are_noticed(family, tiny_tokenizer):
    changes = {"mamba": {"state_size": 4}, "bloom": {"n_head": 4, "n_layer": 2}, "mistral": {"sliding_window": 4}}
    config = tiny_config(family, len(tiny_tokenizer), False, **changes[family])
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).float().eval()
    way = find_way(model, SEQUENCES)
    assert way.masks == (ONE if family == "mistral" else APART)
    check_equal(model, way)


def test_an_unknown_head_is_asked_for_its_own_logits(tiny_lm):
    model, _ = load_language_model(tiny_lm())
    plain = model.lm_head.forward
    model.lm_head.forward = lambda hidden: plain(hidden) * 1.5
    way = find_way(model, SEQUENCES)
    assert way.own_head
    check_equal(model, way)


def test_asking_once_or_every_time_is_the_same(tiny_lm):
    model, _ = load_language_model(tiny_lm())
    assert float(tree_loss(model, forest())) == pytest.approx(float(reference_loss(model)), rel=1e-5)


@settings(max_examples=60, deadline=None)
@given(sequences=sequences_of)
def test_a_tree_holds_each_beginning_once_and_every_target(sequences):
    tree = TokenTree.grow(sequences)
    beginnings = {tuple(s[:n]) for s in sequences for n in range(1, len(s))}
    assert tree.ids.shape == (1, len(beginnings)) and node_count(sequences) == len(beginnings)
    paths, path, place = tree.paths()
    found = sorted(
        (int(s), tuple(paths[p][: n + 1]), int(t))
        for s, p, n, t in zip(tree.sequences, path, place, tree.targets, strict=True)
    )
    assert found == sorted((i, tuple(s[:n]), s[n]) for i, s in enumerate(sequences) for n in range(1, len(s)))


@settings(max_examples=60, deadline=None)
@given(sequences=sequences_of, window=st.none() | st.integers(1, 4))
def test_ancestors_are_those_on_the_path(sequences, window):
    tree = TokenTree.stack([TokenTree.grow(sequences), TokenTree.grow([[1] * 9])])
    seen = tree.ancestors(window)
    for row, parents in enumerate(tree.parents.tolist()):
        for node in range(len(parents)):
            walked, at = [], node
            while at >= 0 and (window is None or len(walked) < window):
                walked.append(at)
                at = parents[at]
            assert seen[row, node].nonzero()[:, 0].tolist() == sorted(walked)


def test_bad_sequences_are_refused():
    with pytest.raises(InputError, match="no sequences"):
        TokenTree.grow([])
    with pytest.raises(InputError, match="sequence 1 of 1 tokens has no target"):
        TokenTree.grow([[1, 2], [1]])
    with pytest.raises(InputError, match="sequence 0 of 2 tokens has no target"):
        TokenTree.grow([[1, 2]], answers=[0])
    assert alike([1, 2, 3], [1, 2, 4, 5]) == 2


@pytest.mark.slow
def test_a_real_model_of_thirty_layers_is_exact(smollm2):
    model, tokenizer = load_language_model(smollm2, dtype="float32")
    question = "Which item comes next, after these? a red kettle, a lamp"
    asked = {question: "a tent", f"{question}, a tent": "shoes for long roads"}
    told = [encode(Example(q, a, "next", a), tokenizer, new=(), max_tokens=200) for q, a in asked.items()]
    tree = TokenTree.grow([s.ids for s in told], answers=[s.answer for s in told])
    way = find_way(model, [s.ids for s in told])
    model.requires_grad_(True)
    loss, found = losses_and_gradients(model, tree_loss(model, tree, way))
    model.set_attn_implementation("eager")
    expected, gradients = losses_and_gradients(model, loss_of_answers(model, told))
    assert loss == pytest.approx(expected, rel=1e-5)
    apart = sum(float((a - b).norm()) ** 2 for a, b in zip(found, gradients, strict=True)) ** 0.5
    assert apart < 1e-5 * sum(float(b.norm()) ** 2 for b in gradients) ** 0.5
