"""The joint objective of encoder and ranker: soft answers read off item tokens, and states like those that text gives.

Every vector is a token of its own for one pass: ids from the size of the vocabulary on, which an embedding of both looks up.
So prompts with vectors run by the same trees as prompts of text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from gti_train.loop.training import Part
from gti_train.model.loading import products_in
from gti_train.model.matrices import matrices
from gti_train.model.micro_batches import buckets, overhead_of
from gti_train.model.packing import packed
from gti_train.model.tree_passes import Way, hidden_states, longest_row
from gti_train.model.trees import TokenTree

from ..prompts import Prompter
from ..soft_answers import answer_logits, grown, soft_divergence
from .encoder import ItemEncoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class ItemLesson:
    """A document, queries that are asked about it, and for each the probability of yes and the text ranker's last state.

    The probability is a mean of the label's and the text ranker's: Σ w_t KL(p_t ‖ q) is (Σ w_t) KL(p̄ ‖ q) and a constant.
    """

    document: tuple[int, ...]
    queries: tuple[tuple[int, ...], ...]
    targets: tuple[float, ...]
    states: Float[Tensor, "queries dim"]


class ItemAnswers:
    """The objective Σ KL(target ‖ ranker) + `align` · (1 − cosine of the last states given vectors and given text)."""

    side_by_side = False

    def __init__(
        self,
        ranker: "PreTrainedModel",
        encoder: ItemEncoder,
        lessons: Sequence[ItemLesson],
        *,
        prompter: Prompter,
        way: Way,
        align: float,
        micro_tokens: int,
        compute: torch.dtype,
    ):
        self.ranker, self.encoder, self.lessons, self.prompter = ranker, encoder, lessons, prompter
        self.way, self.align, self.micro_tokens, self.compute = way, align, micro_tokens, compute
        self.answers = torch.tensor([prompter.rows], device=ranker.device)

    def supervised(self, indices: Sequence[int]) -> float:
        """Number of questions."""
        return sum(len(self.lessons[i].queries) for i in indices)

    def updated(self) -> None:
        """Nothing to do: the models are the parameters."""

    def parts(self, indices: Sequence[int]) -> list[Part]:
        """Groups of documents of similar length, each encoded once and asked all its questions."""
        chosen = [self.lessons[i] for i in indices]
        lengths = [len(lesson.document) for lesson in chosen]
        groups = buckets(lengths, overhead=overhead_of(self.ranker.device), limit=self.micro_tokens)
        return [partial(self._loss, [chosen[i] for i in group]) for group in groups]

    def _loss(self, lessons: Sequence[ItemLesson]) -> Tensor:
        device = self.ranker.device
        with products_in(self.compute, device):
            vectors = self.encoder([lesson.document for lesson in lessons])
            prompts = self._prompts(lessons, vectors.shape[1])
            row = longest_row(self.ranker, self.micro_tokens)
            passes = packed([[(*p, p[-1]) for p in prompts]], row=row, budget=1 << 30, overhead=overhead_of(device))
            order = [i for rows in passes for members in rows for _, i in members]
            trees = [grown([prompts[i] for _, i in members]) for rows in passes for members in rows]
            embed = partial(with_vectors, self.ranker, vectors.flatten(0, 1))
            hidden = hidden_states(self.ranker, TokenTree.stack(trees).to(device), self.way, embed=embed)
        targets = torch.tensor([t for lesson in lessons for t in lesson.targets], device=device)[order]
        states = torch.cat([lesson.states for lesson in lessons])[order].to(hidden.device)
        loss = soft_divergence(answer_logits(self.ranker, hidden, self.answers)[:, 0], targets)
        return (loss + self.align * (1 - torch.cosine_similarity(hidden.float(), states.float(), dim=-1))).sum()

    def _prompts(self, lessons: Sequence[ItemLesson], slots: int) -> list[tuple[int, ...]]:
        first = len(matrices(self.ranker)["input"])
        pairs = [
            (query, range(first + place * slots, first + (place + 1) * slots))
            for place, lesson in enumerate(lessons)
            for query in lesson.queries
        ]
        return [tuple(ids) for ids in self.prompter.assembled(pairs).ids]


def with_vectors(model: "PreTrainedModel", vectors: Float[Tensor, "items dim"], ids: Tensor) -> Tensor:
    """Embeddings of `model`, followed by `vectors`, looked up as one matrix."""
    count = len(matrices(model)["input"])
    rows = model.get_input_embeddings()(ids.clamp(max=count - 1))
    return torch.where((ids >= count)[..., None], vectors[(ids - count).clamp(min=0)].to(rows), rows)
