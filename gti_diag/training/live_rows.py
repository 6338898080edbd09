"""Embedding rows of a model in memory: wrapped, adapted, or sharded over processes; only the rows asked for."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from gti_diag.errors import InputError


def unwrapped(model: nn.Module) -> Any:
    """The model inside DistributedDataParallel and the like."""
    while not hasattr(model, "get_input_embeddings") and hasattr(model, "module"):
        model = model.module  # type: ignore[assignment]
    return model


def input_embedding(model: nn.Module) -> nn.Module:
    """The module that turns ids into rows."""
    return unwrapped(model).get_input_embeddings()


def row_count(embedding: Any) -> int:
    """Rows of an embedding module, adapted or not."""
    weight = getattr(embedding, "weight", None)
    return weight.shape[0] if weight is not None and weight.dim() == 2 else embedding.num_embeddings


def readers(model: nn.Module) -> dict[str, Callable[[Tensor], Tensor]]:
    """`read(ids)` for the input rows, and for the output rows of a head that is a matrix of its own."""
    inner = unwrapped(model)
    embedding, head = inner.get_input_embeddings(), inner.get_output_embeddings()
    readers = {"input": lambda ids: input_rows(embedding, ids)}
    own = getattr(embedding, "weight", None)
    weight = getattr(head, "weight", None)
    if isinstance(weight, Tensor) and weight is not own and weight.dim() == 2:
        readers["output"] = lambda ids: matrix_rows(weight, ids)
    return readers


@torch.no_grad()
def input_rows(embedding: nn.Module, ids: Tensor) -> Tensor:
    """The rows as the model would see them: asked of the module, so that LoRA and trainable tokens are in them."""
    weight = getattr(embedding, "weight", None)
    if isinstance(weight, DTensor):
        return matrix_rows(weight, ids)
    device = next(embedding.parameters()).device
    return embedding(ids.to(device)[None])[0].detach()


@torch.no_grad()
def matrix_rows(weight: Tensor, ids: Tensor) -> Tensor:
    """Rows of a whole matrix, or of one that FSDP2 shards by rows: each process gives those it holds, summed over all."""
    if not isinstance(weight, DTensor):
        return weight.detach()[ids.to(weight.device)]
    local, mesh = weight.to_local(), weight.device_mesh
    if mesh.ndim != 1 or not weight.placements[0].is_shard(0):
        raise InputError(
            f"rows sharded as {weight.placements} over {mesh} cannot be gathered: shard dimension 0 over one mesh axis"
        )
    chunk = -(-weight.shape[0] // mesh.size())  # torch.chunk's: all but the last are equal
    places = ids.to(local.device) - mesh.get_local_rank() * chunk
    mine = (places >= 0) & (places < len(local))
    found = torch.zeros(len(ids), weight.shape[1], dtype=local.dtype, device=local.device)
    found[mine] = local[places[mine]]
    torch.distributed.all_reduce(found, group=mesh.get_group())
    return found
