"""Attention on CPU for a few live tokens after a constant past.

The library's plain attention copies every key and value once per query head of its group and differentiates the
past as well; its fused one has a slow backward pass in bfloat16. This one multiplies the heads of a group at once
and takes keys and values before the queries for constants, which in this trainer they are.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "constant_past"
# What models hand to every attention and the mask says already, or what matters in training or to other kernels only.
WITHOUT_EFFECT = {"is_causal", "sliding_window", "dropout", "position_ids", "use_cache", "output_attentions"}


def use_constant_past(model: "PreTrainedModel") -> None:
    """Let `model` attend by `constant_past_attention` (on CPU only; elsewhere its own attention stays)."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import eager_mask

    if model.device.type != "cpu":
        return
    AttentionInterface.register(NAME, constant_past_attention)
    AttentionMaskInterface.register(NAME, eager_mask)
    model.set_attn_implementation(NAME)


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
        ValueError: the model attends in a way that is not known here (sinks, a bias by position, …).
    """
    unknown = sorted(name for name, value in others.items() if value is not None and name not in WITHOUT_EFFECT)
    if unknown:
        raise ValueError(f"attention by {', '.join(unknown)} is not known here")
    batch, heads, length, dim = query.shape
    groups, past = key.shape[1], key.shape[2] - length
    scaling = dim**-0.5 if scaling is None else scaling
    q = (query * scaling).reshape(batch, groups, -1, dim)  # the heads of a group, one below the other
    old_k, new_k = key[:, :, :past].detach(), key[:, :, past:]
    old_v, new_v = value[:, :, :past].detach(), value[:, :, past:]
    scores = torch.cat([q @ old_k.mT, q @ new_k.mT], -1)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if attention_mask is not None:
        scores = scores.view(batch, groups, -1, length, past + length) + attention_mask[:, :, None]
    weights = torch.softmax(scores.view(batch, groups, -1, past + length), -1, dtype=torch.float32)
    weights = weights.to(query.dtype)
    mixed = weights[..., :past] @ old_v + weights[..., past:] @ new_v
    return mixed.view(batch, heads, length, value.shape[-1]).transpose(1, 2).contiguous(), None
