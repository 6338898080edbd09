"""Collections from disk: JSON lines with TREC judgements, and the folders of BEIR.

    ours     documents.jsonl (or docs.jsonl)   queries.SPLIT.jsonl (or queries.jsonl)   qrels.SPLIT.tsv (or qrels.tsv)
    BEIR     corpus.jsonl                      queries.jsonl                            qrels/SPLIT.tsv (with a header)

A judgement is a line of query, document and grade, or of TREC's four columns, the second of which says nothing.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from gti_diag.errors import InputError, bad
from gti_diag.foreign.json_text import parse_json

from .collection import DOCUMENTS, JUDGEMENTS, QUERIES, Collection, Document, Query

Judgements = dict[str, dict[str, int]]
BEST = 100  # the highest grade that is believed


def read_collection(folder: str | os.PathLike[str], split: str) -> Collection:
    """One split of the collection in `folder`: all its documents, and those of its queries that are judged.

    Raises:
        InputError: a file is missing or malformed, an id is unknown or occurs twice, a text is empty, a grade is no whole
            number from 0 on, or no query has a document above grade 0.
    """
    home = Path(folder)
    documents = _documents(_one_of(home, DOCUMENTS, "docs.jsonl", "corpus.jsonl"))
    queries = _queries(_one_of(home, QUERIES.format(split=split), "queries.jsonl"))
    path = _one_of(home, JUDGEMENTS.format(split=split), f"qrels/{split}.tsv", "qrels.tsv")
    judged = _judgements(path, {query.id for query in queries}, {document.id for document in documents})
    asked = tuple(query for query in queries if any(judged.get(query.id, {}).values()))
    if not asked:
        raise bad(path, "no query has a document with a grade above 0", "name judgements of these queries")
    return Collection(documents, asked, {query.id: judged[query.id] for query in asked})


def read_judgements(path: str | os.PathLike[str], collection: Collection) -> Int[Tensor, " pairs"]:
    """Somebody else's grades of the judged pairs of `collection`, in its order; 0 where they say nothing.

    Raises:
        InputError: as `read_collection`.
    """
    found = _judgements(Path(path), {query.id for query in collection.queries}, set(collection.places))
    pairs = ((query.id, document) for query in collection.queries for document in collection.judgements[query.id])
    return torch.tensor([found.get(query, {}).get(document, 0) for query, document in pairs])


def _one_of(home: Path, *names: str) -> Path:
    found = next((home / name for name in names if (home / name).is_file()), None)
    if found is None:
        raise bad(home, f"has none of {', '.join(names)}", "name the folder of a collection, and one of its splits")
    return found


def _documents(path: Path) -> tuple[Document, ...]:
    from gti_diag.foreign.retrieval_forms import DocumentLine
    from gti_diag.foreign.schemas import formed

    found = []
    for place, value in _records(path):
        line = formed(DocumentLine, value, place)
        document = Document(line.doc_id, line.title.strip(), line.text.strip(), line.group or line.doc_id)
        if not document.text:
            raise bad(place, f"document {line.doc_id!r} has an empty text", "give it one, or leave it out")
        found.append(document)
    _columns(path, "document", [document.id for document in found])
    return tuple(found)


def _queries(path: Path) -> tuple[Query, ...]:
    from gti_diag.foreign.retrieval_forms import QueryLine
    from gti_diag.foreign.schemas import formed

    found = []
    for place, value in _records(path):
        line = formed(QueryLine, value, place)
        if not line.text.strip():
            raise bad(place, f"query {line.query_id!r} has an empty text", "give it one, or leave it out")
        found.append(Query(line.query_id, line.text.strip()))
    _columns(path, "query", [query.id for query in found])
    return tuple(found)


def _judgements(path: Path, queries: set[str], documents: set[str]) -> Judgements:
    found: Judgements = {}
    for number, line in _lines(path):
        place = f"{path}:{number}"
        columns = line.split("\t") if "\t" in line else line.split()
        if len(columns) not in (3, 4):
            raise bad(
                place, f"{len(columns)} columns", "write query, document and grade (TREC: query, 0, document, grade)"
            )
        query, document, grade = columns[0], columns[-2], columns[-1].strip()
        if number == 1 and not grade.lstrip("-").isdigit() and query not in queries:
            continue  # a header
        if not grade.isdecimal() or int(grade) > BEST:
            raise bad(place, f"grade {grade!r}", f"a grade is a whole number from 0 to {BEST}")
        for name, value, known in (("query", query, queries), ("document", document, documents)):
            if value not in known:
                raise bad(place, f"{name} {value!r} is unknown", "judge only what the other files hold")
        if document in found.setdefault(query, {}):
            raise bad(place, f"document {document!r} is judged twice for query {query!r}", "keep one of the grades")
        found[query][document] = int(grade)
    return found


def _records(path: Path) -> Iterator[tuple[str, Any]]:
    """Each line that is not blank as JSON, and where it stands."""
    for number, line in _lines(path):
        place = f"{path}:{number}"
        yield place, parse_json(line.encode(), place, finite=True)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line.rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error


def _columns(path: Path, what: str, ids: Sequence[str]) -> None:
    seen: set[str] = set()
    for value in ids:
        if len(value.split()) != 1:
            raise bad(path, f"{what} {value!r} holds a blank", "leave blanks out: runs part their columns by them")
        if value in seen:
            raise bad(path, f"{what} {value!r} occurs twice", "every id once")
        seen.add(value)
