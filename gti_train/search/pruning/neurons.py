"""Leaving out neurons of gated MLPs: what stays is fitted again, by least squares, to give what all gave.

With activations X (tokens × neurons) of a layer and its outward weights W (neurons × dim), neurons S are kept and their
weights become the minimiser of ‖X W − X_S Ŵ‖². With H = XᵀX, Ŵ = H_SS⁻¹ H_S: W, and taking neuron j out of S as well costs
exactly ‖ŵ_j‖² / [H_SS⁻¹]_jj. S shrinks by rounds of such steps; then the best to add and the worst to take out are exchanged while that helps.

Source: Optimal Brain Surgeon, Hassibi and Stork 1992, for groups of weights; search by exchanges, Meng et al. 2024, "OSSCAR:
One-Shot Structured Pruning in Vision and Language Models with Combinatorial Optimization". Written from their ideas: OSSCAR
feeds each layer what the pruned ones before it give, here all layers hear the model before any neuron is left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from gti_diag.errors import InputError

from .layers import decoder_layers, removed_at_end, run_over

if TYPE_CHECKING:
    from transformers import PreTrainedModel

GATED = ("gate_proj", "up_proj", "down_proj")
ROUNDS = 6  # of shrinking: costs are exact for one neuron, so a round takes few
EXCHANGES = 6  # attempts at most
DAMPING = 1e-3  # of H's mean diagonal, added to it: neurons that never fire together are no reason for huge weights


@dataclass(frozen=True)
class Fit:
    """Neurons that stay, their outward weights, and the error ‖X W − X_S Ŵ‖² (damping included)."""

    kept: Int[Tensor, " kept"]
    weights: Float[Tensor, "kept dim"]
    inverse: Float[Tensor, "kept kept"]
    error: float


def refit(gram: Float[Tensor, "neurons neurons"], outward: Float[Tensor, "neurons dim"], kept: Tensor) -> Fit:
    """Least squares for the neurons `kept`. `gram` is H, float64 and positive definite."""
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram[kept][:, kept]))
    target = gram @ outward
    weights = inverse @ target[kept]
    return Fit(kept, weights, inverse, float((outward * target).sum() - (weights * target[kept]).sum()))


def removal_costs(fit: Fit) -> Float[Tensor, " kept"]:
    """By how much the error grows when one of the kept neurons goes and the others are fitted again."""
    return fit.weights.square().sum(1) / fit.inverse.diagonal()


def addition_gains(gram: Tensor, target: Tensor, fit: Fit, others: Tensor) -> Float[Tensor, " others"]:
    """By how much the error falls when one of `others` comes back and all are fitted again; `target` is H W."""
    between = gram[others][:, fit.kept]
    residual = target[others] - between @ fit.weights
    own = gram.diagonal()[others] - ((between @ fit.inverse) * between).sum(1)
    return residual.square().sum(1) / own


def choose_neurons(gram: Float[Tensor, "neurons neurons"], outward: Float[Tensor, "neurons dim"], count: int) -> Fit:
    """The best `count` neurons that shrinking and exchanging find, in order.

    Raises:
        InputError: more than there are, or none.
    """
    if not 0 < count <= len(gram):
        raise InputError(f"{count} neurons to keep of {len(gram)}: keep at least one and at most all")
    fit, target = refit(gram, outward, torch.arange(len(gram))), gram @ outward
    sizes = torch.linspace(len(gram), count, ROUNDS + 1).round().long().tolist()[1:]
    for size in sizes:
        fit = shrunk(fit, size)
    swap = max(1, (len(gram) - count) // 8)
    for _ in range(EXCHANGES):
        others = _without(len(gram), fit.kept)
        if not len(others) or not swap:
            break
        best = others[addition_gains(gram, target, fit, others).topk(min(swap, len(others))).indices]
        found = shrunk(grown(gram, target, fit, best), count)
        if found.error < fit.error * (1 - 1e-9):
            fit = found
        else:
            swap //= 2
    return refit(gram, outward, fit.kept.sort().values)  # what rounding the updates gathered is left behind


def shrunk(fit: Fit, size: int) -> Fit:
    """The `size` neurons of a fit that cost most to lose, fitted again by an update of the inverse, not anew."""
    order = removal_costs(fit).argsort(descending=True, stable=True)
    stay, gone = order[:size].sort().values, order[size:]
    side, corner = fit.inverse[stay][:, gone], torch.linalg.cholesky(fit.inverse[gone][:, gone])
    lost = torch.cholesky_solve(fit.weights[gone], corner)
    return Fit(
        fit.kept[stay],
        fit.weights[stay] - side @ lost,
        fit.inverse[stay][:, stay] - side @ torch.cholesky_solve(side.T, corner),
        fit.error + float((fit.weights[gone] * lost).sum()),
    )


def grown(gram: Tensor, target: Tensor, fit: Fit, more: Tensor) -> Fit:
    """A fit with the neurons `more` as well, by an update of the inverse; `target` is H W."""
    between = gram[fit.kept][:, more]
    across = fit.inverse @ between
    residual = target[more] - between.T @ fit.weights
    corner = torch.cholesky_inverse(torch.linalg.cholesky(gram[more][:, more] - between.T @ across))
    weights, side = corner @ residual, -across @ corner
    inverse = torch.cat([torch.cat([fit.inverse - side @ across.T, side], 1), torch.cat([side.T, corner], 1)])
    weights, gain = torch.cat([fit.weights - across @ weights, weights]), float((weights * residual).sum())
    return Fit(torch.cat([fit.kept, more]), weights, inverse, fit.error - gain)


def _without(count: int, kept: Tensor) -> Tensor:
    out = torch.ones(count, dtype=torch.bool)
    out[kept] = False
    return out.nonzero()[:, 0]


def gated_mlps(model: "PreTrainedModel") -> list[Any]:
    """The gated MLP of each layer, in order.

    Raises:
        InputError: a layer has none, or more than one (experts).
    """
    found = []
    for layer in decoder_layers(model)[2]:
        own = [m for m in layer.modules() if all(isinstance(getattr(m, name, None), nn.Linear) for name in GATED)]
        if len(own) != 1:
            raise InputError(
                f"{type(model).__name__} has {len(own)} gated MLPs in a layer: neurons are pruned where there is one"
            )
        found += own
    return found


def activation_grams(model: "PreTrainedModel", sequences: Sequence[Sequence[int]]) -> list[Tensor]:
    """XᵀX of what enters each layer's outward projection, over all positions of `sequences` (neurons × neurons, float32)."""
    mlps, here = gated_mlps(model), {"real": torch.zeros(0)}
    grams = [torch.zeros(mlp.down_proj.in_features, mlp.down_proj.in_features) for mlp in mlps]

    def listen(gram: Tensor):
        def hook(module: nn.Module, given: tuple) -> None:
            rows = given[0][here["real"]].float()
            gram.add_((rows.T @ rows).cpu())

        return hook

    handles = [mlp.down_proj.register_forward_pre_hook(listen(g)) for mlp, g in zip(mlps, grams, strict=True)]
    with removed_at_end(handles):
        run_over(model, sequences, lambda real: here.update(real=real))
    return grams


@torch.no_grad()
def drop_neurons(model: "PreTrainedModel", grams: Sequence[Tensor], count: int) -> list[float]:
    """Leave `count` neurons in each layer of `model`, in its config as well; the share of each layer's output not explained."""
    shares = []
    for mlp, gram in zip(gated_mlps(model), grams, strict=True):
        damped, outward = gram.double(), mlp.down_proj.weight.T.double().cpu()
        damped.diagonal().add_(DAMPING * damped.diagonal().mean())
        fit = choose_neurons(damped, outward, count)
        shares.append(fit.error / float((outward * (damped @ outward)).sum()))
        for layer in (mlp.gate_proj, mlp.up_proj):
            layer.weight = nn.Parameter(layer.weight[fit.kept], requires_grad=False)
            layer.bias = None if layer.bias is None else nn.Parameter(layer.bias[fit.kept], requires_grad=False)
            layer.out_features = count
        mlp.down_proj.weight = nn.Parameter(fit.weights.T.to(mlp.down_proj.weight), requires_grad=False)
        mlp.down_proj.in_features = count
    model.config.get_text_config().intermediate_size = count
    return shares
