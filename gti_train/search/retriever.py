"""Tuning a retriever from an encoder to an encoder, and what that did to the space it searches."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from gti_diag.measures.dimension import hubness, uniformity
from gti_diag.measures.geometry import mean_cosine
from gti_diag.measures.spectra import effective_rank, singular_values
from gti_train.loop.diary import Diary
from gti_train.loop.processes import join_processes
from gti_train.loop.state import Saving, check_folder, clear_folder, newest_step, run_name
from gti_train.loop.trackers import Trackers
from gti_train.loop.training import LoopConfig, StepRecord
from gti_train.loop.watched import Watch, train_watched
from gti_train.model.directories import atomic_directory, check_place
from gti_train.model.loading import best_dtype, parse_dtype

from .bi_encoder import encoded, load_encoder, retrieved
from .bm25 import BM25
from .collection import Collection
from .contrast import Contrast, Contrasts, Lesson, lessons
from .pairs import Sampling
from .runs import Run

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

MINED = 50  # documents that retrieval finds for a training query: hard negatives are among them


@dataclass(frozen=True)
class RetrieverConfig:
    """What tuning depends on, besides encoder and collection.

    batch: lessons in a step, all of whose queries and documents are compared; queries: the most in a lesson; tokens: the most
    of a document that is read while it trains.
    """

    epochs: float = 1.0
    batch: int = 12
    queries: int = 4
    tokens: int = 64
    sampling: Sampling = field(default_factory=lambda: Sampling(judged=4, hard=2, random=0))
    contrast: Contrast = field(default_factory=Contrast)
    learning_rate: float = 3e-5
    warmup: int = 10
    schedule: str = "linear"
    seed: int = 0

    def loop(self, count: int) -> LoopConfig:
        """The loop over `count` lessons."""
        return LoopConfig(
            max(1, round(self.epochs * count / self.batch)), batch=self.batch, learning_rate=self.learning_rate,
            warmup=self.warmup, schedule=self.schedule, seed=self.seed,
        )  # fmt: skip


def train_retriever(
    source: str,
    out: str | os.PathLike[str],
    *,
    collection: Collection,
    config: RetrieverConfig,
    candidates: Sequence[Sequence[int]] | None = None,
    compute: str = "auto",
    save_every: int = 0,
    progress: Callable[[StepRecord, int], None] = lambda record, steps: None,
) -> None:
    """Tune the encoder `source` on the judgements of `collection` and write it to `out`, a folder of sentence-transformers.

    `candidates`: for each query the documents to mine hard negatives from (a judge may have sorted out what is relevant);
    without them, what `source` itself finds.

    Raises:
        InputError: as `load_encoder`, `check_place`; a state of another run; a loss that is not finite.
    """
    device, out = join_processes(), Path(os.path.abspath(out))
    work = out.with_name(out.name + ".state")
    check_place(out)
    check_folder(work)
    candidates = mined(source, collection) if candidates is None else candidates
    encoder = load_encoder(source, device=device)
    made = lessons(collection, candidates, config.sampling, queries=config.queries, seed=config.seed)
    loop = config.loop(len(made))
    working = best_dtype(device) if compute == "auto" else parse_dtype(compute)
    saving = Saving(work, every=save_every, keep=1) if save_every else None
    records = _steps(encoder, collection, made, loop, config=config, compute=working, saving=saving)
    trackers = Trackers((), folder=work, config={})
    Diary(work, trackers, lambda record: progress(record, loop.steps), step=newest_step(work)).follow(records)
    with atomic_directory(out) as folder:
        encoder.save(str(folder))
    clear_folder(work)


def found_by(
    encoder: "SentenceTransformer",
    collection: Collection,
    k: int,
    *,
    progress: Callable[[float], None] = lambda share: None,
) -> tuple[Tensor, Tensor]:
    """The k documents that an encoder finds for each query, and their cosines."""
    queries = encoded(encoder, [query.text for query in collection.queries])
    documents = encoded(encoder, [document.text for document in collection.documents], progress=progress)
    return retrieved(queries, documents, k)


def mined(name: str, collection: Collection) -> list[list[int]]:
    """For each query the documents that an encoder finds: what negatives are mined from."""
    return found_by(load_encoder(name), collection, min(MINED, len(collection.documents)))[0].tolist()


def ranked(name: str, collection: Collection, k: int, *, progress: Callable[[float], None] = lambda share: None) -> Run:
    """The k best documents of each query (all, if there are fewer) by the encoder called `name`, or by `bm25`.

    Raises:
        InputError: as `load_encoder`.
    """
    k = min(k, len(collection.documents))
    if name != "bm25":
        return Run(*found_by(load_encoder(name, device=join_processes()), collection, k, progress=progress))
    scores = BM25([document.text for document in collection.documents])([query.text for query in collection.queries])
    values, places = scores.sort(dim=1, descending=True, stable=True)
    return Run(places[:, :k], values[:, :k])


def geometry(vectors: Float[Tensor, "documents dim"], *, k: int = 10) -> dict[str, float]:
    """What tuning may do to a space: directions in use, how evenly, and whether few documents are everybody's neighbour."""
    return {
        "effective_rank_centred": effective_rank(singular_values(vectors, centred=True)),
        "mean_cosine": mean_cosine(vectors),
        "uniformity": uniformity(vectors),
        "hubness": hubness(vectors, k=k),
    }


def _steps(
    encoder: "SentenceTransformer",
    collection: Collection,
    made: Sequence[Lesson],
    loop: LoopConfig,
    *,
    config: RetrieverConfig,
    compute: torch.dtype,
    saving: Saving | None,
) -> Iterator[StepRecord]:
    longest, encoder.max_seq_length = encoder.max_seq_length, config.tokens
    parameters = list(encoder.parameters())
    objective = Contrasts(encoder, collection, made, config.contrast, compute=compute)
    run = run_name({**asdict(config), "compute": str(compute)}, made, *parameters[:2])
    yield from train_watched(
        objective, parameters, loop, count=len(made), watch=Watch(), measure=lambda record: {}, run=run, saving=saving
    )
    encoder.max_seq_length = longest
