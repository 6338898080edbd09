"""Keys and values go under whichever name the installed transformers knows."""

import pytest
import torch
from torch import nn

from gti_train.model.caches import cache_name, filled, kept, takes, with_cache
from gti_train.model.loading import load_language_model


class Newer(nn.Module):
    def forward(self, input_ids, cache=None, use_cache=None):
        return input_ids


class Older(nn.Module):
    def forward(self, input_ids, past_key_values=None, use_cache=None):
        return input_ids


class Without(nn.Module):
    def forward(self, input_ids):
        return input_ids


def test_each_name_is_known():
    assert [cache_name(body()) for body in (Newer, Older, Without)] == ["cache", "past_key_values", None]
    assert with_cache(Newer(), None) == {"cache": None, "use_cache": True}
    assert with_cache(Older(), None) == {"past_key_values": None, "use_cache": True}
    with pytest.raises(ValueError, match="Without takes no keys and values"):
        with_cache(Without(), None)


def test_what_a_body_takes():
    assert takes(Newer(), ["input_ids"], cache=True)
    assert takes(Without(), ["input_ids"]) and not takes(Without(), ["input_ids"], cache=True)
    assert not takes(Newer(), ["position_ids"])


@pytest.mark.filterwarnings("error")
def test_a_model_goes_on_from_what_it_kept(tiny_lm):
    """With no warning of a name that goes; and in halves as in one run."""
    model, _ = load_language_model(tiny_lm())
    body, ids = model.base_model, torch.arange(5, 13)[None]
    first = body(input_ids=ids[:, :5], **with_cache(body, filled([])))
    states = [(layer.keys, layer.values) for layer in kept(first).layers]
    second = body(input_ids=ids[:, 5:], **with_cache(body, filled(states)))
    whole = body(input_ids=ids).last_hidden_state
    assert torch.allclose(second.last_hidden_state, whole[:, 5:], atol=1e-5)
