"""Examples become token batches in which only answers are supervised."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gti_diag.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from gti_train.prompts import Example

PLAIN = "{prompt}\n"  # for base models, which have no chat template


@dataclass(frozen=True)
class Encoded:
    """Token ids of prompt, answer and end-of-text; `answer` is the index of the first answer token."""

    ids: tuple[int, ...]
    answer: int


def prompt_ids(prompt: str, tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """Ids of `prompt` as one user turn, up to where the answer begins: the same at training and at decoding.

    The model's own chat template where there is one (without the block that asks for thinking), else `PLAIN`
    after the tokenizer's own start tokens.
    """
    if tokenizer.chat_template is None:
        ids = tokenizer(PLAIN.format(prompt=prompt))["input_ids"]
        return ids[:-1] if ids and ids[-1] == tokenizer.eos_token_id else ids
    turn = [{"role": "user", "content": prompt}]
    text = tokenizer.apply_chat_template(turn, add_generation_prompt=True, enable_thinking=False, tokenize=False)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def encode(example: "Example", tokenizer: "PreTrainedTokenizerBase", *, max_tokens: int) -> Encoded:
    """Prompt and answer are tokenised apart, so where the answer begins is known, not searched for.

    Raises:
        InputError: the answer is empty, or the example exceeds `max_tokens`.
    """
    prompt = prompt_ids(example.prompt, tokenizer)
    answer = tokenizer(example.answer, add_special_tokens=False)["input_ids"]
    if not answer:
        raise InputError(f"the example of item {example.item_id!r} has an empty answer: nothing to learn")
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    ids = (*prompt, *answer, *end)
    if len(ids) > max_tokens:
        raise InputError(f"item {example.item_id!r} takes {len(ids)} tokens, more than max_tokens={max_tokens}")
    return Encoded(ids, len(prompt))


@dataclass(frozen=True)
class Batch:
    """Right-padded `ids` and `mask` (batch × length); `targets` follow the `supervised` positions."""

    ids: Tensor
    mask: Tensor
    supervised: Tensor
    targets: Tensor


def collate(examples: Sequence[Encoded], *, pad: int) -> Batch:
    """One batch. Position t is supervised iff token t+1 belongs to an answer (padding never does)."""
    length = max(len(e.ids) for e in examples)
    ids = torch.full((len(examples), length), pad)
    mask = torch.zeros(len(examples), length, dtype=torch.long)
    supervised = torch.zeros(len(examples), length, dtype=torch.bool)
    for i, example in enumerate(examples):
        n = len(example.ids)
        ids[i, :n] = torch.tensor(example.ids)
        mask[i, :n] = 1
        supervised[i, example.answer - 1 : n - 1] = True
    return Batch(ids, mask, supervised, ids.roll(-1, 1)[supervised])


def order(count: int, *, batch: int, seed: int) -> Iterator[list[int]]:
    """Endless batches of indices, epoch after epoch: permutations that depend on (seed, epoch) alone."""
    epoch = 0
    while True:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        yield from (part.tolist() for part in torch.randperm(count, generator=generator).split(batch))
        epoch += 1
