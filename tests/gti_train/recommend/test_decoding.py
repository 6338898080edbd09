"""Constrained decoding against brute force over all items, and everything that must not change it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gti_diag.errors import InputError
from gti_train.model import continuations
from gti_train.model.continuations import SharedPrompts, WholeSequences
from gti_train.recommend import decoding
from gti_train.recommend.decoding import Decoder, decode
from gti_train.recommend.order import TIE, best

from .decoding_cases import CODES, ITEMS, PROMPTS, TOKENS, literal, ranking, tiny, tree

SHARED = ("llama", "qwen3", "gemma", "gemma2", "gemma3_text", "gpt2", "opt", "cohere", "granite", "mistral", "gpt_oss", "deepseek_v3")  # fmt: skip
WAYS = dict.fromkeys(SHARED, SharedPrompts) | {"lfm2": WholeSequences, "llama4_text": WholeSequences}


@pytest.fixture(scope="module")
def llama():
    return tiny()


@pytest.fixture(scope="module")
def tables(llama):
    return {scores: literal(llama, PROMPTS, scores) for scores in decoding.SCORES}


@pytest.mark.parametrize("family", WAYS)
def test_all_items_are_ranked_as_by_brute_force_in_every_family(family):
    model = tiny(family, tied=family != "gpt_oss")
    decoder = Decoder(model, tree())
    items, scores = decoder.decode(PROMPTS, ITEMS, exact=True)
    expected = literal(model, PROMPTS, "items")
    assert type(decoder.way) is WAYS[family]
    torch.testing.assert_close(scores, expected.gather(1, items), rtol=0, atol=1e-5)
    torch.testing.assert_close(scores, expected.sort(descending=True)[0], rtol=0, atol=1e-5)
    assert items.sort()[0].tolist() == [list(range(ITEMS))] * len(PROMPTS)  # every item, none twice
    assert torch.equal(decoder.decode(PROMPTS, ITEMS)[0], items)  # as many beams as items


@pytest.mark.parametrize("scores", decoding.SCORES)
def test_both_scores_are_those_of_brute_force(llama, tables, scores):
    items, values = decode(llama, tree(), PROMPTS, 10, scores=scores, exact=True)
    for row, found, value in zip(tables[scores], items, values, strict=True):
        assert found.tolist() == ranking(row)[:10]
        torch.testing.assert_close(value, row[found], rtol=0, atol=1e-5)


def test_the_probabilities_of_all_items_sum_to_one_among_the_items_only(llama):
    separate = CODES.unique(dim=0)
    for scores, whole in (("items", True), ("vocabulary", False)):
        total = decode(llama, tree(separate), PROMPTS, len(separate), scores=scores, exact=True)[1].exp().sum(1)
        assert torch.allclose(total, torch.ones(4), atol=1e-5) == whole
        assert (total < 1 + 1e-5).all()


def test_a_beam_of_the_literal_search_is_ours(llama):
    """Width 3, level by level, over sequences run from their start."""
    width, found = 3, decode(llama, tree(), PROMPTS, 3)
    for user, prompt in enumerate(PROMPTS):
        beams = [((), 0.0)]
        for level in range(3):
            grown = []
            for prefix, total in beams:
                path = [int(TOKENS[i][code]) for i, code in enumerate(prefix)]
                with torch.no_grad():
                    logits = llama(torch.tensor([prompt + path])).logits[0, -1]
                options = sorted({c[level] for c in CODES.tolist() if tuple(c[:level]) == prefix})
                gains = logits[TOKENS[level][options]].log_softmax(0).tolist()
                grown += [((*prefix, code), total + gain) for code, gain in zip(options, gains, strict=True)]
            beams = sorted(grown, key=lambda beam: -beam[1])[:width]
        items = [i for prefix, _ in beams for i, c in enumerate(CODES.tolist()) if tuple(c) == prefix][:3]
        assert found[0][user].tolist() == items
        assert found[1][user][0] == pytest.approx(beams[0][1], abs=1e-5)


@settings(max_examples=8, deadline=None)
@given(st.data())
def test_only_and_exclude_remove_items_and_change_no_score(llama, tables, data):
    numbers = st.none() | st.sets(st.integers(0, ITEMS - 1), max_size=25)
    missing = data.draw(st.lists(numbers, min_size=4, max_size=4))
    only = [None if gone is None else set(range(ITEMS)) - gone for gone in missing]
    exclude = data.draw(st.lists(numbers, min_size=4, max_size=4))
    decoder = Decoder(llama, tree())
    items, _ = decoder.decode(PROMPTS, 8, only=only, exclude=exclude, exact=True)
    wide, _ = decoder.decode(PROMPTS, 8, beams=ITEMS, only=only, exclude=exclude)
    for row, found, chosen, removed in zip(tables["items"], items, only, exclude, strict=True):
        free = (set(range(ITEMS)) if chosen is None else chosen) - (removed or set())
        assert found.tolist() == ranking(row, free)[:8]
    assert torch.equal(items, wide)


@pytest.mark.parametrize("exact", [False, True])
def test_nothing_is_run_for_an_only_code(llama, exact, monkeypatch):
    """An only child has probability 1 among the items; the vocabulary's probability of it is another matter."""
    codes, run = torch.cat([CODES[:12], CODES[:1] + torch.tensor([0, 0, 1])]), []
    parents = [tuple(row) for row in codes[:, :2].tolist()]
    forks = {row for row in parents if len({int(c) for p, c in zip(parents, codes[:, 2], strict=True) if p == row}) > 1}
    assert 0 < len(forks) < len(set(parents))
    extend = SharedPrompts.extend
    for scores, last in (("items", len(forks)), ("vocabulary", len(set(parents)))):
        decoder = Decoder(llama, tree(codes), scores=scores)
        table = literal(llama, PROMPTS, scores, codes)
        decoder._agreeing(PROMPTS)
        monkeypatch.setattr(SharedPrompts, "extend", lambda *a, **k: run.append(a[1].shape[1]) or extend(*a, **k))
        items, values = decoder.decode(PROMPTS, len(codes), exact=exact)
        monkeypatch.undo()
        assert run[-1] == last
        assert items.tolist() == [ranking(row) for row in table]
        torch.testing.assert_close(values, table.gather(1, items), rtol=0, atol=1e-4)


