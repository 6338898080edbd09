"""Which rungs there are, from the folders that the stages left."""

import gc
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gti_diag.errors import InputError
from gti_train.loop.processes import join_processes
from gti_train.model.loading import best_dtype

from .collection import Collection
from .items.tokens import load_items
from .items.training import RANKER
from .judge import load_judge, wording_of
from .ladder import KEPT, Rung
from .prompts import DOCUMENT_FIRST, Prompter
from .summaries import read_summaries

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TEACHER = "shared-prefix"  # of the rungs that read the full text, the one whose scores are taken for all of them
TEXT = (
    ("one-by-one", "full text, one pair at a time"),
    ("batched", "… in batches"),
    ("last-position", "… last position alone"),
    ("two-rows", "… of two tokens"),
    (TEACHER, "… what prompts begin with once"),
)


@dataclass(frozen=True)
class Folders:
    """What the ladder is climbed with; what is None has no rung."""

    text: Path
    pruned: Path | None = None
    summaries: Path | None = None
    items: Path | None = None
    items_pruned: Path | None = None


def rungs(collection: Collection, given: Folders) -> list[Rung]:
    """All rungs that these folders allow, from the bottom up.

    Where the judge reads the document first, each way of reading has a twin that keeps what was read of the documents.

    Raises:
        InputError: summaries or item tokens of other documents.
    """
    full, load = [d.text for d in collection.documents], LastJudge()
    found = [
        Rung(name, title, name, partial(load, given.text), texts=full, same_scores=None if name == TEACHER else TEACHER)
        for name, title in TEXT
    ]
    share = "shared-prefix"
    if given.pruned:
        found.append(Rung("pruned", "+ pruned", share, partial(load, given.pruned), texts=full))
    if given.summaries:
        short = _summaries(given.summaries, collection)
        found.append(Rung("summaries", "+ summaries", share, partial(load, given.text), texts=short))
        if given.pruned:
            found.append(Rung("pruned-summaries", "+ both", share, partial(load, given.pruned), texts=short))
    for name, title, folder in (
        ("items", "item tokens, unpruned", given.items), ("items-pruned", "item tokens, pruned", given.items_pruned)
    ):  # fmt: skip
        if folder:
            items = load_items(folder)
            if items.ids != tuple(d.id for d in collection.documents):
                raise InputError(f"{folder} holds item tokens of other documents than the collection: make them anew")
            found.append(Rung(name, title, share, partial(load, folder / RANKER), items=items))
    return _with_twins(found) if wording_of(given.text).order == DOCUMENT_FIRST else found


def _with_twins(rungs: Sequence[Rung]) -> list[Rung]:
    found = []
    for rung in rungs:
        found.append(rung)
        if rung.way == "shared-prefix":
            title = "… keys and values kept"
            found.append(replace(rung, name=f"{rung.name}-kept", title=title, way=KEPT, same_scores=rung.name))
    return found


class LastJudge:
    """Loads judges, and hands the last one out again: neighbouring rungs run the same."""

    def __init__(self) -> None:
        self.folder: Path | None = None
        self.loaded: Any = None

    def __call__(self, folder: Path) -> tuple["PreTrainedModel", Prompter]:
        if folder != self.folder:
            self.folder = self.loaded = None  # before the next is loaded: two may not fit
            gc.collect()
            self.loaded, self.folder = load_judge(folder, dtype=best_dtype(join_processes())), folder
        return self.loaded


def _summaries(path: Path, collection: Collection) -> list[str]:
    known = {summary.doc_id: summary.text for summary in read_summaries(path)}
    missing = [d.id for d in collection.documents if d.id not in known]
    if missing:
        raise InputError(
            f"{path} has no summary of document {missing[0]!r} ({len(missing)} lack one): run summaries again"
        )
    return [known[d.id] for d in collection.documents]
