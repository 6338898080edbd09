"""A score is the same alone, in any company, in any order, and is that of the plain forward pass."""

import pytest
import torch

from gti_diag.errors import InputError
from gti_train.model.loading import load_language_model
from gti_train.search.scoring import Overrides, score

ROWS = (70, 80)


def made_up(seed: int = 0) -> tuple[list[list[int]], list[int]]:
    """Prompts of three queries about documents of many lengths, and how much of each is policy and query."""
    generator = torch.Generator().manual_seed(seed)

    def tokens(count: int) -> list[int]:
        return torch.randint(3, 250, (count,), generator=generator).tolist()

    policy, prompts, shared = tokens(6), [], []
    for count in (7, 3, 1):
        query = tokens(count)
        for length in range(1, 2 + 2 * count, 2):
            prompts.append([*policy, *query, *tokens(length), 9, 8])
            shared.append(6 + count)
    return prompts, shared


def plain(model, prompts, **given) -> torch.Tensor:
    """One prompt after the other, by the model's own forward pass, all logits."""
    logits = [model(input_ids=torch.tensor([p])).logits[0, -1] for p in prompts] if not given else given["logits"]
    return torch.stack([row[ROWS[0]] - row[ROWS[1]] for row in logits])


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3_text", "mamba"])
def test_a_score_is_that_of_the_plain_forward_pass_however_it_is_computed(tiny_lm, family):
    model, _ = load_language_model(tiny_lm(family=family), dtype="float32")
    prompts, shared = made_up()
    expected = plain(model, prompts)
    assert expected.std() > 0.01
    backwards = torch.arange(len(prompts)).flip(0)
    ways = {
        "together": score(model, prompts, ROWS, shared=shared),
        "nothing said of what is shared": score(model, prompts, ROWS),
        "nothing shared": score(model, prompts, ROWS, shared=[0] * len(prompts)),
        "alone": torch.cat([score(model, [prompt], ROWS) for prompt in prompts]),
        "in small batches": score(model, prompts, ROWS, shared=shared, at_once=20),
        "backwards": score(model, prompts[::-1], ROWS, shared=shared[::-1])[backwards],
    }
    for name, found in ways.items():
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0, msg=lambda text, name=name: f"{name}: {text}")


def test_vectors_are_read_where_their_token_stands(tiny_lm):
    """A prompt whose vectors are rows of the vocabulary scores as the prompt of those tokens; other vectors do not."""
    model, _ = load_language_model(tiny_lm(), dtype="float32")
    prompts, shared = made_up()
    slot, rows = 255, model.get_input_embeddings().weight
    items = [[(17 * i) % 200 + 3, (29 * i) % 200 + 3] for i in range(len(prompts))]
    with_slots = [[*p[:n], slot, slot, *p[-2:]] for p, n in zip(prompts, shared, strict=True)]
    in_words = [[*p[:n], *item, *p[-2:]] for p, n, item in zip(prompts, shared, items, strict=True)]
    vectors = [rows[torch.tensor(item)] for item in items]
    found = score(model, with_slots, ROWS, shared=shared, overrides=Overrides(slot, vectors))
    torch.testing.assert_close(found, plain(model, in_words), atol=1e-5, rtol=0)
    swapped = score(model, with_slots, ROWS, shared=shared, overrides=Overrides(slot, vectors[::-1]))
    assert (swapped - found).abs().max() > 1e-3


def test_what_cannot_be_scored_is_refused(tiny_lm):
    model, _ = load_language_model(tiny_lm())
    assert score(model, [], ROWS).shape == (0,)
    with pytest.raises(InputError, match="prompt 1 has 0 tokens: the model takes from 1 to 256"):
        score(model, [[3], []], ROWS)
    with pytest.raises(InputError, match="prompt 0 has 257 tokens"):
        score(model, [[3] * 257], ROWS)
    with pytest.raises(InputError, match=r"prompt 0 has 1 places for vectors of 48 numbers, and is given \(2, 48\)"):
        score(model, [[3, 5, 4]], ROWS, overrides=Overrides(5, [torch.zeros(2, 48)]))
