"""Extractive summaries within a budget of tokens, chosen so that the judge's opinion moves least.

Every sentence is left out once; the one whose absence moves the scores of the document's queries least is given up, and the
rest asked again, until what is left fits. Greedy, so no guarantee; a sentence that no query needs goes at no cost.
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
    kept, moved, whole = list(range(len(parts))), 0.0, None
    while len(kept) > 1 and length(" ".join(parts[i] for i in kept)) > budget:
        whole = score([(query, " ".join(parts)) for query in queries]) if whole is None else whole
        without = [[i for i in kept if i != out] for out in kept]
        texts = [" ".join(parts[i] for i in places) for places in without]
        scores = score([(query, text) for text in texts for query in queries]).view(len(texts), len(queries))
        changes = (scores - whole).abs().mean(1)
        best = int(changes.argmin())
        kept, moved = without[best], float(changes[best])
    return kept, moved


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
