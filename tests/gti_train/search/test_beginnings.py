"""What is kept of a beginning gives the scores of whole prompts, whatever else is kept beside it, in whatever order it is asked."""

import pytest
import torch

from gti_diag.errors import InputError
from gti_train.model.loading import load_language_model
from gti_train.search.beginnings import Beginnings
from gti_train.search.scoring import Overrides, score

from .test_scoring import ROWS, plain

LENGTHS = (5, 12, 3, 12, 8)


def parts_of(lengths=LENGTHS, seed: int = 0) -> tuple[list[list[int]], list[list[int]]]:
    generator = torch.Generator().manual_seed(seed)
    made = [torch.randint(3, 250, (n,), generator=generator).tolist() for n in (*lengths, 2, 4, 1)]
    return made[: len(lengths)], made[len(lengths) :]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("lengths", [LENGTHS, (6, 6, 6)])
@pytest.mark.parametrize("at_once", [8192, 20])
def test_scores_are_those_of_whole_prompts(tiny_lm, family, lengths, at_once):
    model, _ = load_language_model(tiny_lm(family=family), dtype="float32")
    begun, rests = parts_of(lengths)
    kept = Beginnings(model, begun, at_once=at_once)
    places = [i for i in reversed(range(len(begun))) for _ in rests]
    asked = rests * len(begun)
    expected = plain(model, [begun[place] + rest for place, rest in zip(places, asked, strict=True)])
    for _ in range(2):  # a call leaves what is kept as it was
        torch.testing.assert_close(kept.score(places, asked, ROWS), expected, atol=1e-5, rtol=0)
    assert expected.std() > 0.01
    assert kept.score([], [], ROWS).shape == (0,)


def test_vectors_are_kept_like_tokens(tiny_lm):
    model, _ = load_language_model(tiny_lm(), dtype="float32")
    slot, begun = 255, [[4, 255, 255, 9]] * 3
    overrides = Overrides(slot, [torch.randn(2, 48, generator=torch.Generator().manual_seed(i)) for i in range(3)])
    found = Beginnings(model, begun, overrides=overrides).score([2, 0], [[7, 8], [5, 6]], ROWS)
    whole = [[*begun[0], 7, 8], [*begun[0], 5, 6]]
    expected = score(model, whole, ROWS, overrides=Overrides(slot, [overrides.vectors[i] for i in (2, 0)]))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert abs(float(found[0] - found[1])) > 1e-3


def test_memory_is_told_without_padding(tiny_lm):
    model, _ = load_language_model(tiny_lm(), dtype="float32")
    config = model.config
    width = config.num_key_value_heads * config.hidden_size // config.num_attention_heads
    assert (
        Beginnings(model, parts_of()[0]).bytes == 8 * config.num_hidden_layers * 2 * width * 4
    )  # 8 tokens in the mean


@pytest.mark.parametrize("family", ["mamba", "gemma3_text"])
def test_models_that_cannot_go_on_are_refused(tiny_lm, family):
    model, _ = load_language_model(tiny_lm(family=family))
    with pytest.raises(InputError, match="keeps no keys and values that prompts could go on from"):
        Beginnings(model, [[3, 4]])


def test_an_empty_beginning_is_refused(tiny_lm):
    model, _ = load_language_model(tiny_lm())
    for begun in ([], [[3], []]):
        with pytest.raises(InputError, match="begins with nothing"):
            Beginnings(model, begun)
