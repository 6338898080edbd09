"""Attention on CPU for a few live tokens after a constant past.

The library's plain attention copies every key and value once per query head of its group and differentiates the
past as well; its fused one has a slow backward pass in bfloat16. This one multiplies the heads of a group at once
and takes keys and values before the queries for constants, which in this trainer they are.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "constant_past"
# What models hand to every attention and the mask says already, or what matters in training or to other kernels only.
WITHOUT_EFFECT = {
    "is_causal", "sliding_window", "dropout", "position_ids", "use_cache", "output_attentions", "output_hidden_states"
}  # fmt: skip


def use_constant_past(model: "PreTrainedModel") -> None:
    """Let `model` attend by `constant_past_attention` (on CPU only; elsewhere its own attention stays)."""
    if model.device.type == "cpu":
        register(NAME, constant_past_attention, model)


def register(name: str, attention: Callable[..., tuple[Tensor, None]], model: "PreTrainedModel") -> None:
    """Make an attention known to the library by `name`, and let `model` attend by it."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import eager_mask

    AttentionInterface.register(name, attention)
    AttentionMaskInterface.register(name, eager_mask)
    model.set_attn_implementation(name)


def constant_past_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    softcap: float | None = None,
    **others: object,
) -> tuple[Tensor, None]:
    """softmax(cap(scaling · q kᵀ) + mask) v, where no gradient goes to keys and values before the queries.

    query is batch × heads × length × dim, key and value batch × groups × (past + length) × dim; the result is
    batch × length × heads × dim. The softmax is in float32.

    Raises:
        ValueError: as `refuse_unknown`.
    """
    refuse_unknown(others)
    past = key.shape[2] - query.shape[2]
    keys, values = ([states[:, :, :past].detach(), states[:, :, past:]] for states in (key, value))
    return grouped_attention(query, keys, values, attention_mask, scaling=scaling, softcap=softcap), None


def refuse_unknown(others: Mapping[str, object]) -> None:
    """Refuse what a model hands to its attention and ours does not heed.

    Raises:
        ValueError: the model attends in a way that is not known here (sinks, a bias by position, …).
    """
    unknown = sorted(name for name, value in others.items() if value is not None and name not in WITHOUT_EFFECT)
    if unknown:
        raise ValueError(f"attention by {', '.join(unknown)} is not known here")


def grouped_attention(
    query: Float[Tensor, "batch heads length dim"],
    keys: Sequence[Float[Tensor, "batch groups _ dim"]],
    values: Sequence[Float[Tensor, "batch groups _ value_dim"]],
    mask: Tensor | None,
    *,
    scaling: float | None,
    softcap: float | None,
) -> Float[Tensor, "batch length heads value_dim"]:
    """softmax(cap(scaling · q kᵀ) + mask) v over keys that lie in several tensors, the heads of a group at once; the
    softmax is in float32."""
    batch, heads, length, dim = query.shape
    groups, sizes = keys[0].shape[1], [part.shape[2] for part in keys]
    scaling = dim**-0.5 if scaling is None else scaling
    q = (query * scaling).reshape(batch, groups, -1, dim)  # the heads of a group, one below the other
    scores = torch.cat([q @ part.mT for part in keys], -1)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if mask is not None:
        scores = scores.view(batch, groups, -1, length, sum(sizes)) + mask[:, :, None]
    weights = torch.softmax(scores.view(batch, groups, -1, sum(sizes)), -1, dtype=torch.float32).to(query.dtype)
    parts = zip(weights.split(sizes, -1), values, strict=True)
    mixed = reduce(torch.add, (part @ value for part, value in parts))
    return mixed.view(batch, heads, length, values[0].shape[-1]).transpose(1, 2).contiguous()
