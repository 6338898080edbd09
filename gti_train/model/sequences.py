"""Examples become token sequences in which only answers are supervised, and batches of similar length.

A sequence is cut at its first new token. Before the cut every hidden state is a constant of the stage; from the cut
on the sequence is *live*. The last token is never read: nothing follows it.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gti_diag.errors import InputError

from .chat import chat_text

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


PLAIN = "{prompt}\n"  # for base models, which have no chat template


@dataclass(frozen=True)
class Example:
    """One question and the answer to learn."""

    prompt: str
    answer: str
    kind: str
    item_id: str


@dataclass(frozen=True)
class Encoded:
    """Ids of prompt, answer and end-of-text; `answer` and `live` index the first answer and first new token."""

    ids: tuple[int, ...]
    answer: int
    live: int

    @property
    def prefix(self) -> tuple[int, ...]:
        """What comes before the first new token."""
        return self.ids[: self.live]

    @property
    def tail(self) -> tuple[int, ...]:
        """The live tokens that are read."""
        return self.ids[self.live : -1]

    @property
    def supervised(self) -> int:
        """Number of answer tokens, the end of text included."""
        return len(self.ids) - self.answer


def prompt_ids(prompt: str, tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """Ids of `prompt` as one user turn, up to where the answer begins: the same at training and at decoding.

    The model's own chat template where there is one (without the block that asks for thinking), else `PLAIN`
    after the tokenizer's own start tokens.

    Raises:
        InputError: as `chat_text`.
    """
    if tokenizer.chat_template is None:
        ids = tokenizer(PLAIN.format(prompt=prompt))["input_ids"]
        return ids[:-1] if ids and ids[-1] == tokenizer.eos_token_id else ids
    return tokenizer(chat_text(prompt, tokenizer), add_special_tokens=False)["input_ids"]


def most_tokens(model: "PreTrainedModel", limit: int) -> int:
    """`limit`, or less where the model knows fewer positions."""
    return min(limit, getattr(model.config.get_text_config(), "max_position_embeddings", None) or limit)


def encode(example: Example, tokenizer: "PreTrainedTokenizerBase", *, new: Collection[int], max_tokens: int) -> Encoded:
    """Prompt and answer are tokenised apart, so where the answer begins is known, not searched for.

    Raises:
        InputError: prompt or answer is empty, or the example exceeds `max_tokens`.
    """
    prompt = prompt_ids(example.prompt, tokenizer)
    answer = tokenizer(example.answer, add_special_tokens=False)["input_ids"]
    for name, ids in (("prompt", prompt), ("answer", answer)):
        if not ids:
            raise InputError(f"the example of item {example.item_id!r} has an empty {name}: give it some text")
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    ids = (*prompt, *answer, *end)
    if len(ids) > max_tokens:
        raise InputError(
            f"item {example.item_id!r} takes {len(ids)} tokens, {max_tokens} is the most: "
            "cut descriptions to fewer words (--words) or, in fine-tuning, histories to fewer items (--history)"
        )
    live = next((i for i, token in enumerate(ids[:-1]) if token in new), len(ids) - 1)
    return Encoded(ids, len(prompt), live)


@dataclass(frozen=True)
class Batch:
    """Right-padded tokens to read, `batch × length`; `targets` follow the `supervised` positions."""

    ids: Tensor
    mask: Tensor
    positions: Tensor
    supervised: Tensor
    targets: Tensor

    def to(self, device: torch.device) -> "Batch":
        """The same on another device."""
        return Batch(*(tensor.to(device, non_blocking=True) for tensor in vars(self).values()))


def collate(examples: Sequence[Encoded], *, pad: int, whole: bool = False) -> Batch:
    """One batch of the live tails (or of the `whole` sequences).

    Position t is supervised iff token t+1 belongs to an answer; padding never does, also where the padding
    token is the end-of-text token.
    """
    starts = [0 if whole else e.live for e in examples]
    length = max(len(e.ids) - 1 - start for e, start in zip(examples, starts, strict=True))
    ids = torch.full((len(examples), length), pad)
    mask = torch.zeros(len(examples), length, dtype=torch.long)
    supervised = torch.zeros(len(examples), length, dtype=torch.bool)
    targets: list[int] = []
    for i, (example, start) in enumerate(zip(examples, starts, strict=True)):
        n, first = len(example.ids) - 1 - start, max(example.answer - 1, start)
        ids[i, :n] = torch.tensor(example.ids[start:-1], dtype=torch.long)
        mask[i, :n] = 1
        supervised[i, first - start : n] = True
        targets += example.ids[first + 1 :]
    positions = torch.arange(length) + torch.tensor(starts)[:, None]
    return Batch(ids, mask, positions, supervised, torch.tensor(targets, dtype=torch.long))
