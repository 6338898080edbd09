"""Attention of token trees on a CPU, by blocks of nodes: each sees its own nodes and the path above its first one.

In depth-first order the descendants of a node are an interval. An ancestor of some node j of the block a … b − 1 that lies
before the block, i < a ≤ j < ends[i], is thus an ancestor of a: all that a block can attend to is a's path and the block.
A row's cost then grows with its nodes times their depth, not with its nodes squared, so rows may be as long as a pass.
"""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from .attention import constant_past_attention, grouped_attention, refuse_unknown, register
from .trees import TokenTree

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "tree_blocks"
BLOCK = 64  # nodes: smaller ones are many small products, larger ones see more that is not theirs


class BlockMask(Tensor):
    """What is added to the scores of each block (blocks × 1 × nodes × seen), which are of `above` and of its own nodes.

    above: the nodes on the path above each block, counted through all rows; the mask hides what only fills them up.
    A tensor, because models hand it on as it is.
    """

    above: Int[Tensor, "blocks ancestors"]


def block_mask(tree: TokenTree, window: int | None, dtype: torch.dtype) -> BlockMask:
    """The ancestors of every node, by blocks of `BLOCK` nodes of each row."""
    rows, nodes = tree.ids.shape
    place = torch.arange(nodes, device=tree.ids.device)
    starts = place[::BLOCK]
    passing = (place < starts[:, None]) & (tree.ends[:, None] > starts[:, None])  # rows × blocks × nodes
    most = int(passing.sum(-1).max())
    above = passing.int().argsort(dim=-1, descending=True, stable=True)[..., :most]
    own = starts[:, None] + torch.arange(BLOCK, device=place.device)
    seen = torch.cat([above, own.expand(rows, -1, -1)], -1)
    there = torch.cat([passing.gather(-1, above), (own < nodes).expand(rows, -1, -1)], -1)
    seen, own = seen.clamp(max=nodes - 1), own.clamp(max=nodes - 1)
    ends = tree.ends[:, None].expand(-1, len(starts), -1).gather(-1, seen)
    visible = there[..., None, :] & (seen[..., None, :] <= own[..., None]) & (own[..., None] < ends[..., None, :])
    if window is not None:
        depths = tree.depths[:, None].expand(-1, len(starts), -1)
        visible &= tree.depths[:, own, None] - depths.gather(-1, seen)[..., None, :] < window
    added = torch.zeros(visible.shape, dtype=dtype, device=place.device).masked_fill_(~visible, torch.finfo(dtype).min)
    mask = added.flatten(0, 1)[:, None].as_subclass(BlockMask)
    mask.above = (above + nodes * torch.arange(rows, device=place.device)[:, None, None]).flatten(0, 1)
    return mask


def use_tree_attention(model: "PreTrainedModel") -> None:
    """Let `model` attend by `tree_attention`."""
    register(NAME, tree_attention, model)


def tree_attention(
    module: torch.nn.Module,
    query: Float[Tensor, "rows heads nodes dim"],
    key: Float[Tensor, "rows groups nodes dim"],
    value: Float[Tensor, "rows groups nodes value_dim"],
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    softcap: float | None = None,
    **others: object,
) -> tuple[Float[Tensor, "rows nodes heads value_dim"], None]:
    """softmax(cap(scaling · q kᵀ) + mask) v over the nodes that a `BlockMask` names; with any other mask over all.

    Raises:
        ValueError: as `refuse_unknown`.
    """
    if not isinstance(attention_mask, BlockMask):
        told = {"scaling": scaling, "softcap": softcap, **others}
        return constant_past_attention(module, query, key, value, attention_mask, **told)  # type: ignore[arg-type]
    refuse_unknown(others)
    rows, heads, nodes, _ = query.shape
    size, above = attention_mask.shape[2], attention_mask.above
    mixed = grouped_attention(
        _blocks(query, size),
        [_taken(key, above), _blocks(key, size)],
        [_taken(value, above), _blocks(value, size)],
        attention_mask.as_subclass(Tensor),
        scaling=scaling, softcap=softcap,
    )  # fmt: skip
    return mixed.reshape(rows, -1, heads, value.shape[-1])[:, :nodes], None


def _blocks(states: Float[Tensor, "rows heads nodes dim"], size: int) -> Float[Tensor, "blocks heads size dim"]:
    rows, heads, nodes, dim = states.shape
    filled = F.pad(states, (0, 0, 0, -nodes % size))
    return filled.view(rows, heads, -1, size, dim).transpose(1, 2).flatten(0, 1)


def _taken(
    states: Float[Tensor, "rows groups nodes dim"], above: Int[Tensor, "blocks ancestors"]
) -> Float[Tensor, "blocks groups ancestors dim"]:
    found = states.transpose(1, 2).flatten(0, 1).index_select(0, above.flatten())
    return found.view(*above.shape, *found.shape[1:]).transpose(1, 2)
