"""The embedding matrices of a model in memory: which there are, their rows, and which rows are trained."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def matrices(model: "PreTrainedModel") -> dict[str, torch.nn.Parameter]:
    """The matrices that hold a row per token: `input`, and `output` only where the head is not tied to it."""
    embedding: Any = model.get_input_embeddings()
    head: Any = model.get_output_embeddings()
    found = {"input": embedding.weight}
    if head is not None and head.weight is not found["input"]:
        found["output"] = head.weight
    return found


def rows_of(model: "PreTrainedModel", ids: Sequence[int]) -> dict[str, Tensor]:
    """Copies of the rows `ids` of each matrix."""
    return {name: weight.data[list(ids)] for name, weight in matrices(model).items()}


def write_rows(model: "PreTrainedModel", ids: Sequence[int], rows: Mapping[str, Tensor]) -> None:
    """Overwrite the rows `ids` of the matrices named in `rows`, in the dtype of the model."""
    for name, weight in matrices(model).items():
        weight.data[torch.as_tensor(ids, device=weight.device)] = rows[name].to(weight)


def trained_ids(tokenizer: "PreTrainedTokenizerBase", new: Sequence[int], *, rows: int) -> Tensor:
    """Ids of trained rows: those of a token of the tokenizer, without the new ones; padding has no token."""
    return torch.tensor(sorted({i for i in tokenizer.get_vocab().values() if i < rows} - set(new)))
