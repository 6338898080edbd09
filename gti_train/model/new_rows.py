"""New rows as the only parameters: lookup and loss of a frozen model in which a few rows learn.

The model's own matrices always hold the current rows, cast to the model's dtype: the float32 masters are
written there after every step. So the frozen model *is* the materialised checkpoint at any time, and only two
things are ours: gradients flow to the masters from new rows that are looked up, and from their logits.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from .head import SummedCrossEntropy, head_of
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
        weights: Float[Tensor, " positions"] | None = None,
    ) -> Float[Tensor, ""]:
        """Summed negative log-likelihood of `targets` under the model's head, each times its weight (1 without)."""
        masters: Tensor = self.masters.get("output", self.masters["input"])
        if not torch.is_grad_enabled():
            hidden, masters = hidden.detach(), masters.detach()
        return SummedCrossEntropy.apply(hidden, masters, None, head_of(model), self.ids, targets, weights)


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