def test_a_narrow_beam_returns_allowed_items_alone_and_none_twice(llama):
    only = [{3, 17, 18, 40}] * len(PROMPTS)
    items, values = decode(llama, tree(), PROMPTS, 4, only=only)
    assert items.sort()[0].tolist() == [[3, 17, 18, 40]] * 4
    assert values.isfinite().all()


def test_batch_padding_and_order_change_nothing(llama, monkeypatch):
    together = decode(llama, tree(), PROMPTS, 12)
    alone = [decode(llama, tree(), [prompt], 12) for prompt in PROMPTS]
    backwards = decode(llama, tree(), PROMPTS[::-1], 12)
    monkeypatch.setattr(decoding, "TOKENS_AT_ONCE", 40)
    small = decode(llama, tree(), PROMPTS, 12)
    for items, values in (
        tuple(torch.cat(parts) for parts in zip(*alone, strict=True)),
        (backwards[0].flip(0), backwards[1].flip(0)),
        small,
    ):
        assert torch.equal(items, together[0])
        torch.testing.assert_close(values, together[1], rtol=0, atol=1e-5)


def test_chunks_of_an_exact_pass_and_of_the_normaliser_change_nothing(llama, monkeypatch):
    whole = decode(llama, tree(), PROMPTS, ITEMS, exact=True, scores="vocabulary")
    monkeypatch.setattr(decoding, "NODES_AT_ONCE", 7)
    monkeypatch.setattr(continuations, "CHUNK_ROWS", 64)
    parts = decode(llama, tree(), PROMPTS, ITEMS, exact=True, scores="vocabulary")
    assert torch.equal(parts[0], whole[0])
    torch.testing.assert_close(parts[1], whole[1], rtol=0, atol=1e-5)


def test_the_slow_way_holds_few_states_at_once_and_finds_the_same(llama, monkeypatch):
    decoder = Decoder(llama, tree())
    fast = decoder.decode(PROMPTS, 6)
    decoder.way = WholeSequences(llama)
    for at_once in (256, 7):
        monkeypatch.setattr(WholeSequences, "at_once", at_once)
        slow = decoder.decode(PROMPTS, 6)
        assert torch.equal(slow[0], fast[0])
        torch.testing.assert_close(slow[1], fast[1], rtol=0, atol=1e-5)


def test_items_of_one_point_are_ranked_by_number_in_any_batch(llama):
    """A mean start: all codes have the same row, and what decides must not be rounding."""
    model = tiny()
    rows = torch.cat(TOKENS)
    model.get_input_embeddings().weight[rows] = model.get_input_embeddings().weight[rows].mean(0)
    full = torch.cartesian_prod(*(torch.arange(len(ids)) for ids in TOKENS))  # the same fan-out everywhere: all tied
    mixed = full[torch.randperm(len(full), generator=torch.Generator().manual_seed(3))]
    for beams in (10, 50):
        items, _ = decode(model, tree(mixed), PROMPTS, 10, beams=beams)
        alone, _ = decode(model, tree(mixed), PROMPTS[:1], 10, beams=beams)
        assert torch.equal(alone[0], items[0])
    items, _ = decode(model, tree(mixed), PROMPTS, len(full), exact=True)
    assert items.tolist() == [list(range(len(full)))] * len(PROMPTS)


