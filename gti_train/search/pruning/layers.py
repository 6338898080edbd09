"""Leaving out the layers that change their input least.

Source: block influence, Men et al. 2024, "ShortGPT: Layers in Large Language Models are More Redundant Than You Expect".
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gti_diag.errors import InputError
from gti_train.model.continuations import right_padded

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ROWS = 16  # sequences in one pass over what is measured on


def decoder_layers(model: "PreTrainedModel") -> tuple[nn.Module, str, nn.ModuleList]:
    """The module that holds the layers of a model, their name in it, and the layers.

    Raises:
        InputError: no list of as many modules as the config counts.
    """
    count = model.config.get_text_config().num_hidden_layers
    for parent in model.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.ModuleList) and len(child) == count:
                return parent, name, child
    raise InputError(f"{type(model).__name__} has no list of its {count} layers: prune another model")


@torch.no_grad()
def run_over(model: "PreTrainedModel", sequences: Sequence[Sequence[int]], hooks: Callable[[Tensor], Any]) -> None:
    """Run `sequences` in batches of similar length; `hooks(real)` hears before each which positions are real."""
    order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
    for start in range(0, len(order), ROWS):
        ids, real = right_padded([sequences[i] for i in order[start : start + ROWS]])
        real = real.to(model.device)
        hooks(real)
        model.base_model(input_ids=ids.to(model.device), attention_mask=real.long(), use_cache=False)


@contextmanager
def removed_at_end(handles: Sequence[Any]) -> Iterator[None]:
    """Take hooks off again, whatever happens."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def block_influence(model: "PreTrainedModel", sequences: Sequence[Sequence[int]]) -> Float[Tensor, " layers"]:
    """1 − the mean cosine of what enters and what leaves a layer, over all positions of `sequences`."""
    layers = decoder_layers(model)[2]
    sums, real, count = torch.zeros(len(layers), dtype=torch.float64), torch.zeros(0), 0

    def listen(place: int) -> Callable:
        def hook(module: nn.Module, given: tuple, kwargs: dict, output: Any) -> None:
            entering = given[0] if given else kwargs["hidden_states"]
            leaving = output[0] if isinstance(output, tuple) else output
            cosines = torch.cosine_similarity(entering.float(), leaving.float(), dim=-1)[real]
            sums[place] += cosines.double().sum().cpu()

        return hook

    def hear(positions: Tensor) -> None:
        nonlocal real, count
        real, count = positions, count + int(positions.sum())

    handles = [layer.register_forward_hook(listen(i), with_kwargs=True) for i, layer in enumerate(layers)]
    with removed_at_end(handles):
        run_over(model, sequences, hear)
    return (1 - sums / count).float()


def least_influential(influence: Float[Tensor, " layers"], count: int) -> list[int]:
    """The `count` layers to leave out.

    Raises:
        InputError: none would stay.
    """
    if not 0 <= count < len(influence):
        raise InputError(f"{count} layers to drop and the model has {len(influence)}: drop fewer")
    return sorted(influence.argsort()[:count].tolist())


def drop_layers(model: "PreTrainedModel", dropped: Collection[int]) -> None:
    """Take layers out of `model`, in its config as well; the others are numbered anew, as caches count them."""
    parent, name, layers = decoder_layers(model)
    kept = [place for place in range(len(layers)) if place not in dropped]
    setattr(parent, name, nn.ModuleList([layers[place] for place in kept]))
    for number, place in enumerate(kept):
        for module in layers[place].modules():
            if hasattr(module, "layer_idx"):
                vars(module)["layer_idx"] = number
    config = model.config.get_text_config()
    for key, value in list(vars(config).items()):
        if isinstance(value, list) and len(value) == len(layers):  # types of attention, layers without positions, …
            setattr(config, key, [value[place] for place in kept])
    config.num_hidden_layers = len(kept)
