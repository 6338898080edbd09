"""States behind a shared prompt are those of whole sequences, whichever way they are computed."""

import pytest
import torch

from gti_train.model.continuations import SharedPrompts, WholeSequences, continuations, right_padded, shared_beginning
from tests.gti_train.recommend.decoding_cases import PROMPTS, tiny

# Three levels of a tree behind each prompt: tokens, and the columns of their ancestors.
TREE = (
    ([200, 201], [[], []]),
    ([210, 211, 212], [[0], [1], [0]]),
    ([220, 221], [[0, 2], [1, 3]]),
)


def grown(way, prompts=PROMPTS):
    states = [way.begin(prompts)[:, None]]
    for tokens, paths in TREE:
        branches = torch.tensor([tokens] * len(prompts))
        states.append(way.extend(branches, torch.tensor([paths] * len(prompts)).long(), keep=True))
    return torch.cat([way.logits(s, torch.arange(300)) for s in states], 1)


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "mistral", "gpt2", "cohere"])
def test_a_tree_behind_a_prompt_is_whole_sequences(family):
    model = tiny(family)
    with torch.no_grad():
        torch.testing.assert_close(grown(SharedPrompts(model)), grown(WholeSequences(model)), rtol=0, atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2"])
def test_prompts_that_begin_as_those_before_go_on_from_there(family, monkeypatch):
    model, read = tiny(family), []
    run = SharedPrompts._run
    monkeypatch.setattr(
        SharedPrompts, "_run", lambda self, ids, *more: read.append(ids.numel()) or run(self, ids, *more)
    )
    way, (first, second, third, _) = SharedPrompts(model), PROMPTS
    grown(way, [first])
    for prompts, tokens in (
        ([first], [1]),  # the same again: its last token alone
        ([[*first[:6], 9, 10]], [2]),
        ([[*first[:6], 9, 10, 11], [*first[:6], 9, 12]], [4]),  # 7 known tokens, of the first 2 more; padded
        ([second, third], [2 * (len(third) - 2)]),
        ([[5, 6, 7], [5, 6, 8]], [2, 2]),
    ):
        del read[:]
        again = grown(way, prompts)
        assert read[: len(tokens)] == tokens
        torch.testing.assert_close(again, grown(WholeSequences(model), prompts), rtol=0, atol=1e-4)


def test_whole_sequences_are_the_models_own():
    model, found = tiny(), None
    with torch.no_grad():
        found = grown(WholeSequences(model, rows=3))
        for user, prompt in enumerate(PROMPTS):
            for place, path in enumerate(([], [200], [201], [200, 210], [201, 211], [200, 212])):
                expected = model(torch.tensor([prompt + path])).logits[0, -1]
                torch.testing.assert_close(found[user, place], expected, rtol=0, atol=1e-5)


def test_tokens_that_are_not_kept_leave_no_trace():
    way = SharedPrompts(tiny())
    tokens, paths = torch.tensor([[200, 201]]), torch.zeros(1, 2, 0, dtype=torch.long)
    way.begin(PROMPTS[:1])
    first = way.extend(tokens, paths, keep=False)
    again = way.extend(tokens, paths, keep=True)
    below = way.extend(torch.tensor([[210]]), torch.tensor([[[1]]]), keep=False)
    assert torch.equal(first, again)
    assert below.shape == (1, 1, 48)
    assert way.cache.get_seq_length() == len(PROMPTS[0]) + 2


def test_the_normaliser_is_that_of_all_logits():
    model = tiny("cohere")  # whose logits are scaled
    for way in (SharedPrompts(model), WholeSequences(model)):
        states = way.begin(PROMPTS)
        every = way.logits(states, torch.arange(300))
        torch.testing.assert_close(way.normaliser(states), every.logsumexp(-1), rtol=0, atol=1e-5)


def test_a_model_that_disagrees_takes_the_slow_way(monkeypatch, caplog):
    model = tiny()
    monkeypatch.setattr(SharedPrompts, "_masks", lambda self, sees, positions: torch.zeros_like(sees[:, None]).float())
    assert isinstance(continuations(model, PROMPTS, [200, 210]), WholeSequences)
    assert "takes the slow way" in caplog.text


def test_a_mean_start_is_no_reason_to_disagree():
    model = tiny()
    model.get_input_embeddings().weight[200:226] = model.get_input_embeddings().weight[200:226].mean(0)
    assert isinstance(continuations(model, PROMPTS, [200, 210]), SharedPrompts)


def test_a_shared_beginning_leaves_each_a_token_of_its_own():
    assert shared_beginning([[1, 2, 3], [1, 2]]) == 1
    assert shared_beginning([[1, 2, 3], [1, 2, 4]]) == 2
    assert shared_beginning([[5], [5]]) == 0
    assert shared_beginning([[1, 2], [2, 2]]) == 0


def test_sequences_are_padded_on_the_right():
    ids, real = right_padded([[4], [5, 6, 7]])
    assert ids.tolist() == [[4, 0, 0], [5, 6, 7]]
    assert real.tolist() == [[True, False, False], [True] * 3]
