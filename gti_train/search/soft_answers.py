"""The objective of judge, ranker and student: soft answers at the end of a prompt, by trees of tokens.

A task is a pair of answers, two rows of the head; several tasks read the same last position. A teacher says with what
probability the first answer of a task is right. What no teacher said weighs nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from gti_diag.errors import InputError
from gti_train.loop.training import Part
from gti_train.model.head import head_of, logits_of
from gti_train.model.loading import products_in
from gti_train.model.micro_batches import overhead_of
from gti_train.model.packing import Place, packed
from gti_train.model.tree_passes import Way, hidden_states, longest_row
from gti_train.model.trees import TokenTree

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class SoftExample:
    """A prompt, and for each task the probability of its first answer and what it weighs (0: no teacher said)."""

    ids: tuple[int, ...]
    targets: tuple[float, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.targets) != len(self.weights) or not self.ids:
            raise InputError(f"{len(self.targets)} targets, {len(self.weights)} weights: give both for each task")
        wrong = [t for t, w in zip(self.targets, self.weights, strict=True) if w < 0 or (w > 0 and not 0 <= t <= 1)]
        if wrong:
            raise InputError(
                f"a teacher's probability is {wrong[0]}: give one between 0 and 1, and weights of 0 or more"
            )


class SoftAnswers:
    """The objective Σ w_t · KL(teacher_t ‖ student_t) over families of prompts, which are its examples.

    `answers` are the token ids of each task's two answers. Prompts of a family that begin alike are run once up to there.

    Raises:
        InputError: a model whose head is not known; an example with other tasks; the answers of a task are one token.
    """

    side_by_side = False  # two graphs, and two gradients of every parameter, would be alive at once

    def __init__(
        self,
        model: "PreTrainedModel",
        families: Sequence[Sequence[SoftExample]],
        *,
        answers: Int[Tensor, "tasks two"],
        way: Way,
        micro_tokens: int,
        compute: torch.dtype,
    ):
        if way.own_head:
            raise InputError(f"the head of {type(model).__name__} is not known: take another model")
        if bool((answers[:, 0] == answers[:, 1]).any()):
            raise InputError("the two answers of a task are one token: choose answers that begin differently")
        odd = next((e for family in families for e in family if len(e.targets) != len(answers)), None)
        if odd is not None:
            raise InputError(f"an example has {len(odd.targets)} targets and there are {len(answers)} tasks")
        self.model, self.families, self.way = model, families, way
        self.answers = answers.to(model.device)
        self.micro_tokens, self.compute = micro_tokens, compute

    def supervised(self, indices: Sequence[int]) -> float:
        """What the answers weigh together; 1 where nothing is known, so that an empty batch has the loss 0."""
        return sum(sum(e.weights) for i in indices for e in self.families[i]) or 1.0

    def updated(self) -> None:
        """Nothing to do: the model is the parameters."""

    def parts(self, indices: Sequence[int]) -> list[Part]:
        """Passes of packed trees."""
        chosen = [self.families[i] for i in indices]
        row = longest_row(self.model, self.micro_tokens)
        tokens = [[(*e.ids, e.ids[-1]) for e in family] for family in chosen]  # the last is only a target
        passes = packed(tokens, row=row, budget=self.micro_tokens, overhead=overhead_of(self.model.device))
        return [partial(self._loss, chosen, rows) for rows in passes]

    def _loss(self, families: Sequence[Sequence[SoftExample]], rows: list[list[Place]]) -> Tensor:
        examples = [families[f][e] for row in rows for f, e in row]
        trees = [grown([families[f][e].ids for f, e in row]) for row in rows]
        with products_in(self.compute, self.model.device):
            hidden = hidden_states(self.model, TokenTree.stack(trees).to(self.model.device), self.way)
        logits = answer_logits(self.model, hidden, self.answers)
        targets = logits.new_tensor([e.targets for e in examples])
        weights = logits.new_tensor([e.weights for e in examples])
        return (soft_divergence(logits, targets.where(weights > 0, 0.5)) * weights).sum()


def answer_logits(
    model: "PreTrainedModel", hidden: Float[Tensor, "*batch dim"], answers: Int[Tensor, "tasks two"]
) -> Float[Tensor, "*batch tasks two"]:
    """Logits of each task's two answers, in float32: two rows of the head, not the vocabulary."""
    logits = logits_of(hidden.float(), head_of(model).rows(answers.flatten()))
    return logits.unflatten(-1, tuple(answers.shape))


def soft_divergence(
    logits: Float[Tensor, "*batch tasks two"], targets: Float[Tensor, "*batch tasks"]
) -> Float[Tensor, "*batch tasks"]:
    """KL(teacher ‖ student) between two answers, targets being the teacher's probability of the first."""
    log_student = F.log_softmax(logits, -1)
    teacher = torch.stack([targets, 1 - targets], -1)
    return (torch.special.xlogy(teacher, teacher) - teacher * log_student).sum(-1)


def grown(sequences: Sequence[Sequence[int]]) -> TokenTree:
    """The tree of these prompts, whose one target each is after their last token."""
    return TokenTree.grow([(*ids, ids[-1]) for ids in sequences], answers=[len(ids) for ids in sequences])
