"""Rankings on disk, as trec_eval writes them: query, Q0, document, rank, score and the name of the run on each line."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gti_diag.errors import InputError, bad
from gti_diag.files import write_text

from .collection import Collection
from .evaluation import reranked

Rows = dict[str, list[tuple[float, str]]]


@dataclass(frozen=True)
class Run:
    """For each query of a collection the places of the same number of documents, best first, and their scores."""

    places: Int[Tensor, "queries ranks"]
    scores: Float[Tensor, "queries ranks"]

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Every query with each of its documents, in order."""
        return [(query, document) for query, found in enumerate(self.places.tolist()) for document in found]

    def rescored(self, scores: Float[Tensor, " pairs"]) -> "Run":
        """The same documents by other scores, given in the order of `pairs`; equal ones keep their order."""
        given = scores.view(self.places.shape)
        return Run(reranked(self.places, given), given.sort(dim=1, descending=True).values)


def write_run(run: Run, collection: Collection, path: str | os.PathLike[str], *, name: str) -> None:
    """Write a run.

    Raises:
        InputError: `path` cannot be written.
    """
    lines = [
        f"{query.id} Q0 {collection.documents[place].id} {rank} {score:.9g} {name}\n"
        for query, places, scores in zip(collection.queries, run.places.tolist(), run.scores.tolist(), strict=True)
        for rank, (place, score) in enumerate(zip(places, scores, strict=True), 1)
    ]
    write_text(path, "".join(lines))


def read_run(path: str | os.PathLike[str], collection: Collection) -> Run:
    """Read a run of the queries of `collection`; ranks are those of the scores, other queries are passed over.

    Lists are cut to the shortest one, so that all queries are asked about as many documents.

    Raises:
        InputError: it cannot be read, a line is malformed, a document is unknown or listed twice, or a query has none.
    """
    wanted = {query.id for query in collection.queries}
    found: Rows = {query: [] for query in wanted}
    for number, columns in _lines(Path(path)):
        place = f"{path}:{number}"
        if len(columns) != 6:
            raise bad(
                place, f"{len(columns)} columns", "write query, Q0, document, rank, score and name, parted by blanks"
            )
        query, document = columns[0], columns[2]
        try:
            score = float(columns[4])
        except ValueError:
            raise bad(place, f"score {columns[4]!r} is no number", "write one") from None
        if query in wanted:
            if document not in collection.places:
                raise bad(place, f"document {document!r} is unknown", "rank what the collection holds")
            found[query].append((score, document))
    for query, rows in found.items():
        if not rows:
            raise bad(path, f"nothing is ranked for query {query!r}", "rank documents for every query")
        if len({document for _, document in rows}) < len(rows):
            raise bad(path, f"a document is ranked twice for query {query!r}", "every document once")
    ranked = [sorted(found[query.id], key=lambda row: -row[0]) for query in collection.queries]
    k = min(map(len, ranked))
    places = torch.tensor([[collection.places[document] for _, document in rows[:k]] for rows in ranked])
    return Run(places, torch.tensor([[score for score, _ in rows[:k]] for rows in ranked]))


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    try:
        with path.open(encoding="utf-8") as file:
            yield from ((number, line.split()) for number, line in enumerate(file, 1) if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: cannot be read ({error}); name a run, as `gti-train search retrieve` writes it"
        ) from error
