"""Encoder and ranker trained together, watched while they are; and the folder that the next stage opens."""

import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from gti_train.loop.state import Saving, run_name
from gti_train.loop.training import LoopConfig, StepRecord
from gti_train.loop.watched import Watch, train_watched
from gti_train.model.loading import best_dtype, products_in
from gti_train.model.matrices import matrices
from gti_train.model.tree_passes import find_way

from ..collection import Collection
from ..evaluation import quality, reranked
from ..judge import load_judge, save_judge
from ..pairs import Pair
from ..prompts import Prompter
from ..scoring import score
from ..teacher import Said
from .alarms import item_geometry, warn
from .encoder import ItemEncoder, encode, encoder_of, load_encoder, save_encoder
from .objective import ItemAnswers, ItemLesson
from .tokens import REQUEST, ItemTokens, load_items, request, save_items, slot_token

if TYPE_CHECKING:
    from transformers import PreTrainedModel

RANKER, ENCODER, GEOMETRY = "ranker", "encoder", "geometry.json"
MOST_ROWS = 2048  # of the vocabulary, with which the spread of item tokens is compared


@dataclass(frozen=True)
class ItemConfig:
    """slots: vectors of a document; layers: of the encoder; align: weight of the states' alignment; labels: share of the
    labels in the targets, the rest being the text ranker's own opinion; epochs, steps: as of `JudgeConfig`; batch: documents in a step; family: most questions
    about a document in it; every: steps between looks at the item tokens.
    """

    slots: int = 8
    layers: int = 10
    align: float = 1.0
    labels: float = 0.5
    epochs: float = 1.0
    steps: int | None = None
    batch: int = 16
    family: int = 16
    learning_rate: float = 2e-4
    warmup: int = 10
    seed: int = 0
    micro_tokens: int = 1024
    every: int = 50

    def loop(self, count: int) -> LoopConfig:
        """The loop over `count` documents with their questions."""
        steps = self.steps or max(1, round(self.epochs * count / self.batch))
        own = {"batch": self.batch, "learning_rate": self.learning_rate, "warmup": self.warmup, "seed": self.seed}
        return LoopConfig(steps, schedule="linear", **own)  # type: ignore[arg-type]


@dataclass
class Hybrid:
    """A ranker that reads queries as text and items as vectors, its prompter, and the encoder of items."""

    ranker: "PreTrainedModel"
    prompter: Prompter
    encoder: ItemEncoder

    @classmethod
    def begin(cls, ranker: "PreTrainedModel", prompter: Prompter, config: ItemConfig) -> "Hybrid":
        """From a text ranker (float32), which goes on to be asked as it was."""
        return cls(ranker, prompter, encoder_of(ranker, slots=config.slots, layers=config.layers))

    def parameters(self) -> list[torch.nn.Parameter]:
        """All that learns: not the vocabularies of either, which item tokens are to be measured against."""
        for model in (self.ranker, self.encoder):
            model.requires_grad_(True)
        for model in (self.ranker, self.encoder.body):
            model.get_input_embeddings().requires_grad_(False)
        return [p for model in (self.ranker, self.encoder) for p in model.parameters() if p.requires_grad]

    def documents(self, collection: Collection) -> list[tuple[int, ...]]:
        """The tokens of each document that the encoder reads."""
        most = self.prompter.wording.document_tokens or self.prompter.wording.max_tokens
        return [tuple(self.prompter.tokens(f" {document.text}")[:most]) for document in collection.documents]

    def items(self, collection: Collection, *, progress: Callable[[float], None] = lambda share: None) -> ItemTokens:
        """The item tokens of all documents of a collection."""
        vectors = encode(self.encoder, self.documents(collection), progress=progress)
        return ItemTokens(tuple(d.id for d in collection.documents), vectors, slot_token(self.prompter))


