"""What learns while a model is fine-tuned: every weight, or adapters on its linear layers beside its new rows."""

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gti_diag.errors import InputError
from gti_train.loop.training import Part
from gti_train.model.head import Head, head_of, vocabulary_loss
from gti_train.model.loading import load_again
from gti_train.model.matrices import matrices
from gti_train.model.new_rows import NewRows

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Learner(Protocol):
    """A model and its parameters that learn, all float32."""

    model: "PreTrainedModel"
    parameters: list[nn.Parameter]
    embed: Callable[[Tensor], Tensor] | None

    def vocabulary_loss(
        self, hidden: Float[Tensor, "targets dim"], targets: Int[Tensor, " targets"], weights: Float[Tensor, " targets"]
    ) -> Float[Tensor, ""]:
        """Σ w · −log p(target) among all tokens."""

    def head_rows(self, tokens: Int[Tensor, " codes"]) -> Head:
        """The head of these tokens, with gradients."""

    def new_rows(self) -> Tensor:
        """The input rows of the new tokens as they are now."""

    def updated(self) -> None:
        """The parameters have changed."""

    def begin(self) -> None:
        """The model has been asked how it runs (`find_way`): what changes that it may do now."""
        return

    def make_pass(self, part: Part) -> Tensor:
        """The loss of a pass; sharded weights are gathered meanwhile."""
        return part()

    def even(self, passes: list[Part], idle: Callable[[], Part]) -> list[Part]:
        """As many passes as this process must make; `idle` makes one more."""
        return passes

    def at_hand(self) -> AbstractContextManager[None]:
        """Meanwhile the model can be run in any way, without gradients, by each process for itself."""
        return nullcontext()

    def gather(self) -> None:
        """Make ready for `finished`; every process calls it."""
        return

    def finished(self, source: str | os.PathLike[str], dtype: torch.dtype) -> "PreTrainedModel":
        """The model to save, in the type of the weights at `source`. Nothing may be trained afterwards."""
        ...


class EveryWeight(Learner):
    """All parameters of a float32 model."""

    embed: Callable[[Tensor], Tensor] | None = None

    def __init__(self, model: "PreTrainedModel", ids: Sequence[int]):
        self.model, self.ids = model.eval().float().requires_grad_(True), torch.tensor(ids)
        self.parameters = list(model.parameters())
        embedding = model.get_input_embeddings()
        if isinstance(embedding, nn.Embedding) and "output" not in matrices(model):
            embedding.sparse = True  # a few rows, which are added to the gradient that the head gives all

    def vocabulary_loss(self, hidden: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        return vocabulary_loss(head_of(self.model), hidden, targets, weights)

    def head_rows(self, tokens: Tensor) -> Head:
        return head_of(self.model).rows(tokens)

    def new_rows(self) -> Tensor:
        return matrices(self.model)["input"].data[self.ids]

    def updated(self) -> None:
        """Nothing to do: the model is the parameters."""

    def finished(self, source: str | os.PathLike[str], dtype: torch.dtype) -> "PreTrainedModel":
        return self.model.requires_grad_(False).to(dtype)  # type: ignore[arg-type]


class Adapters(Learner):
    """LoRA on every linear layer but the head, and float32 masters of the new rows; all else is frozen.

    The weights that a saved model gets are W + (alpha / rank) · B A, added in float32 to those of the source.
    Source: Hu et al. 2021, "LoRA"; layers and initial values are PEFT's.
    """

    def __init__(
        self,
        model: "PreTrainedModel",
        ids: Sequence[int],
        *,
        start: dict[str, Tensor],
        rank: int,
        alpha: int,
        seed: int,
    ):
        try:
            from peft import LoraConfig, inject_adapter_in_model
        except ImportError:
            raise InputError("adapters need peft: pip install 'gti-diag[recommend]', or train every weight") from None
        model.eval().requires_grad_(False)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=alpha, target_modules="all-linear"), model)
        self.model, self.rows = model, NewRows(model, ids, start=start)
        adapted = [parameter for parameter in model.parameters() if parameter.requires_grad]
        for parameter in adapted:
            parameter.data = parameter.data.float()
        self.parameters = [*self.rows.masters.values(), *adapted]
        self.embed: Callable[[Tensor], Tensor] | None = partial(self.rows.embed, model)

    def vocabulary_loss(self, hidden: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        kind = hidden.device.type
        if torch.is_autocast_enabled(kind):
            hidden = hidden.to(torch.get_autocast_dtype(kind))
        return self.rows.loss(self.model, hidden, targets, weights)

    def head_rows(self, tokens: Tensor) -> Head:
        """Those of new tokens are their masters."""
        head, rows = head_of(self.model), self.rows.index[tokens]
        if bool((rows < 0).any()):
            raise InputError("the loss over codes needs codes that are new tokens of this checkpoint")
        masters: Tensor = self.rows.masters.get("output", self.rows.masters["input"])
        return Head(masters[rows], None if head.bias is None else head.bias[tokens], head.scale, head.cap)

    def new_rows(self) -> Tensor:
        return self.rows.masters["input"].data

    def updated(self) -> None:
        self.rows.materialise(self.model)

    def finished(self, source: str | os.PathLike[str], dtype: torch.dtype) -> "PreTrainedModel":
        deltas = {
            f"{name}.weight": layer.get_delta_weight("default").cpu()
            for name, layer in self.model.named_modules()
            if hasattr(layer, "get_delta_weight")
        }
        del self.model, self.embed
        model = load_again(source, dtype=torch.float32)
        for name, delta in deltas.items():
            model.get_parameter(name).data += delta
        self.rows.materialise(model)
        return model.to(dtype)  # type: ignore[arg-type]


def checkpoint_layers(model: "PreTrainedModel") -> None:
    """Keep only what enters each layer; the backward pass computes the rest again.

    The library's own switch asks for training mode, and so for dropout.

    Raises:
        InputError: as `layers_of`.
    """
    for layer in layers_of(model):
        plain = layer.forward
        layer.forward = partial(checkpoint, plain, use_reentrant=False, preserve_rng_state=False)


def layers_of(model: "PreTrainedModel") -> list[nn.Module]:
    """The layers of a model, in its order.

    Raises:
        InputError: the model does not say which modules are its layers.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers: list[nn.Module] = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise InputError(
            f"{type(model).__name__} does not say what its layers are: train it without --checkpointing and --shard"
        )
    return layers
