"""The stage that makes item tokens, from a text ranker's folder to a folder of items."""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from gti_diag.errors import InputError
from gti_train.loop.diary import Diary
from gti_train.loop.state import METRICS, Saving, check_folder, clear_folder, newest_step
from gti_train.loop.trackers import Trackers
from gti_train.loop.training import StepRecord
from gti_train.model.directories import check_place
from gti_train.model.loading import best_dtype

from ..collection import Collection
from ..judge import load_judge
from ..pairs import Pair, met
from ..prompts import Prompter
from ..teacher import Said, teacher_says
from .training import RANKER, Hybrid, ItemConfig, item_lessons, look_at, save_hybrid, train_hybrid

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WATCHED = 20  # queries, of which NDCG with and without their own item tokens is taken on the way
CANDIDATES = 10  # documents of each


def make_items(
    source: str | os.PathLike[str],
    out: Path,
    collection: Collection,
    labels: Sequence[tuple[Pair, float]],
    *,
    every: Collection,
    config: ItemConfig,
    save_every: int = 0,
    progress: Callable[[StepRecord, int], None] = lambda record, steps: None,
) -> dict[str, float]:
    """Train encoder and ranker from the text ranker in `source` on `labels`, pairs of `collection` of which training may meet
    some alone; write `out`.

    `every` holds all documents that get item tokens. Returns the last look at them.

    Raises:
        InputError: as `load_judge`, `encoder_of`; no labels; `out/ranker` holds something else.
    """
    if not labels:
        raise InputError("no pairs to learn from: judge some documents of the training queries")
    work = out.with_name(out.name + ".state")
    check_place(out / RANKER)
    check_folder(work)
    model, prompter = load_judge(source, dtype=torch.float32)
    chosen, steps = met([pair for pair, _ in labels], config, by_document=True)
    labels, config = [labels[i] for i in chosen], replace(config, steps=steps)
    said = _said(model, prompter, collection, labels, config)
    hybrid = Hybrid.begin(model, prompter, config)
    lessons = item_lessons(hybrid, collection, labels, said, config)
    watched, candidates = _watched(collection, config.seed)
    loop = config.loop(len(lessons))
    values: dict[str, float] = {}

    def look() -> dict[str, float]:
        values.update(look_at(hybrid, watched, candidates))
        return dict(values)

    records = train_hybrid(
        hybrid, lessons, config, compute=best_dtype(model.device), look=look,
        saving=Saving(work, every=save_every, keep=1) if save_every else None,
    )  # fmt: skip
    diary = Diary(work, Trackers((), folder=work, config={}), lambda r: progress(r, loop.steps), step=newest_step(work))
    diary.follow(records)
    if not values:  # else the last look was after the last step
        look()
    save_hybrid(hybrid, every, out, dtype=torch.bfloat16, geometry=values)
    shutil.copy(work / METRICS, out / METRICS)
    clear_folder(work)
    return values


def _said(
    model: "PreTrainedModel",
    prompter: Prompter,
    collection: Collection,
    labels: Sequence[tuple[Pair, float]],
    config: ItemConfig,
) -> Said:
    """What the text ranker says of the pairs, where anything is learned from that; it costs a pass over all their text."""
    if config.labels < 1 or config.align > 0:
        return teacher_says(model, prompter, collection, [pair for pair, _ in labels])
    dim = model.config.get_text_config().hidden_size
    return Said(torch.zeros(len(labels)), torch.zeros(1, dim).half().expand(len(labels), dim))


def _watched(collection: Collection, seed: int) -> tuple[Collection, torch.Tensor]:
    """Some queries with their best documents, which are all the documents there are; each ranks its own and some of the others'.

    Few documents, because all are encoded anew at every look.
    """
    chosen = [i * len(collection.queries) // WATCHED for i in range(min(WATCHED, len(collection.queries)))]
    part = collection.asking(collection.queries[i] for i in dict.fromkeys(chosen))
    best = [sorted(judged, key=lambda place: -judged[place])[: CANDIDATES // 4] for judged in part.relevant]
    kept = sorted({place for row in best for place in row})
    names = {collection.documents[place].id for place in kept}
    judged = {q: {d: g for d, g in row.items() if d in names} for q, row in part.judgements.items()}
    small = Collection(tuple(collection.documents[place] for place in kept), part.queries, judged)
    generator = torch.Generator().manual_seed(seed)
    count, rows = min(CANDIDATES, len(kept)), []
    for row in best:
        own = [kept.index(place) for place in row]
        others = [p for p in torch.randperm(len(kept), generator=generator).tolist() if p not in own]
        candidates = torch.tensor([*own, *others][:count])
        rows.append(candidates[torch.randperm(count, generator=generator)])
    return small, torch.stack(rows)
