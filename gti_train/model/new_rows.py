"""New rows as the only parameters: lookup and loss of a frozen model in which a few rows learn.

The model's own matrices always hold the current rows, cast to the model's dtype: the float32 masters are
written there after every step. So the frozen model *is* the materialised checkpoint at any time, and only two
things are ours: gradients flow to the masters from new rows that are looked up, and from their logits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from .matrices import matrices, rows_of, write_rows

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class NewRows:
    """Float32 masters of the rows `ids`: `input`, and `output` where the head is not tied."""

    def __init__(self, model: "PreTrainedModel", ids: Sequence[int], *, start: Mapping[str, Tensor] | None = None):
        """`start` are the masters' values where the model holds them rounded."""
        self.ids = list(ids)
        start = rows_of(model, ids) if start is None else start
        self.masters = {name: nn.Parameter(rows.float().to(model.device)) for name, rows in start.items()}
        # token id -> row of the masters, -1 for frozen tokens
        self.index = torch.full((len(matrices(model)["input"]),), -1)
        self.index[torch.tensor(self.ids)] = torch.arange(len(self.ids))
        self.index = self.index.to(model.device)

    def materialise(self, model: "PreTrainedModel") -> None:
        """Write the masters into the model, in its dtype."""
        write_rows(model, self.ids, {name: master.data for name, master in self.masters.items()})

    def embed(self, model: "PreTrainedModel", ids: Int[Tensor, "batch length"]) -> Float[Tensor, "batch length dim"]:
        """The model's own embeddings of `ids`, with gradients to the masters where a token is new."""
        embedding: Any = model.get_input_embeddings()
        hidden, rows = embedding(ids), self.index[ids]
        new = rows >= 0
        # embed_scale: Gemma multiplies inside its embedding module, in the dtype of the model
        scale = torch.as_tensor(getattr(embedding, "embed_scale", 1.0)).to(hidden)
        return hidden.masked_scatter(
            new[..., None], F.embedding(rows[new], self.masters["input"]).to(hidden.dtype) * scale
        )

    def loss(
        self,
        model: "PreTrainedModel",
        hidden: Float[Tensor, "positions dim"],
        targets: Int[Tensor, " positions"],
    ) -> Float[Tensor, ""]:
        """Summed negative log-likelihood of `targets` under the model's head."""
        masters: Tensor = self.masters.get("output", self.masters["input"])
        if not torch.is_grad_enabled():
            hidden, masters = hidden.detach(), masters.detach()
        return SummedCrossEntropy.apply(hidden, masters, head_of(model), self.ids, targets)


@dataclass(frozen=True)
class Head:
    """logits = cap · tanh(scale · (h Wᵀ + bias) / cap); without the tanh where there is no cap."""

    weight: Tensor
    bias: Tensor | None
    scale: float
    cap: float | None


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


class SummedCrossEntropy(torch.autograd.Function):
    """Σ_t −log softmax(z_t)[target_t] by chunks of positions, z the head's logits; gradients to h and new rows.

    The loss is the end of the graph, so each chunk's gradients are taken while its probabilities are at hand:
    with e = (softmax(z) − onehot(target)) · ∂z/∂(hWᵀ), ∂h = e W and ∂E = e[:, ids]ᵀ h. No probability outlives
    its chunk, no logit is computed twice, W itself never gets a gradient, and no gradient is filtered away.
    `masters` is there to receive ∂E: W holds its values.
    """

    CHUNK_BYTES = 1 << 26  # of float32 logits; larger chunks fall out of the cache and gain nothing

    @staticmethod
    def forward(ctx, hidden, masters, head, ids, targets):
        total = hidden.new_zeros((), dtype=torch.float32)
        to_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        to_masters = torch.zeros_like(masters) if ctx.needs_input_grad[1] else None
        contiguous = ids == list(range(ids[0], ids[0] + len(ids)))
        columns = slice(ids[0], ids[0] + len(ids)) if contiguous else torch.tensor(ids, device=hidden.device)
        chunk = max(16, SummedCrossEntropy.CHUNK_BYTES // (4 * head.weight.shape[0]))
        for start in range(0, len(hidden), chunk):
            part, target = hidden[start : start + chunk], targets[start : start + chunk, None]
            logits = F.linear(part, head.weight, head.bias).float()
            if head.scale != 1.0:
                logits *= head.scale
            slope = head.scale
            if head.cap is not None:
                logits = torch.tanh(logits / head.cap)
                slope = head.scale * (1 - logits**2)
                logits *= head.cap
            error = F.log_softmax(logits, -1)
            total -= error.gather(1, target).sum()
            if to_masters is None and to_hidden is None:
                continue
            error.exp_().scatter_add_(1, target, error.new_full(target.shape, -1.0))
            if head.cap is not None or head.scale != 1.0:
                error *= slope
            if to_masters is not None:
                to_masters += error[:, columns].T @ part.float()
            if to_hidden is not None:
                to_hidden[start : start + chunk] = error.to(part.dtype) @ head.weight
        ctx.save_for_backward(to_hidden, to_masters)
        return total

    @staticmethod
    def backward(ctx, grad):
        to_hidden, to_masters = ctx.saved_tensors
        return (
            None if to_hidden is None else to_hidden * grad.to(to_hidden.dtype),
            None if to_masters is None else to_masters * grad,
            None,
            None,
            None,
        )


def exact_loss(
    model: "PreTrainedModel",
    rows: NewRows,
    ids: Int[Tensor, "batch length"],
    *,
    mask: Int[Tensor, "batch length"],
    supervised: Tensor,
    targets: Int[Tensor, " positions"],
) -> Float[Tensor, ""]:
    """The same sum by the model's own forward on whole matrices: for heads that `head_of` does not know.

    Costs what the paper's Algorithm 1 costs, a gradient of the whole matrix, but is right for any model.
    """
    index = torch.tensor(rows.ids, device=ids.device)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    whole = {
        names[id(weight)]: weight.detach().index_copy(0, index, rows.masters[name].to(weight.dtype))
        for name, weight in matrices(model).items()
    }
    inputs = {"input_ids": ids, "attention_mask": mask, "use_cache": False}
    logits = torch.func.functional_call(model, whole, (), inputs).logits
    return F.cross_entropy(logits[supervised].float(), targets, reduction="sum")
