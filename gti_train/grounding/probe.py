"""Evidence from behaviour: does the model treat a token as one thing of its own? Beside the geometry, which predicted it.

Each question is the same text around each token, so that a batch has one length and no padding.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from gti_diag.errors import InputError
from gti_train.model.matrices import matrices

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# What stands before and after the token; the next token should be it again. After Land & Bartolo (EMNLP 2024), §2.3.
REPEATS = (
    ('"apple" = "apple"\n"river" = "river"\n"', '" = "'),
    ("Copy the word. apple: apple. river: river. ", ": "),
    ('Say "apple": "apple"\nSay "river": "river"\nSay "', '": "'),
)
DESCRIBED = 'What is called so? {text}\nAnswer: "'
CONTEXTS = ('"', "This is ")  # after which a token's own next-token distribution is looked at
SAME = 0.02  # nats of Jensen-Shannon divergence below which two distributions count as one: not studied, assumption
QUESTIONS = ("repeat", "own", "siblings", "described")


def divergence(first: Float[Tensor, "tokens vocabulary"], second: Float[Tensor, "tokens vocabulary"]) -> Tensor:
    """½ KL(p‖m) + ½ KL(q‖m), m = (p + q)/2, of rows of log-probabilities, in nats: 0 for equal, at most ln 2.

    Source: Lin, Divergence measures based on the Shannon entropy (1991).
    """
    mean = torch.logaddexp(first, second) - math.log(2)
    return 0.5 * ((first.exp() * (first - mean)).sum(-1) + (second.exp() * (second - mean)).sum(-1))


def wilson(hits: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of a rate. Source: Wilson (1927).

    Raises: ValueError if nothing was counted.
    """
    if count < 1:
        raise ValueError("0 attempts have no rate")
    rate, spread = hits / count, z**2 / count
    half = z * math.sqrt(rate * (1 - rate) / count + z**2 / (4 * count**2))
    return max(0.0, (rate + spread / 2 - half) / (1 + spread)), min(1.0, (rate + spread / 2 + half) / (1 + spread))


def probe(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    ids: Sequence[int],
    *,
    descriptions: Mapping[int, str] | None = None,
    batch: int = 16,
) -> Iterator[dict[str, Any]]:
    """One record a token: of each question the hits and attempts.

    repeat: the model writes the token again; own: its next-token distribution is not that of the token with the nearest row;
    siblings: nor that of the nearest other probed token; described: asked by its description, it comes before all other probed ones.
    """
    wanted, near, sibling = list(ids), *nearest_tokens(model, ids)
    for start in range(0, len(wanted), batch):
        part = wanted[start : start + batch]
        place = slice(start, start + len(part))
        repeats = _repeated(model, tokenizer, part)
        own = _apart(model, tokenizer, part, near[place])
        others = _apart(model, tokenizer, part, sibling[place]) if len(wanted) > 1 else [None] * len(part)
        for number, id in enumerate(part):
            told = (descriptions or {}).get(id)
            yield {
                "id": id,
                "token": tokenizer.convert_ids_to_tokens(id),
                "nearest": tokenizer.convert_ids_to_tokens(near[start + number]),
                "repeat": [repeats[number], len(REPEATS)],
                "own": own[number],
                "siblings": others[number],
                "described": None if told is None else [int(_described(model, tokenizer, id, told, wanted)), 1],
            }


def nearest_tokens(model: "PreTrainedModel", ids: Sequence[int]) -> tuple[list[int], list[int]]:
    """Of each token: the one with the nearest other input row (cosine), and the nearest among `ids`."""
    weight = matrices(model)["input"].data.float()
    units = torch.nn.functional.normalize(weight, dim=1)
    place = torch.tensor(list(ids), device=weight.device)
    cosines = units[place] @ units.T
    cosines[torch.arange(len(place)), place] = -torch.inf
    among = cosines[:, place]
    siblings = place[among.argmax(1)].tolist()
    return cosines.argmax(1).tolist(), siblings


def _next(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", before: str, ids: Sequence[int], after: str = ""
) -> Tensor:
    """Log-probabilities of what follows `before` + token + `after`, a row for each token."""
    head = tokenizer(before)["input_ids"]
    head = head[:-1] if head and head[-1] == tokenizer.eos_token_id else head
    tail = tokenizer(after, add_special_tokens=False)["input_ids"] if after else []
    rows = torch.tensor([[*head, id, *tail] for id in ids], device=model.device)
    with torch.no_grad():
        return model(input_ids=rows, use_cache=False).logits[:, -1].float().log_softmax(-1)


def _repeated(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", ids: Sequence[int]) -> list[int]:
    wanted = torch.tensor(list(ids))
    hits = [_next(model, tokenizer, before, ids, after).argmax(-1).cpu() == wanted for before, after in REPEATS]
    return torch.stack(hits).sum(0).tolist()


def _apart(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", ids: Sequence[int], others: Sequence[int]
) -> list[list[int]]:
    gaps = [divergence(_next(model, tokenizer, text, ids), _next(model, tokenizer, text, others)) for text in CONTEXTS]
    return [[int(hits), len(CONTEXTS)] for hits in (torch.stack(gaps) > SAME).sum(0).tolist()]


def _described(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", id: int, text: str, ids: Sequence[int]
) -> bool:
    asked = tokenizer(DESCRIBED.format(text=text))["input_ids"]
    scores = _next_of(model, asked)
    return bool(scores[id] >= scores[torch.tensor(list(ids), device=scores.device)].max())


def _next_of(model: "PreTrainedModel", ids: Sequence[int]) -> Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([list(ids)], device=model.device), use_cache=False).logits[0, -1].float()


def rates(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of each question that was asked: the share of hits over all tokens, with its 95 % interval."""
    found = {}
    for question in QUESTIONS:
        counts = [record[question] for record in records if record[question] is not None]
        hits, count = sum(c[0] for c in counts), sum(c[1] for c in counts)
        found[question] = {"value": hits / count, "interval": wilson(hits, count), "attempts": count} if count else None
    return found


def probed(
    file: Path, ids: Sequence[int], make: Callable[[Sequence[int]], Iterator[dict[str, Any]]]
) -> list[dict[str, Any]]:
    """The records of all ids, those in `file` (JSON lines) as they are; new ones are appended as they come: a run goes on where it was.

    Raises:
        InputError: the file holds something else.
    """
    known: dict[int, dict[str, Any]] = {}
    if file.is_file():
        try:
            known = {record["id"]: record for record in map(json.loads, file.read_text(encoding="utf-8").splitlines())}
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{file} holds no records of a probe: remove it, or name another file") from error
    left = [id for id in ids if id not in known]
    with file.open("a", encoding="utf-8") as lines:
        for record in make(left) if left else ():
            lines.write(json.dumps(record, ensure_ascii=False) + "\n")
            lines.flush()
            known[record["id"]] = record
    return [known[id] for id in ids]
