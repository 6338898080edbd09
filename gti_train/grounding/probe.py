"""Evidence from behaviour: does the model treat a token as one thing of its own? Beside the geometry, which predicted it.

Each question is the same text around each token, so that a batch has one length and no padding.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from gti_train.catalogue.records import Catalogue
from gti_train.model.sequences import prompt_ids
from gti_train.semantic_ids.ids import SemanticIds

from .probe_geometry import Surroundings
from .prompts import PHRASINGS

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
# Nats of Jensen-Shannon divergence up to which two distributions count as one: 99 % of words moved by 5 % of
# the spread of all rows stay below it, 99 % of other words, the nearest ones, are beyond; reports/verdicts/probe.md.
SAME = 0.02
QUESTIONS = ("repeat", "own", "siblings", "described", "answered")
ITEMS = 3  # of those that carry a token, about which its grounding prompt is asked


@dataclass(frozen=True)
class Asked:
    """The tokens asked about and what is known of them: the level of each (siblings share one; without levels all do), a text for
    some, and prompts (ids) that a token must follow before all others of its level."""

    ids: list[int]
    levels: list[int]
    descriptions: Mapping[int, str] = field(default_factory=dict)
    prompts: Mapping[int, Sequence[Sequence[int]]] = field(default_factory=dict)

    def siblings(self, id: int) -> list[int]:
        """The tokens of its level, itself included."""
        level = self.levels[self.ids.index(id)]
        return [other for other, own in zip(self.ids, self.levels, strict=True) if own == level]


def divergence(first: Float[Tensor, "tokens vocabulary"], second: Float[Tensor, "tokens vocabulary"]) -> Tensor:
    """½ KL(p‖m) + ½ KL(q‖m), m = (p + q)/2, of rows of log-probabilities, in nats: 0 for equal, at most ln 2.

    Source: Lin, Divergence measures based on the Shannon entropy (1991).
    """
    mean = torch.logaddexp(first, second) - math.log(2)
    return 0.5 * ((first.exp() * (first - mean)).sum(-1) + (second.exp() * (second - mean)).sum(-1))


def grounding_prompts(
    catalogue: Catalogue, sids: SemanticIds, tokenizer: "PreTrainedTokenizerBase", ids: Sequence[int]
) -> dict[int, list[list[int]]]:
    """For each token of `ids` that is a code: what comes before it when the codes of an item are asked for by its title."""
    wanted, vocabulary = set(ids), tokenizer.get_vocab()
    found: dict[int, list[list[int]]] = {id: [] for id in ids}
    for item in catalogue.items:
        asked = prompt_ids(PHRASINGS["title-to-code"][0].format(title=item.title), tokenizer)
        codes = [vocabulary[code] for code in sids.of(item.id)]
        for place, code in enumerate(codes):
            if code in wanted and len(found[code]) < ITEMS:
                found[code].append([*asked, *codes[:place]])
    return {id: prompts for id, prompts in found.items() if prompts}


def probe(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    asked: Asked,
    *,
    only: Sequence[int] | None = None,
    batch: int = 16,
) -> Iterator[dict[str, Any]]:
    """One record a token (those in `only`): its geometry, and of each question the hits and attempts.

    repeat: the model writes the token again; own: its next-token distribution is not that of the token with the nearest row;
    siblings: nor that of the nearest other of its level; described: asked by its description, it comes before all others of its
    level; answered: so it does after the grounding prompt of items that carry it (their codes of earlier levels given).
    """
    wanted, rows = list(asked.ids if only is None else only), Surroundings(model)
    for start in range(0, len(wanted), batch):
        part = wanted[start : start + batch]
        near = [rows.place(id, asked.siblings(id)) for id in part]
        repeats = _repeated(model, tokenizer, part)
        own = _apart(model, tokenizer, part, [place.nearest for place in near])
        sibling = [place.sibling if place.sibling is not None else id for id, place in zip(part, near, strict=True)]
        others = _apart(model, tokenizer, part, sibling)
        for id, place, hits, apart, told in zip(part, near, repeats, own, others, strict=True):
            text, prompts = asked.descriptions.get(id), asked.prompts.get(id, ())
            before = [tokenizer(DESCRIBED.format(text=text))["input_ids"]] if text is not None else []
            yield {
                "id": id,
                "token": tokenizer.convert_ids_to_tokens(id),
                "level": asked.levels[asked.ids.index(id)],
                "geometry": place.geometry(),
                "nearest": tokenizer.convert_ids_to_tokens(place.nearest),
                "sibling": None if place.sibling is None else tokenizer.convert_ids_to_tokens(place.sibling),
                "repeat": [hits, len(REPEATS)],
                "own": apart,
                "siblings": None if place.sibling is None else told,
                "described": _first(model, id, asked, before),
                "answered": _first(model, id, asked, prompts),
            }


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


def _first(model: "PreTrainedModel", id: int, asked: Asked, prompts: Sequence[Sequence[int]]) -> list[int] | None:
    """After how many of the prompts the token comes before all others of its level, and how many prompts; None without either."""
    others = torch.tensor([other for other in asked.siblings(id) if other != id], device=model.device)
    hits = 0
    for prompt in prompts if len(others) else ():
        with torch.no_grad():
            scores = model(input_ids=torch.tensor([list(prompt)], device=model.device), use_cache=False).logits[0, -1]
        hits += bool(scores[id] > scores[others].max())
    return [hits, len(prompts)] if prompts and len(others) else None
