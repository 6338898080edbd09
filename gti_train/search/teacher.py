"""What a teacher says about pairs: its probability of yes, and the last hidden state that it says it from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from gti_train.model.loading import best_dtype, products_in

from .collection import Collection
from .pairs import Pair
from .prompts import DOCUMENT_FIRST, Prompter
from .scoring import last_states, log_odds

if TYPE_CHECKING:
    from transformers import PreTrainedModel

AT_ONCE = 2048  # pairs


@dataclass(frozen=True)
class Said:
    """In the order of the pairs; states are float16."""

    log_odds: Float[Tensor, " pairs"]
    states: Float[Tensor, "pairs dim"]


@torch.inference_mode()
def teacher_says(
    model: "PreTrainedModel",
    prompter: Prompter,
    collection: Collection,
    pairs: Sequence[Pair],
    *,
    progress: Callable[[float], None] = lambda share: None,
) -> Said:
    """Ask about pairs by the places of their query and document; what neighbours share is run once, in bfloat16 where that is fast.

    Raises:
        InputError: as `Prompter.prompts` and `last_states`.
    """
    by_document = prompter.wording.order == DOCUMENT_FIRST
    order = sorted(range(len(pairs)), key=lambda i: (pairs[i][by_document], i))
    odds, states = [], []
    for start in range(0, len(order), AT_ONCE):
        part = [pairs[i] for i in order[start : start + AT_ONCE]]
        asked = prompter.asking(collection, part)
        with products_in(best_dtype(model.device), model.device):
            found = last_states(model, asked.ids, shared=asked.shared)
        odds.append(log_odds(model, found, prompter.rows).float().cpu())
        states.append(found.half().cpu())
        progress(min(1.0, (start + AT_ONCE) / len(order)))
    back = torch.tensor(order).argsort()
    return Said(torch.cat(odds)[back], torch.cat(states)[back])
