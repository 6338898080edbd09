"""The head of a language model: from hidden states to logits, and to losses without holding all logits at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Head:
    """logits = cap · tanh(scale · (h Wᵀ + bias) / cap); without the tanh where there is no cap."""

    weight: Tensor
    bias: Tensor | None
    scale: float
    cap: float | None

    def rows(self, ids: Int[Tensor, " codes"]) -> "Head":
        """The head of these tokens alone."""
        return Head(self.weight[ids], None if self.bias is None else self.bias[ids], self.scale, self.cap)


def head_of(model: "PreTrainedModel") -> Head:
    """The head as the families build it: Gemma caps its logits, Cohere and Granite scale them."""
    config, layer = model.config.get_text_config(), model.get_output_embeddings()
    scale = getattr(config, "logit_scale", None) or 1.0
    scale /= getattr(config, "logits_scaling", None) or 1.0
    return Head(layer.weight, getattr(layer, "bias", None), scale, getattr(config, "final_logit_softcapping", None))


def logits_of(hidden: Float[Tensor, "positions dim"], head: Head) -> Float[Tensor, "positions rows"]:
    """All logits at once, for autograd to differentiate."""
    logits = F.linear(hidden, head.weight, head.bias) * head.scale
    return logits if head.cap is None else head.cap * torch.tanh(logits / head.cap)


def vocabulary_loss(
    head: Head,
    hidden: Float[Tensor, "positions dim"],
    targets: Int[Tensor, " positions"],
    weights: Float[Tensor, " positions"] | None = None,
) -> Float[Tensor, ""]:
    """Σ_t w_t · −log softmax(z_t)[target_t], chunk by chunk; gradients to h and to the whole head.

    Under autocast the products are in its type, the softmax and all sums in float32.
    """
    if torch.is_autocast_enabled(hidden.device.type):
        hidden = hidden.to(torch.get_autocast_dtype(hidden.device.type))
    weight, bias = (value if torch.is_grad_enabled() or value is None else value.detach()
                    for value in (head.weight, head.bias))  # fmt: skip
    return SummedCrossEntropy.apply(hidden, weight, bias, head, None, targets, weights)


class SummedCrossEntropy(torch.autograd.Function):
    """Σ_t w_t · −log softmax(z_t)[target_t] by chunks of positions, z the head's logits; gradients to h and some rows.

    The loss is the end of the graph, so each chunk's gradients are taken while its probabilities are at hand:
    with e = w (softmax(z) − onehot(target)) · ∂z/∂(hWᵀ), ∂h = e W and ∂E = e[:, ids]ᵀ h. No probability outlives
    its chunk, no logit is computed twice, rows outside `ids` never get a gradient, and no gradient is filtered away.
    `rows` is there to receive ∂E, the head holds its values; `ids` None means every row, and then `bias` learns too.
    """

    CHUNK_BYTES = 1 << 26  # of float32 logits; larger chunks fall out of the cache and gain nothing

    @staticmethod
    def forward(ctx, hidden, rows, bias, head, ids, targets, weights):
        total = hidden.new_zeros((), dtype=torch.float32)
        needs_hidden, needs_rows, needs_bias = ctx.needs_input_grad[:3]
        to_hidden = torch.zeros_like(hidden) if needs_hidden else None
        to_bias = torch.zeros_like(bias) if needs_bias else None
        to_rows = torch.zeros_like(rows) if needs_rows and not len(hidden) else None
        matrix = head.weight.to(hidden.dtype)
        offset = None if head.bias is None else head.bias.to(hidden.dtype)
        columns = _columns(ids, hidden.device)
        chunk = max(16, SummedCrossEntropy.CHUNK_BYTES // (4 * len(matrix)))
        for start in range(0, len(hidden), chunk):
            part, target = hidden[start : start + chunk], targets[start : start + chunk, None]
            with torch.autocast(hidden.device.type, enabled=False):
                logits = F.linear(part, matrix, offset).float()
                error, slope = _log_softmax(logits, head)
                weight = None if weights is None else weights[start : start + chunk, None].float()
                nll = error.gather(1, target)
                total -= (nll if weight is None else nll * weight).sum()
                if not any(ctx.needs_input_grad):
                    continue
                error.exp_().scatter_add_(1, target, error.new_full(target.shape, -1.0))
                for factor in (weight, slope):
                    if factor is not None:
                        error *= factor
                if needs_rows:  # a whole head's is large: its first chunk fills no zeros
                    found = _outer(error[:, columns], part, whole=ids is None)
                    to_rows = found.to(rows.dtype) if to_rows is None else to_rows.add_(found)
                if to_bias is not None:
                    to_bias += error.sum(0)
                if to_hidden is not None:
                    to_hidden[start : start + chunk] = error.to(part.dtype) @ matrix
        ctx.save_for_backward(to_hidden, to_rows, to_bias)
        return total

    @staticmethod
    def backward(ctx, grad):
        found = (None if g is None else g.mul_(grad.to(g.dtype)) for g in ctx.saved_tensors)  # a second call is refused
        return (*found, None, None, None, None)


def _columns(ids: Sequence[int] | None, device: torch.device) -> slice | Tensor:
    if ids is None:
        return slice(None)
    contiguous = list(ids) == list(range(ids[0], ids[0] + len(ids)))
    return slice(ids[0], ids[0] + len(ids)) if contiguous else torch.tensor(ids, device=device)


def _log_softmax(logits: Tensor, head: Head) -> tuple[Tensor, Tensor | float | None]:
    """Scale and cap raw products in place; their log-softmax, and the slope of the logits where it is not 1."""
    if head.scale != 1.0:
        logits *= head.scale
    if head.cap is None:
        return F.log_softmax(logits, -1), None if head.scale == 1.0 else head.scale
    logits = torch.tanh(logits / head.cap)
    slope = head.scale * (1 - logits**2)
    return F.log_softmax(logits.mul_(head.cap), -1), slope


def _outer(error: Tensor, hidden: Tensor, *, whole: bool) -> Tensor:
    """errorᵀ hidden: of a few rows in float32, of a whole head in the type of its products."""
    return error.to(hidden.dtype).T @ hidden if whole else error.T @ hidden.float()
