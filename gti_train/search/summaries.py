"""Extractive summaries within a budget of tokens, chosen so that the judge's opinion moves least.

Every sentence is left out once; those whose absence moves the scores of the document's queries least are given up until half
of what is too long is gone, and the rest is asked again, until what is left fits. Greedy, so no guarantee; a sentence that no
query needs goes at no cost.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from gti_diag.errors import InputError
from gti_diag.files import write_text

ENDS = re.compile(r"(?<=[.!?;])\s+|\n+")
Scorer = Callable[[Sequence[tuple[str, str]]], Float[Tensor, " pairs"]]  # log-odds of (query, document text) pairs


@dataclass(frozen=True)
class Summary:
    """Sentences that stay, in their order, and by how much the judge's log-odds moved (mean absolute, over the queries)."""

    doc_id: str
    text: str
    moved: float


def sentences(text: str) -> list[str]:
    """The sentences of a text: parts that end with . ! ? ; or a line."""
    return [part.strip() for part in ENDS.split(text) if part.strip()]


def summarise(
    parts: Sequence[str], queries: Sequence[str], score: Scorer, *, budget: int, length: Callable[[str], int]
) -> tuple[list[int], float]:
    """Places of the sentences that stay, and how far the scores of `queries` moved from those of the whole.

    `length` counts tokens. At least one sentence stays, also where it alone exceeds the budget.

    Raises:
        InputError: no sentence, or no query to ask with.
    """
    if not parts or not queries:
        raise InputError(f"{len(parts)} sentences and {len(queries)} queries: a summary needs one of each at least")
    kept = list(range(len(parts)))

    def text(places: Sequence[int]) -> str:
        return " ".join(parts[i] for i in places)

    if len(kept) == 1 or length(text(kept)) <= budget:
        return kept, 0.0
    whole = score([(query, text(kept)) for query in queries])

    def moved(texts: Sequence[Sequence[int]]) -> list[float]:
        scores = score([(query, text(places)) for places in texts for query in queries])
        return (scores.view(len(texts), len(queries)) - whole).abs().mean(1).tolist()

    while len(kept) > 1 and (now := length(text(kept))) > budget:
        changes = dict(zip(kept, moved([[i for i in kept if i != out] for out in kept]), strict=True))
        cheapest = iter(sorted(kept, key=changes.__getitem__))
        while len(kept) > 1 and length(text(kept)) > (budget + now) / 2:
            out = next(cheapest)
            kept = [i for i in kept if i != out]
    return kept, moved([kept])[0]


def summarise_all(
    documents: Mapping[str, str],
    queries: Mapping[str, Sequence[str]],
    score: Scorer,
    *,
    budget: int,
    length: Callable[[str], int],
    cache: Path,
    progress: Callable[[float], None] = lambda share: None,
) -> list[Summary]:
    """Summaries of documents by id, one line of `cache` each as soon as it is made; those already there are kept.

    Raises:
        InputError: as `summarise`, `read_summaries`; a document without queries.
    """
    done = {summary.doc_id: summary for summary in read_summaries(cache)} if cache.is_file() else {}
    cache.parent.mkdir(parents=True, exist_ok=True)
    with cache.open("a", encoding="utf-8") as file:
        for number, (name, text) in enumerate(documents.items()):
            if name not in done:
                parts = sentences(text)
                kept, moved = summarise(parts, queries[name], score, budget=budget, length=length)
                done[name] = Summary(name, " ".join(parts[i] for i in kept), moved)
                file.write(json.dumps(asdict(done[name]), ensure_ascii=False) + "\n")
                file.flush()
            progress((number + 1) / len(documents))
    return [done[name] for name in documents]


def read_summaries(path: Path) -> list[Summary]:
    """Summaries as `summarise_all` keeps them; a last line that a killed run left half-written is dropped from the file.

    Raises:
        InputError: a line is none.
    """
    from gti_diag.foreign.json_text import parse_json
    from gti_diag.foreign.retrieval_forms import SummaryLine
    from gti_diag.foreign.schemas import formed

    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if whole != data:
        write_text(path, whole.decode())
    found = []
    for number, line in enumerate(whole.splitlines(), start=1):
        place = f"{path}:{number}"
        found.append(Summary(**formed(SummaryLine, parse_json(line, place), place).model_dump()))
    return found


def probes(
    judged: Sequence[Mapping[int, int]], texts: Sequence[str], count: int, *, near: Iterable[Sequence[int]]
) -> dict[int, list[str]]:
    """For each document up to `count` queries to ask: those judged for it, best grade first, then those that it is `near` to.

    `judged[q]` are grades by document; `near[q]` documents that retrieval finds for query q, best first.
    """
    found: dict[int, list[tuple[int, int, int]]] = {}
    for query, (grades, close) in enumerate(zip(judged, near, strict=True)):
        ranks = {document: rank for rank, document in enumerate(close)}
        for document in {**grades, **ranks}:
            key = (-grades.get(document, 0), ranks.get(document, len(ranks)), query)
            found.setdefault(document, []).append(key)
    return {document: [texts[q] for *_, q in sorted(keys)[:count]] for document, keys in found.items()}
