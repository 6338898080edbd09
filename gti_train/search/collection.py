"""A retrieval collection in memory: documents, queries, graded judgements, and splits that share no group of documents."""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from random import Random

from gti_diag.errors import InputError
from gti_diag.files import atomic

DOCUMENTS, QUERIES, JUDGEMENTS = "documents.jsonl", "queries.{split}.jsonl", "qrels.{split}.tsv"


@dataclass(frozen=True)
class Document:
    """Something to be found. `group` names what it must not be parted from at a split (itself, where nothing is said)."""

    id: str
    title: str
    body: str
    group: str

    @property
    def text(self) -> str:
        """Title and body, as encoders and judges read them."""
        return ". ".join(part for part in (self.title, self.body) if part)


@dataclass(frozen=True)
class Query:
    """What somebody typed."""

    id: str
    text: str


@dataclass(frozen=True)
class Collection:
    """Documents in a fixed order, queries, and grades by query and document; what is not judged has grade 0."""

    documents: tuple[Document, ...]
    queries: tuple[Query, ...]
    judgements: Mapping[str, Mapping[str, int]]

    @cached_property
    def places(self) -> dict[str, int]:
        """The place of each document, by id."""
        return {document.id: place for place, document in enumerate(self.documents)}

    @cached_property
    def relevant(self) -> list[dict[int, int]]:
        """For each query the grades of its judged documents, by their place: what `recommend.metrics` reads."""
        return [{self.places[d]: grade for d, grade in self.judgements[q.id].items()} for q in self.queries]

    @cached_property
    def highest_grade(self) -> int:
        """Of all judgements, whatever the scale."""
        return max(grade for grades in self.relevant for grade in grades.values())

    @cached_property
    def best_groups(self) -> list[frozenset[str]]:
        """For each query the groups of the documents with its best grade."""
        groups = [document.group for document in self.documents]
        return [
            frozenset(groups[d] for d, g in grades.items() if g == max(grades.values())) for grades in self.relevant
        ]

    def asking(self, queries: Iterable[Query]) -> "Collection":
        """The same documents, asked for by some of the queries."""
        chosen = tuple(queries)
        return replace(self, queries=chosen, judgements={query.id: self.judgements[query.id] for query in chosen})

    def without_groups(self, groups: Iterable[str]) -> "Collection":
        """What may be learned from where `groups` are held out: no document of theirs, no query that is after one, no
        judgement of one."""
        out = set(groups)
        documents = tuple(document for document in self.documents if document.group not in out)
        kept = {document.id for document in documents}
        queries = [query for query, best in zip(self.queries, self.best_groups, strict=True) if not best & out]
        judged = {
            query.id: {d: grade for d, grade in self.judgements[query.id].items() if d in kept} for query in queries
        }
        chosen = tuple(query for query in queries if any(judged[query.id].values()))
        return Collection(documents, chosen, {query.id: judged[query.id] for query in chosen})


def split(collection: Collection, *, share: float, seed: int) -> tuple[Collection, Collection]:
    """Train and test: about `share` of the groups are held out, and with them the queries that are after one.

    Train knows nothing of a held-out group (see `without_groups`); test queries rank all documents.

    Raises:
        InputError: one side would have no query.
    """
    groups = sorted({group for best in collection.best_groups for group in best})
    Random(seed).shuffle(groups)
    held_out = set(groups[: round(share * len(groups))])
    train = collection.without_groups(held_out)
    test = collection.asking(
        query for query, best in zip(collection.queries, collection.best_groups, strict=True) if best <= held_out
    )
    if not train.queries or not test.queries:
        raise InputError(
            f"holding out {share:g} of {len(groups)} groups leaves one side without a query: change the share"
        )
    return train, test


def apart(train: Collection, test: Collection) -> Collection:
    """`train` without all that `test` asks for: the groups of its queries' best documents.

    Raises:
        InputError: nothing is left.
    """
    left = train.without_groups({group for best in test.best_groups for group in best})
    if not left.queries:
        raise InputError(
            "every training query is after a document that the test asks for: split the collection by groups"
        )
    return left


def write_collection(splits: Mapping[str, Collection], folder: str | os.PathLike[str]) -> None:
    """Write documents once, and queries and judgements of each split, as `reading.read_collection` reads them.

    Raises:
        InputError: the folder cannot be written.
    """
    home, some = Path(folder), next(iter(splits.values()))
    documents = [{"doc_id": d.id, "title": d.title, "text": d.body, "group": d.group} for d in some.documents]
    _write(home / DOCUMENTS, map(_line, documents))
    for name, part in splits.items():
        _write(home / QUERIES.format(split=name), (_line({"query_id": q.id, "text": q.text}) for q in part.queries))
        pairs = ((q.id, d, grade) for q in part.queries for d, grade in part.judgements[q.id].items())
        _write(home / JUDGEMENTS.format(split=name), (f"{q}\t{d}\t{grade}\n" for q, d, grade in pairs))


def _line(record: dict[str, str]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


def _write(path: Path, lines: Iterable[str]) -> None:
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(lines)