def test_items_that_share_all_codes_are_neighbours_by_number(llama):
    codes = CODES.clone()
    codes[50] = codes[4] = codes[7]
    items, values = decode(llama, tree(codes), PROMPTS, ITEMS, exact=True)
    for row, score in zip(items.tolist(), values.tolist(), strict=True):
        at, same = row.index(4), (codes == codes[4]).all(1).nonzero()[:, 0].tolist()
        assert {4, 7, 50} <= set(same)
        assert row[at : at + len(same)] == same
        assert len(set(score[at : at + len(same)])) == 1


def test_nothing_is_read_of_the_generation_config(llama):
    plain = decode(llama, tree(), PROMPTS, 20)
    model = tiny()
    traps = {
        "do_sample": True, "temperature": 0.3, "top_k": 2, "top_p": 0.2, "min_p": 0.4, "typical_p": 0.3, "epsilon_cutoff": 0.2,
        "repetition_penalty": 5.0, "no_repeat_ngram_size": 1, "encoder_repetition_penalty": 3.0, "length_penalty": -2.0,
        "bad_words_ids": [[int(TOKENS[0][0])]], "suppress_tokens": TOKENS[1].tolist(), "forced_eos_token_id": 2,
        "begin_suppress_tokens": TOKENS[0].tolist(), "num_beams": 3, "num_beam_groups": 3, "max_new_tokens": 1,
        "min_new_tokens": 9, "num_return_sequences": 2, "sequence_bias": [[[int(TOKENS[2][1])], 50.0]],
        "early_stopping": True, "renormalize_logits": True, "use_cache": False, "guidance_scale": 3.0,
    }  # fmt: skip
    for name, value in traps.items():
        setattr(model.generation_config, name, value)
    trapped = decode(model, tree(), PROMPTS, 20)
    assert torch.equal(trapped[0], plain[0]) and torch.equal(trapped[1], plain[1])


def test_codes_of_the_history_are_not_punished(llama, tables):
    history = [*PROMPTS[0], *(int(ids[c]) for item in (0, 1) for ids, c in zip(TOKENS, CODES[item], strict=True))]
    items, _ = decode(llama, tree(), [history], ITEMS, exact=True)
    assert items[0].tolist() == ranking(literal(llama, [history], "items")[0])


def test_bfloat16_stays_near_float32(llama):
    exact, rough = (decode(m, tree(), PROMPTS, ITEMS, exact=True) for m in (llama, tiny(dtype=torch.bfloat16)))
    order = [values.gather(1, items.argsort(1)) for items, values in (exact, rough)]
    torch.testing.assert_close(order[1], order[0], rtol=0, atol=0.2)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 6), min_size=2, max_size=12), st.integers(1, 12))
def test_the_best_are_sorted_by_score_then_item(levels, count):
    count = min(count, len(levels))
    items = torch.randperm(len(levels), generator=torch.Generator().manual_seed(len(levels)))
    noise = torch.rand(len(levels), generator=torch.Generator().manual_seed(1)) * TIE / len(levels)
    chosen = best((torch.tensor(levels) + noise)[None], items[None], count)[0].tolist()
    assert chosen == sorted(range(len(levels)), key=lambda i: (-levels[i], int(items[i])))[:count]


@pytest.mark.parametrize(
    "changes, complaint",
    [
        ({"k": ITEMS + 1}, "k is 61 and the catalogue has 60 items"),
        ({"k": 0}, "ask for 1…60"),
        ({"beams": 3}, "3 beams cannot find 5 items"),
        ({"prompts": [PROMPTS[0], []]}, "the prompt of user 1 is empty"),
        ({"prompts": [[5] * 300]}, "300 tokens and the model 256 positions"),
        ({"scores": "tokens"}, "use one of items, vocabulary"),
        ({"only": [{1, 2, 3, 4, 5}]}, "1 sets of items for 4 users"),
        ({"exclude": [{77}, None, None, None]}, "user 0 names item 77: items are 0…59"),
        ({"only": [None, {1, 2}, None, None]}, "user 1 may get 2 items and k is 5"),
        ({"only": [range(5)] * 4, "exclude": [[4]] * 4}, "user 0 may get 4 items"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_refused(llama, changes, complaint):
    asked = {"prompts": PROMPTS, "k": 5, **changes}
    with pytest.raises(InputError, match=complaint):
        decode(llama, tree(), asked.pop("prompts"), asked.pop("k"), **asked)


def test_a_model_without_rows_for_the_codes_is_refused(llama):
    with pytest.raises(InputError, match="token 305 and the model 300 rows"):
        Decoder(llama, tree(tokens=[*TOKENS[:2], torch.arange(300, 306)]))


def test_no_users_get_no_items(llama):
    items, scores = decode(llama, tree(), [], 5)
    assert items.shape == scores.shape == (0, 5)
