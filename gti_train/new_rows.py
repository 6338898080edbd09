"""New rows as the only parameters: lookup and loss of a frozen model with a few rows that learn.

The model's own matrices always hold the current rows, cast to the model's dtype: the float32 masters are
written there after every step. So the frozen model *is* the materialised checkpoint at any time, and only two
things are ours: gradients flow to the masters from new rows that are looked up, and from their logits.
"""

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from gti_train.vocabulary import matrices, write_rows

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class NewRows(nn.Module):
    """Float32 masters of the rows `ids`: `input`, and `output` where the head is not tied."""

    def __init__(self, model: "PreTrainedModel", ids: list[int]):
        super().__init__()
        self.tied = "output" not in matrices(model)
        for name, weight in matrices(model).items():
            self.register_parameter(name, nn.Parameter(weight.data[ids].float()))
        size = model.get_input_embeddings().weight.shape[0]
        index = torch.full((size,), -1)
        index[torch.tensor(ids)] = torch.arange(len(ids))
        self.register_buffer("ids", torch.tensor(ids))
        self.register_buffer("index", index)  # token id -> row of the masters, -1 for frozen tokens
        self.to(model.device)

    @property
    def head(self) -> nn.Parameter:
        """The masters that the logits use."""
        return self.input if self.tied else self.output

    def materialise(self, model: "PreTrainedModel") -> None:
        """Write the masters into the model, in its dtype."""
        write_rows(model, self.ids, {name: master.data for name, master in self.named_parameters()})

    def embed(self, model: "PreTrainedModel", ids: Int[Tensor, "batch length"]) -> Float[Tensor, "batch length dim"]:
        """The model's own embeddings of `ids`, with gradients to the masters where a token is new."""
        embedding = model.get_input_embeddings()
        hidden = embedding(ids)
        rows = self.index[ids]
        new = rows >= 0
        scale = getattr(embedding, "embed_scale", 1.0)  # Gemma's scaled embeddings
        learned = self.input[rows[new]].to(hidden.dtype) * scale
        return hidden.masked_scatter(new[..., None], learned)

    def loss(
        self,
        model: "PreTrainedModel",
        hidden: Float[Tensor, "positions dim"],
        targets: Int[Tensor, " positions"],
    ) -> Float[Tensor, ""]:
        """Summed negative log-likelihood of `targets` under the model's head."""
        weight = model.get_output_embeddings().weight
        return SummedCrossEntropy.apply(hidden, self.head, weight, self.ids, targets, 256)


class SummedCrossEntropy(torch.autograd.Function):
    """Σ_t −log softmax(h_t Wᵀ)[target_t] by chunks of positions; gradients to h and new rows of W.

    The loss is the end of the graph, so each chunk's gradients are taken while its probabilities are at hand:
    with p' = p − onehot(target), ∂h = p' W and ∂E = p'[:, ids]ᵀ h. No probability outlives its chunk, no logit
    is computed twice, and W itself never gets a gradient. `head` is there to receive ∂E: W holds its values.
    """

    @staticmethod
    def forward(ctx, hidden, head, weight, ids, targets, chunk):
        total = hidden.new_zeros((), dtype=torch.float32)
        to_hidden, to_head = torch.empty_like(hidden), torch.zeros_like(head)
        for start in range(0, len(hidden), chunk):
            part = slice(start, start + chunk)
            logits = (hidden[part] @ weight.T).float()
            normaliser = logits.logsumexp(-1, keepdim=True)
            target = targets[part, None]
            total += (normaliser - logits.gather(1, target)).sum()
            error = logits.sub_(normaliser).exp_()
            error.scatter_add_(1, target, error.new_full((1, 1), -1.0).expand_as(target))
            error = error.to(hidden.dtype)
            to_hidden[part] = error @ weight
            to_head += error[:, ids].T @ hidden[part]
        ctx.save_for_backward(to_hidden, to_head)
        return total

    @staticmethod
    def backward(ctx, grad):
        to_hidden, to_head = ctx.saved_tensors
        return to_hidden * grad.to(to_hidden.dtype), to_head * grad, None, None, None, None
