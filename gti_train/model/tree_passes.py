"""Running token trees through a model: masks, the attention to use, and what to do where a model cannot be split."""

import inspect
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from .attention import use_constant_past
from .head import head_of, logits_of, vocabulary_loss
from .tree_attention import NAME as BLOCKS
from .tree_attention import block_mask, use_tree_attention
from .trees import TokenTree, alike

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)
FLEX = "flex_attention"
ROW_CPU = 384  # nodes of a row: longer ones share more, and attend to more that is not theirs
BY_TYPE, ONE, APART = "a mask for each type of layer", "one mask", "apart"


@dataclass(frozen=True)
class Way:
    """How a model runs trees: by which masks or `APART`, path by path; `own_head` where `head` does not know its head."""

    masks: str = ONE
    own_head: bool = False


def tree_loss(model: "PreTrainedModel", tree: TokenTree, way: Way | None = None) -> Float[Tensor, ""]:
    """Σ w · −log p(target) over the targets of `tree`, each after the tokens on the path to its node.

    Equals the same sum sequence by sequence, and so do its gradients to whatever in `model` requires them. `way` is
    asked of the model where it is not given (see `find_way`).
    """
    way = find_way(model, tree.paths()[0]) if way is None else way
    if way.own_head:
        logits = _own_logits(model, tree, way)
        return (F.cross_entropy(logits.float(), tree.targets, reduction="none") * tree.weights).sum()
    return vocabulary_loss(head_of(model), hidden_states(model, tree, way), tree.targets, tree.weights)


def hidden_states(
    model: "PreTrainedModel", tree: TokenTree, way: Way, *, embed: Callable[[Tensor], Tensor] | None = None
) -> Float[Tensor, "targets dim"]:
    """The last hidden state at the node before each target. `embed` looks tokens up, where not the model does."""
    inputs, places = _inputs(tree, way, model)
    if embed is not None:
        inputs = {**inputs, "inputs_embeds": embed(inputs["input_ids"]), "input_ids": None}
    return model.base_model(**inputs, use_cache=False).last_hidden_state.flatten(0, 1)[places]


def _own_logits(model: "PreTrainedModel", tree: TokenTree, way: Way) -> Float[Tensor, "targets rows"]:
    inputs, places = _inputs(tree, way, model)
    return model(**inputs, use_cache=False).logits.flatten(0, 1)[places]


def _inputs(tree: TokenTree, way: Way, model: "PreTrainedModel") -> tuple[dict[str, Any], Tensor]:
    """What the model reads, and where in it (counted through all rows) each target's node is."""
    if way.masks != APART:
        given = {"input_ids": tree.ids, "position_ids": tree.depths, "attention_mask": _masks(tree, way, model)}
        return given, tree.at
    paths, path, place = tree.paths()
    length = max(map(len, paths))
    ids = torch.zeros(len(paths), length, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, tokens in enumerate(paths):
        ids[row, : len(tokens)], mask[row, : len(tokens)] = torch.tensor(tokens), 1
    device = tree.ids.device
    return {"input_ids": ids.to(device), "attention_mask": mask.to(device)}, (path * length + place).to(device)


def _masks(tree: TokenTree, way: Way, model: "PreTrainedModel") -> Any:
    """Ancestors as the model's attention takes them: blocks for flex attention, else numbers to add to scores."""
    config = model.config.get_text_config()
    kind = config._attn_implementation
    build = _flex if kind == FLEX else partial(block_mask if kind == BLOCKS else _additive, dtype=model.dtype)
    window = getattr(config, "sliding_window", None)
    if way.masks == ONE:
        return build(tree, window)
    kinds = set(config.layer_types)
    windows = {"full_attention": None, "sliding_attention": window}
    if unknown := kinds - windows.keys():
        raise ValueError(f"no mask is known for layers of type {', '.join(sorted(unknown))}")
    return {kind: build(tree, windows[kind]) for kind in kinds}


def _additive(tree: TokenTree, window: int | None, dtype: torch.dtype) -> Tensor:
    seen = tree.ancestors(window)[:, None]  # every node sees itself, padding too: no row is empty
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, torch.finfo(dtype).min)