def item_lessons(
    hybrid: Hybrid, collection: Collection, labels: Sequence[tuple[Pair, float]], said: Said, config: ItemConfig
) -> list[ItemLesson]:
    """Pairs by document, at most `config.family` together, with what labels and text ranker say mixed."""
    documents = hybrid.documents(collection)
    queries = [tuple(hybrid.prompter.tokens(f" {query.text}")) for query in collection.queries]
    targets = (
        config.labels * torch.tensor([label for _, label in labels]) + (1 - config.labels) * said.log_odds.sigmoid()
    )
    by_document: dict[int, list[int]] = defaultdict(list)
    for number, ((_, document), _) in enumerate(labels):
        by_document[document].append(number)
    lessons = []
    for document, members in by_document.items():
        pieces = -(-len(members) // config.family)
        for part in (members[i::pieces] for i in range(pieces)):
            asked = tuple(queries[labels[i][0][0]] for i in part)
            lessons.append(ItemLesson(documents[document], asked, tuple(targets[part].tolist()), said.states[part]))
    return lessons


def train_hybrid(
    hybrid: Hybrid,
    lessons: Sequence[ItemLesson],
    config: ItemConfig,
    *,
    compute: torch.dtype,
    look: Callable[[], dict[str, float]] = dict,
    saving: Saving | None = None,
) -> Iterator[StepRecord]:
    """One record a step; `look` is called every `config.every` steps, and its alarms are logged."""
    parameters = hybrid.parameters()
    way = find_way(hybrid.ranker, hybrid.prompter.assembled([(lessons[0].queries[0], [0] * config.slots)]).ids)
    objective = ItemAnswers(
        hybrid.ranker, hybrid.encoder, lessons, prompter=hybrid.prompter, way=way, align=config.align,
        micro_tokens=config.micro_tokens, compute=compute,
    )  # fmt: skip

    def measure(record: StepRecord) -> dict[str, float]:
        values = look()
        warn(values, step=record.step)
        return values

    loop = config.loop(len(lessons))
    described = ((lesson.document, lesson.queries, lesson.targets) for lesson in lessons)
    run = run_name({**asdict(config), "compute": str(compute)}, described, *parameters[:2])
    yield from train_watched(
        objective, parameters, loop, count=len(lessons), watch=Watch(config.every), measure=measure, run=run,
        saving=saving,
    )  # fmt: skip


def rank_items(
    ranker: "PreTrainedModel", prompter: Prompter, items: ItemTokens, collection: Collection, candidates: Tensor
) -> Float[Tensor, "queries n"]:
    """Log-odds of each query's candidate documents, read as item tokens."""
    texts = [query.text for query in collection.queries]
    pairs = [(text, place) for text, row in zip(texts, candidates.tolist(), strict=True) for place in row]
    prompts, overrides = items.asked(prompter, pairs)
    # Nothing is shared: prompts of a few tokens are cheaper in large batches than a pass for what each query begins with.
    alone = [0] * len(prompts.ids)
    return score(ranker, prompts.ids, prompter.rows, shared=alone, overrides=overrides).view(candidates.shape)


def some_rows(vocabulary: Tensor) -> Float[Tensor, "tokens dim"]:
    """Some `MOST_ROWS` rows of a vocabulary, evenly chosen."""
    return vocabulary.detach()[:: max(1, len(vocabulary) // MOST_ROWS)].cpu()


def look_at(hybrid: Hybrid, collection: Collection, candidates: Tensor, *, seed: int = 0) -> dict[str, float]:
    """Geometry of the item tokens of `collection`, and NDCG@10 of its queries with them and with those of other items."""
    items = hybrid.items(collection)
    values = item_geometry(items.vectors, some_rows(matrices(hybrid.ranker)["input"]))
    for name, own in (("ndcg", items), ("ndcg_shuffled", items.shuffled(seed))):
        with products_in(best_dtype(hybrid.ranker.device), hybrid.ranker.device):
            scores = rank_items(hybrid.ranker, hybrid.prompter, own, collection, candidates)
        values[name] = float(
            quality(reranked(candidates, scores.cpu()), collection, k=min(10, candidates.shape[1]))[:, 0].mean()
        )
    return values


def save_hybrid(
    hybrid: Hybrid, collection: Collection, out: Path, *, dtype: torch.dtype, geometry: dict[str, float]
) -> None:
    """Write the ranker (a plain checkpoint), the encoder, the item tokens of `collection`, a request, and the last look."""
    out.mkdir(parents=True, exist_ok=True)
    items = hybrid.items(collection)
    save_judge(hybrid.ranker, hybrid.prompter, out / RANKER, dtype=dtype)
    save_encoder(hybrid.encoder.to(dtype), out / ENCODER)
    save_items(items, out)
    asked = request(hybrid.prompter, items, collection.queries[0].text, [0, 1])
    for name, content in ((REQUEST, asked), (GEOMETRY, geometry)):
        (out / name).write_text(json.dumps(content) + "\n", encoding="utf-8")


def load_hybrid(folder: str | os.PathLike[str], *, dtype: torch.dtype | None = None) -> tuple[Hybrid, ItemTokens]:
    """What `save_hybrid` wrote."""
    home = Path(folder)
    items = load_items(home)
    ranker, prompter = load_judge(home / RANKER, dtype=dtype)
    return Hybrid(ranker, prompter, load_encoder(home / ENCODER, dtype).to(ranker.device)), items
