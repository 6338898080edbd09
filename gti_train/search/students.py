"""Smaller and better taught rankers: a judge pruned and healed, and a ranker that learns from several teachers."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from gti_diag.errors import InputError
from gti_diag.files import write_text
from gti_train.model.directories import check_place

from .collection import Collection
from .engagement import Engagement, calibrated, engagement_targets, popularity_of
from .judge import JudgeConfig, Progress, load_judge, soft_examples, teach
from .pairs import Pair, met
from .prompts import DOCUMENT_FIRST, Prompter
from .pruning.layers import block_influence, drop_layers, least_influential
from .pruning.neurons import activation_grams, drop_neurons
from .scoring import score
from .summaries import Summary, probes, summarise_all
from .teacher import teacher_says

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PRUNING, TASKS, ENGAGEMENT = "pruning.json", "tasks.json", "engagement.json"
WORDS = {"click": (" Click", " Skip"), "apply": (" Apply", " Leave")}  # the two answers of each action
LEARNED = 20  # documents of a query that both teachers speak of


@dataclass(frozen=True)
class Pruning:
    """drop: layers that go; neurons: share of each MLP that stays; prompts: how many the model is measured on."""

    drop: int = 8
    neurons: float = 0.5
    prompts: int = 96


def prune(model: "PreTrainedModel", sequences: Sequence[Sequence[int]], wanted: Pruning) -> dict[str, Any]:
    """Prune `model` in place; what was done, for the record."""
    before = sum(p.numel() for p in model.parameters())
    influence = block_influence(model, sequences)
    dropped = least_influential(influence, wanted.drop)
    drop_layers(model, dropped)
    count = round(wanted.neurons * model.config.get_text_config().intermediate_size)
    shares = drop_neurons(model, activation_grams(model, sequences), count) if wanted.neurons < 1 else []
    return {
        "schema": 1, **asdict(wanted), "influence": influence.tolist(), "dropped": dropped, "unexplained": shares,
        "parameters_before": before, "parameters": sum(p.numel() for p in model.parameters()),
    }  # fmt: skip


def prune_judge(
    source: str | os.PathLike[str],
    out: Path,
    collection: Collection,
    pairs: Sequence[Pair],
    *,
    wanted: Pruning,
    config: JudgeConfig,
    save_every: int = 0,
    progress: Progress = lambda record, steps: None,
) -> dict[str, Any]:
    """Prune the judge in `source` and heal it on its own former opinion of those of `pairs` that training meets; write it to `out`.

    Raises:
        InputError: as `load_judge`, `prune`, `check_place`; no pairs.
    """
    check_place(out)
    if not pairs:
        raise InputError("no pairs to heal on: give judged queries")
    model, prompter = load_judge(source, dtype=torch.float32)
    chosen, steps = met(pairs, config, by_document=prompter.wording.order == DOCUMENT_FIRST)
    healed, config = [pairs[i] for i in chosen], replace(config, steps=steps)
    targets = teacher_says(model, prompter, collection, healed).log_odds.sigmoid()[:, None]
    examples = soft_examples(prompter, collection, healed, targets, torch.ones_like(targets), config=config)
    measured = pairs[:: max(1, len(pairs) // wanted.prompts)][: wanted.prompts]
    record = prune(model, prompter.asking(collection, measured).ids, wanted)
    answers = torch.tensor([prompter.rows])
    teach(model, prompter, examples, out, answers=answers, config=config, save_every=save_every, progress=progress)
    write_text(out.with_name(out.name + "." + PRUNING), json.dumps(record) + "\n")
    return record


def train_ranker(
    source: str | os.PathLike[str],
    out: Path,
    collection: Collection,
    candidates: Tensor,
    *,
    config: JudgeConfig,
    engagement: Engagement,
    popularity: Float[Tensor, " documents"] | None = None,
    order: str | None = None,
    save_every: int = 0,
    progress: Progress = lambda record, steps: None,
) -> None:
    """A ranker that starts as the judge in `source` and learns from it and from an engagement teacher (simulated).

    The calibration of its relevance, for clicks, is fitted to a second simulation (see `engagement.calibrated`).
    `candidates` (queries × n) are the pairs to learn from. `order`: which text its prompts begin with, if not the judge's.

    Raises:
        InputError: as `load_judge`, `engagement_targets`, `check_place`.
    """
    check_place(out)
    model, prompter = load_judge(source, dtype=torch.float32)
    pairs = [(q, d) for q, row in enumerate(candidates.tolist()) for d in row]
    said = teacher_says(model, prompter, collection, pairs)
    known = popularity_of(collection) if popularity is None else popularity
    actions = engagement_targets(collection, candidates, said.log_odds.view(candidates.shape), known, engagement)
    targets = torch.cat([said.log_odds.sigmoid()[:, None], actions.flatten(0, 1)], 1)
    weights = torch.tensor([1.0, *engagement.weights]).expand(targets.shape)
    if order is not None:
        prompter = Prompter(prompter.tokenizer, replace(prompter.wording, order=order))
    examples = soft_examples(prompter, collection, pairs, targets, weights, config=config)
    answers = task_answers(prompter)
    teach(
        model, prompter, examples, out, answers=torch.tensor(list(answers.values())), config=config,
        save_every=save_every, progress=progress,
    )  # fmt: skip
    # As it was written, that is rounded; but run in float32, which no processor emulates.
    scores = teacher_says(model.float(), prompter, collection, pairs).log_odds.view(candidates.shape)
    told = {"schema": 1, "simulated": True, **asdict(engagement), "answers": answers}
    told |= calibrated(collection, candidates, scores, known, engagement)
    write_text(out.with_name(out.name + "." + ENGAGEMENT), json.dumps(told) + "\n")


def summaries_of(
    model: "PreTrainedModel",
    prompter: Prompter,
    collection: Collection,
    candidates: Sequence[Sequence[int]],
    out: Path,
    *,
    budget: int,
    queries: int,
    progress: Callable[[float], None] = lambda share: None,
) -> list[Summary]:
    """Summaries of all documents, each asked with up to `queries` queries: those that it is judged for and then those that find it.

    One that has the best grade for none is asked with its own title first: a query that it does not answer is answered no
    whatever is left out. `candidates[q]` are what retrieval finds for query q.

    Raises:
        InputError: as `summarise_all`.
    """
    texts = [query.text for query in collection.queries]
    asked = probes(collection.relevant, texts, queries, near=candidates)
    named = {d.id: d.text for d in collection.documents}
    answers = {d for row in collection.relevant for d, grade in row.items() if grade == collection.highest_grade}
    own = {
        d.id: ([] if place in answers else [d.title or d.text]) + asked.get(place, [])
        for place, d in enumerate(collection.documents)
    }
    own = {name: texts[:queries] for name, texts in own.items()}

    # What the call before was told: a sentence that is cut off anyway is left out for free.
    last: dict[tuple[int, ...], float] = {}

    def log_odds(pairs: Sequence[tuple[str, str]]) -> Tensor:
        nonlocal last
        prompts = [tuple(ids) for ids in prompter.prompts(pairs).ids]
        new = [ids for ids in dict.fromkeys(prompts) if ids not in last]
        # Nothing is shared: a pass for the beginning of every shortened text costs more than it saves a few queries.
        scores = score(model, new, prompter.rows, shared=[0] * len(new)).tolist()
        last = {ids: last[ids] for ids in prompts if ids in last} | dict(zip(new, scores, strict=True))
        return torch.tensor([last[ids] for ids in prompts])

    return summarise_all(
        named, own, log_odds, budget=budget, length=lambda text: len(prompter.tokens(f" {text}")), cache=out,
        progress=progress,
    )  # fmt: skip


def task_answers(prompter: Prompter) -> dict[str, tuple[int, int]]:
    """The two tokens of each task: relevance by the wording's answers, actions by `WORDS`.

    Raises:
        InputError: two tasks share an answer: this model would mix them.
    """
    found = {"relevance": prompter.rows}
    for name, words in WORDS.items():
        yes, no = (prompter.tokens(word)[0] for word in words)
        found[name] = (yes, no)
    used = [token for pair in found.values() for token in pair]
    if len(set(used)) < len(used):
        raise InputError("two tasks have an answer that begins with one token of this model: it cannot tell them apart")
    return found