def _flex(tree: TokenTree, window: int | None) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    ends, depths = tree.ends, tree.depths

    def seen(row: Tensor, head: Tensor, node: Tensor, above: Tensor) -> Tensor:
        found = (above <= node) & (node < ends[row, above])
        return found if window is None else found & (depths[row, node] - depths[row, above] < window)

    rows, nodes = tree.ids.shape
    return create_block_mask(seen, rows, None, nodes, nodes, device=tree.ids.device)


def longest_row(model: "PreTrainedModel", budget: int) -> int:
    """How many nodes a row of a pass of `budget` should hold at most: all, unless each attends to all of its row."""
    attention = model.config.get_text_config()._attn_implementation
    return budget if model.device.type != "cpu" or attention == BLOCKS else ROW_CPU


def find_way(model: "PreTrainedModel", sequences: Sequence[Sequence[int]]) -> Way:
    """The cheapest way whose hidden states are those of each sequence alone, and the attention it takes (set on `model`).

    Models differ in what they carry from token to token (keys and values, windows of them, states, positions of their
    own); asking the model is surer than a list of names. It is asked with the longest of `sequences`, so that every
    window is reached, and a branch of it that must not see the other: whatever is passed on by order, not by ancestry,
    shows.
    """
    probe = TokenTree.grow(_forked(sequences)).to(model.device)
    own = model.config._attn_implementation
    with torch.no_grad():
        alone = Way(APART, own_head=not _knows_head(model, probe))
        expected = _outputs(model, probe, alone)
        for attend in _attentions(model, own):
            attend(model)
            for way in (replace(alone, masks=masks) for masks in (BY_TYPE, ONE)):
                if _agrees(model, probe, way, expected):
                    return way
    model.set_attn_implementation(own)
    log.warning("%s cannot be run as a tree: every sequence is run by itself, which is slower", type(model).__name__)
    return alone


def _attentions(model: "PreTrainedModel", own: str) -> Iterator[Callable[["PreTrainedModel"], None]]:
    if model.device.type == "cpu":
        yield use_tree_attention
        yield use_constant_past  # there is no past here: it is grouped attention with every gradient
    else:
        yield lambda model: model.set_attn_implementation(FLEX)
    yield lambda model: model.set_attn_implementation(own)


def _forked(sequences: Sequence[Sequence[int]]) -> list[list[int]]:
    """The longest sequence, and a branch that leaves it half-way and goes on as another one does (or backwards)."""
    longest = list(sequences[max(range(len(sequences)), key=lambda place: len(sequences[place]))])
    half = max(1, len(longest) // 2)
    others = [[*longest[:half], *s[half:]] for s in sequences if alike(s, longest) <= half < len(s)]
    backwards = [*longest[:half], *longest[half:][::-1], longest[0]]
    other: list[int] = max(others, key=len) if others else backwards
    return [[*longest, longest[-1]], [*other, other[-1]]]  # the last token is only a target


def _outputs(model: "PreTrainedModel", tree: TokenTree, way: Way) -> Tensor:
    return (_own_logits if way.own_head else hidden_states)(model, tree, way)


def _agrees(model: "PreTrainedModel", probe: TokenTree, way: Way, expected: Tensor) -> bool:
    body = model if way.own_head else model.base_model
    if not {"position_ids", "attention_mask"} <= set(inspect.signature(body.forward).parameters):
        return False
    try:
        found = _outputs(model, probe, way)
    except Exception as error:  # other masks, other shapes, other arguments: whatever it is, this way does not fit
        log.debug("%s does not take %s: %s", type(model).__name__, way.masks, error)
        return False
    return _distance(found, expected) < (1e-4 if model.dtype == torch.float32 else 5e-2)


def _knows_head(model: "PreTrainedModel", probe: TokenTree) -> bool:
    """Whether `head` builds the logits of the last few hidden states as the model does."""
    last, alone = slice(-8, None), Way(APART)
    try:
        hidden = hidden_states(model, probe, alone)
    except AttributeError:  # a body that hands out no hidden states
        return False
    return _distance(logits_of(hidden[last], head_of(model)), _own_logits(model, probe, alone)[last]) < 3e-2


def _distance(found: Tensor, expected: Tensor) -> float:
    """The largest relative difference of a row."""
    found, expected = found.double(), expected.double()
    return float(((found - expected).norm(dim=-1) / expected.norm(dim=-1)).max())
