"""Orders that rounding cannot change: what differs by less than rounding does is a tie, and ties go by item."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

# In nats. The same sum in another batch differs by a few 1e-6; items of a catalogue lie a thousand times further apart,
# unless their rows are one point (the mean start), and then their order must not be noise.
TIE = 1e-5


def best(scores: Float[Tensor, "users n"], items: Int[Tensor, "users n"], count: int) -> Int[Tensor, "users count"]:
    """The places of the `count` highest scores, in order; scores that are tied are ordered by item.

    Sorted scores that follow each other within `TIE` are tied, and so are all of a chain of such.
    """
    ranked, order = scores.sort(dim=-1, descending=True, stable=True)
    steps = (ranked[:, :-1] - ranked[:, 1:]) > TIE
    groups = torch.nn.functional.pad(steps.long().cumsum(-1), (1, 0))
    by_item = items.gather(-1, order).argsort(dim=-1, stable=True)
    order, groups = order.gather(-1, by_item), groups.gather(-1, by_item)
    return order.gather(-1, groups.argsort(dim=-1, stable=True)[:, :count])
