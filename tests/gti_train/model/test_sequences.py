"""Only answers are supervised, batches repeat by seed, and buckets are cut at the least cost."""

from itertools import chain, islice

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gti_diag.errors import InputError
from gti_train.grounding.prompts import Example
from gti_train.loop.order import order
from gti_train.model.loading import load_language_model
from gti_train.model.micro_batches import buckets, shared
from gti_train.model.sequences import Encoded, collate, encode, prompt_ids

CHAT = (
    "{% for m in messages %}<s>{{ m['role'] }}: {{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant: {% endif %}"
)


@pytest.fixture
def tokenizer(tiny_lm):
    _, tokenizer = load_language_model(tiny_lm())
    tokenizer.add_tokens(["<a_1>", "<b_2>"])
    return tokenizer


def test_the_answer_begins_where_decoding_will_begin(tokenizer):
    tokenizer.chat_template = CHAT
    new = tokenizer.convert_tokens_to_ids(["<a_1>", "<b_2>"])
    found = encode(Example("Which kettle?", "<a_1><b_2>", "k", "1"), tokenizer, new=new, max_tokens=99)
    assert list(found.ids[: found.answer]) == prompt_ids("Which kettle?", tokenizer)
    assert found.ids[found.answer :] == (*new, tokenizer.eos_token_id)
    assert found.live == found.answer
    assert found.supervised == 3
    assert tokenizer.decode(found.prefix).endswith("</s><s>assistant: ")


def test_a_base_model_gets_a_plain_prompt(tokenizer):
    assert tokenizer.chat_template is None
    assert tokenizer.decode(prompt_ids("A kettle?", tokenizer)) == "A kettle?\n"


@pytest.mark.parametrize("prompt, answer, limit, message", [
    ("kettle", "", 99, "item '1' has an empty answer"),
    ("kettle " * 50, "lamp", 20, r"item '1' takes \d+ tokens, 20 is the most: cut descriptions"),
])  # fmt: skip
def test_unusable_examples_are_refused(tokenizer, prompt, answer, limit, message):
    with pytest.raises(InputError, match=message):
        encode(Example(prompt, answer, "k", "1"), tokenizer, new=(), max_tokens=limit)


@pytest.mark.parametrize("whole", [True, False])
def test_padding_is_never_supervised_and_the_end_always_is(whole):
    end = pad = 2
    sequences = [Encoded((5, 6, 90, 91, end), answer=2, live=2), Encoded((7, 90, 8, 9, 3, 4, end), answer=3, live=1)]
    batch = collate(sequences, pad=pad, whole=whole)
    read = batch.ids[batch.mask.bool()].tolist()
    assert read == ([5, 6, 90, 91, 7, 90, 8, 9, 3, 4] if whole else [90, 91, 90, 8, 9, 3, 4])
    assert not (batch.supervised & (batch.mask == 0)).any()
    assert batch.targets.tolist() == ([90, 91, end, 9, 3, 4, end] if whole else [91, end, 9, 3, 4, end])
    assert batch.positions[batch.mask.bool()].tolist() == ([*range(4), *range(6)] if whole else [2, 3, 1, 2, 3, 4, 5])


def test_order_is_a_permutation_per_epoch_and_starts_anywhere():
    first = list(islice(order(10, batch=4, seed=3), 9))
    assert [len(b) for b in first[:3]] == [4, 4, 2]
    for epoch in range(3):
        assert sorted(chain(*first[3 * epoch : 3 * epoch + 3])) == list(range(10))
    assert first[0] != first[3]
    assert list(islice(order(10, batch=4, seed=3, start=5), 4)) == first[5:9]
    assert list(islice(order(10, batch=4, seed=4), 3)) != first[:3]


def test_buckets_cover_at_the_least_cost():
    lengths = [3, 100, 3, 3, 90, 4, 20]
    groups = buckets(lengths, overhead=30, limit=1000)
    assert sorted(chain(*groups)) == list(range(7))

    def cost(groups):
        return sum(30 + len(g) * max(lengths[i] for i in g) for g in groups)

    ranked = sorted(range(7), key=lambda i: (lengths[i], i))
    cuts = [[j for j in range(1, 7) if mask >> (j - 1) & 1] for mask in range(64)]
    every = [[ranked[a:b] for a, b in zip([0, *c], [*c, 7], strict=True)] for c in cuts]
    assert cost(groups) == min(cost(g) for g in every)


def test_no_bucket_exceeds_the_limit_but_for_single_sequences():
    groups = buckets([10] * 20 + [500], overhead=1000, limit=60)
    assert max(len(g) for g in groups) == 6
    assert [20] in groups
    assert buckets([], overhead=1, limit=1) == []
    assert torch.tensor(list(chain(*groups))).unique().numel() == 21


@given(lengths=st.lists(st.integers(0, 60), max_size=30), count=st.integers(1, 4))
def test_workers_get_parts_that_can_be_shared(lengths, count):
    groups = shared(lengths, overhead=64, limit=4000, count=count)
    assert sorted(chain.from_iterable(groups)) == list(range(len(lengths)))
    costs = [len(group) * max(lengths[i] for i in group) for group in groups]
    assert costs == sorted(costs, reverse=True)
    total = sum(len(g) * max(lengths[i] for i in g) for g in buckets(lengths, overhead=64, limit=4000 // count))
    assert all(cost <= max(1, total // count) + max(lengths) for cost in costs)
    if count == 1:
        assert {frozenset(g) for g in groups} == {frozenset(g) for g in buckets(lengths, overhead=64, limit=4000)}
