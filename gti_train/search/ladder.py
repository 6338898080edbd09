"""The ladder of serving gains: from full text, one pair at a time, to item tokens; each rung's speed, quality and geometry.

Rungs differ in what is read (text, summary, item tokens), by which model, and how. A rung's numbers are kept in a file of
its own as soon as they are there, speed and quality apart: speed wants a quiet machine and no trained model.
"""

import contextlib
import json
import logging
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Int
from torch import Tensor

from gti_diag.errors import InputError
from gti_diag.files import write_text
from gti_diag.measures.alignment import linear_cka
from gti_diag.measures.rsa import pearson_rsa
from gti_train.model.continuations import right_padded
from gti_train.recommend.significance import interval

from .beginnings import Beginnings
from .collection import Collection
from .evaluation import quality, reranked
from .items.tokens import ItemTokens
from .prompts import Prompter, Prompts
from .scoring import Overrides, last_states, log_odds, score

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)
RESET = Path("/proc/self/clear_refs")
BATCH = 16  # pairs in a batch of the rungs that share nothing
PARTS = ("speed", "quality")
MOST_STATES = 400  # pairs whose last states are compared
Way = Callable[["PreTrainedModel", Prompts, tuple[int, int], Overrides | None], Tensor]


def one_by_one(model: "PreTrainedModel", asked: Prompts, rows: tuple[int, int], overrides: Overrides | None) -> Tensor:
    """A forward pass for each pair, logits of every position and token: what a first script does."""
    outputs = (model(input_ids=torch.tensor([ids], device=model.device)).logits[0, -1] for ids in asked.ids)
    return torch.stack([logits[rows[0]] - logits[rows[1]] for logits in outputs]).float()


def batched(model: "PreTrainedModel", asked: Prompts, rows: tuple[int, int], overrides: Overrides | None) -> Tensor:
    """Batches of 16 pairs of similar length, padded and masked, logits of every position and token."""

    def scores(ids: Tensor, real: Tensor) -> Tensor:
        mask = real.long().to(model.device)
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        last = logits[torch.arange(len(ids)), real.sum(1) - 1]
        return last[:, rows[0]] - last[:, rows[1]]

    return _in_batches(model, asked, scores)


def last_position(
    model: "PreTrainedModel", asked: Prompts, rows: tuple[int, int], overrides: Overrides | None
) -> Tensor:
    """The same batches without a mask, which a causal model needs none of, and logits of the last position alone."""

    def scores(ids: Tensor, real: Tensor) -> Tensor:
        logits = model.get_output_embeddings()(_last_hidden(model, ids, real))
        return logits[:, rows[0]] - logits[:, rows[1]]

    return _in_batches(model, asked, scores)


def two_rows(model: "PreTrainedModel", asked: Prompts, rows: tuple[int, int], overrides: Overrides | None) -> Tensor:
    """And of two tokens alone."""
    return _in_batches(model, asked, lambda ids, real: log_odds(model, _last_hidden(model, ids, real), rows))


def shared_prefix(
    model: "PreTrainedModel", asked: Prompts, rows: tuple[int, int], overrides: Overrides | None
) -> Tensor:
    """And what the prompts of a query begin with is run once."""
    return score(model, asked.ids, rows, shared=asked.shared, overrides=overrides)


def kept(
    model: "PreTrainedModel", asked: Prompts, rows: tuple[int, int], overrides: Overrides | None
) -> tuple[Beginnings, Callable[[], Tensor]]:
    """The beginnings of the prompts, computed here, and what a query costs after that: a function that goes on from them."""
    begun = [ids[:n] for ids, n in zip(asked.ids, asked.shared, strict=True)]
    rests = [ids[n:] for ids, n in zip(asked.ids, asked.shared, strict=True)]
    beginnings = Beginnings(model, begun, overrides=overrides)
    return beginnings, partial(beginnings.score, range(len(begun)), rests, rows)


WAYS: dict[str, Way] = {
    "one-by-one": one_by_one,
    "batched": batched,
    "last-position": last_position,
    "two-rows": two_rows,
    "shared-prefix": shared_prefix,
}
KEPT = "kept"  # no way by itself: what prompts begin with is computed before, and each query goes on from there


def _last_hidden(model: "PreTrainedModel", ids: Tensor, real: Tensor) -> Tensor:
    hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    return hidden[torch.arange(len(ids)), real.sum(1) - 1]


def _in_batches(model: "PreTrainedModel", asked: Prompts, scores: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    order = sorted(range(len(asked.ids)), key=lambda i: len(asked.ids[i]))
    found = []
    for start in range(0, len(order), BATCH):
        ids, real = right_padded([asked.ids[i] for i in order[start : start + BATCH]])
        found.append(scores(ids.to(model.device), real.to(model.device)))
    return torch.cat(found).float()[torch.tensor(order, device=model.device).argsort()]


@dataclass(frozen=True)
class Rung:
    """One way to rank: a model and its prompter, how it is run (of `WAYS`, or `KEPT`), and what stands for a document: its text in
    `texts` (by place), or its `items`. `same_scores` names a rung whose scores are these up to rounding, and so its quality;
    `offline_s` is what was computed once for each document, in seconds a document, where it was measured."""

    name: str
    title: str
    way: str
    load: Callable[[], tuple["PreTrainedModel", Prompter]]
    texts: Sequence[str] = ()
    items: ItemTokens | None = None
    same_scores: str | None = None
    offline_s: float | None = None

    def asked(self, prompter: Prompter, pairs: Sequence[tuple[str, int]]) -> tuple[Prompts, Overrides | None]:
        """Prompts about queries and places of documents."""
        if self.items is not None:
            return self.items.asked(prompter, pairs)
        return prompter.prompts([(query, self.texts[place]) for query, place in pairs]), None


@torch.inference_mode()
def speed(rung: Rung, query: str, places: Sequence[int], *, repeats: int) -> dict[str, Any]:
    """Items a second, tokens and memory of ranking `places` for one query; the median of `repeats` after one to warm up.

    Tokenising is left out: texts of documents are tokenised once, offline, where keys and values are kept as well.

    Raises:
        InputError: as `Beginnings`.
    """
    model, prompter = rung.load()
    asked, overrides = rung.asked(prompter, [(query, place) for place in places])
    device = model.device
    kept_bytes: int | None = None
    if rung.way == KEPT:
        beginnings, once = kept(model, asked, prompter.rows, overrides)
        kept_bytes = beginnings.bytes
    else:
        once = partial(WAYS[rung.way], model, asked, prompter.rows, overrides)
    _forget_peak(device)

    def run() -> tuple[float, float]:
        wall, processor = time.perf_counter(), time.process_time()
        once()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - wall, time.process_time() - processor

    run()
    times = [run() for _ in range(repeats)]
    wall, processor = (statistics.median(values) for values in zip(*times, strict=True))
    return {
        "items": len(places), "items_s": len(places) / wall, "items_processor_s": len(places) / processor,
        "tokens_mean": sum(map(len, asked.ids)) / len(asked.ids), "peak_bytes": _peak(device),
        "kept_bytes": kept_bytes,
        "parameters": sum(p.numel() for p in model.parameters()),
        "threads": torch.get_num_threads(), "dtype": str(model.dtype).removeprefix("torch."), "device": device.type,
    }  # fmt: skip


def _forget_peak(device: torch.device) -> None:
    """Let the peak of memory count from here; on a CPU where Linux offers it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    elif RESET.exists():
        RESET.write_text("5")


def _peak(device: torch.device) -> int | None:
    """Bytes of the device, or resident ones of this process; None where the peak cannot be reset."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    if not RESET.exists():
        return None
    status = RESET.with_name("status").read_text(encoding="utf-8")
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


@torch.inference_mode()
def judged(rung: Rung, collection: Collection, candidates: Int[Tensor, "queries n"]) -> tuple[Tensor, Tensor]:
    """Scores of all candidates, and the last states of the first `MOST_STATES` pairs (evenly chosen)."""
    model, prompter = rung.load()
    texts = [query.text for query in collection.queries]
    pairs = [(text, place) for text, row in zip(texts, candidates.tolist(), strict=True) for place in row]
    asked, overrides = rung.asked(prompter, pairs)
    states = last_states(model, asked.ids, shared=asked.shared, overrides=overrides)
    scores = log_odds(model, states, prompter.rows).view(candidates.shape).cpu()
    return scores, states[:: max(1, len(states) // MOST_STATES)][:MOST_STATES].float().cpu()


def climb(
    rungs: Sequence[Rung],
    collection: Collection,
    candidates: Int[Tensor, "queries n"],
    out: Path,
    *,
    parts: Sequence[str] = PARTS,
    items: int = 64,
    repeats: int = 3,
) -> Iterator[str]:
    """Measure every rung that has no file yet; yields the names as they are done.

    Speed: one query (the median in length) and `items` documents, evenly chosen. Quality: NDCG over the candidates, at
    10 or as many as there are.

    Raises:
        InputError: a part that is none of `PARTS`.
    """
    if unknown := [part for part in parts if part not in PARTS]:
        raise InputError(f"--parts {unknown[0]!r} cannot be measured: write {','.join(PARTS)}, or one of them")
    (out / "rungs").mkdir(parents=True, exist_ok=True)
    texts = sorted((query.text for query in collection.queries), key=lambda text: (len(text), text))
    query = texts[len(texts) // 2]
    places = [i * len(collection.documents) // items for i in range(items)]
    for rung in rungs:
        if "speed" in parts and _read(out, rung.name, "speed") is None:
            try:
                found = speed(rung, query, places, repeats=repeats)
            except InputError as error:
                if rung.way != KEPT:
                    raise
                log.warning("no rung %s: %s", rung.name, error)
            else:
                write_text(_file(out, rung.name, "speed"), json.dumps(found) + "\n")
        if "quality" in parts and rung.same_scores is None and _read(out, rung.name, "quality") is None:
            scores, states = judged(rung, collection, candidates)
            k = min(10, candidates.shape[1])
            values = quality(reranked(candidates, scores), collection, k=k)
            torch.save({"states": states, "scores": scores}, out / "rungs" / f"{rung.name}.pt")
            content = {"k": k, "ndcg": values[:, 0].tolist(), "best": values[:, 1].tolist()}
            write_text(_file(out, rung.name, "quality"), json.dumps(content) + "\n")
        yield rung.name


def document(rungs: Sequence[Rung], out: Path, *, teacher: str, seed: int = 0) -> dict[str, Any]:
    """Everything that is known of the rungs: speeds over each denominator, NDCG with its interval, share of the
    teacher's, RSA and CKA of last states with the teacher's, and whether geometry went with what was lost.

    Raises:
        InputError: the teacher is no rung.
    """
    by_name = {rung.name: rung for rung in rungs}
    if teacher not in by_name:
        raise InputError(f"no rung is called {teacher!r}: name one of {', '.join(by_name)}")
    speeds = {rung.name: _read(out, rung.name, "speed") for rung in rungs}
    found = []
    for rung in rungs:
        row: dict[str, Any] = {"name": rung.name, "title": rung.title, "way": rung.way, "offline_s": rung.offline_s}
        row |= {"speed": speeds[rung.name], "over": _over(speeds, rung.name)}
        row["quality"] = _quality(
            out, rung.same_scores or rung.name, by_name[teacher].same_scores or teacher, seed=seed
        )
        row["same_scores"] = rung.same_scores
        found.append(row)
    return {"schema": 1, "teacher": teacher, "rungs": found, "second_reading": second_reading(found)}


def _file(out: Path, name: str, part: str) -> Path:
    return out / "rungs" / f"{name}.{part}.json"


def _read(out: Path, name: str, part: str) -> dict[str, Any] | None:
    path = _file(out, name, part)
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _over(speeds: Mapping[str, dict[str, Any] | None], name: str) -> dict[str, float]:
    """Times the items a second of each denominator: the first rungs, whatever is faster than them."""
    own = speeds[name]
    bases = [base for base in ("one-by-one", "batched", "last-position") if speeds.get(base)]
    return {} if own is None else {base: own["items_s"] / speeds[base]["items_s"] for base in bases}  # type: ignore[index]


def _quality(out: Path, name: str, teacher: str, *, seed: int) -> dict[str, Any] | None:
    own, best = _read(out, name, "quality"), _read(out, teacher, "quality")
    if own is None:
        return None
    values = torch.tensor([own["ndcg"], own["best"]], dtype=torch.float64).T
    bounds = interval(values, seed=seed)
    row: dict[str, Any] = {"ndcg": float(values[:, 0].mean()), "interval": bounds[0].tolist(), "queries": len(values)}
    row |= {"best": float(values[:, 1].mean()), "k": own.get("k", 10)}
    if best is not None:
        row["share"] = row["ndcg"] / (sum(best["ndcg"]) / len(best["ndcg"]))
        row |= _geometry(out, name, teacher)
    return row


def _geometry(out: Path, name: str, teacher: str) -> dict[str, float]:
    states, reference = (torch.load(out / "rungs" / f"{n}.pt", weights_only=True)["states"] for n in (name, teacher))
    if name == teacher:
        return {"rsa": 1.0, "cka": 1.0}
    return {"rsa": pearson_rsa(states, reference), "cka": linear_cka(states, reference, debiased=True)}


def second_reading(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Spearman's correlation, over rungs with scores of their own, of each geometry measure with the NDCG kept.

    Undefined (left out) with fewer than three such rungs; `rungs` says how many there were.
    """
    from scipy.stats import spearmanr

    own = [row["quality"] for row in rows if row["quality"] and not row["same_scores"] and "rsa" in row["quality"]]
    found: dict[str, Any] = {"rungs": len(own)}
    for measure in ("rsa", "cka") if len(own) >= 3 else ():
        value = float(spearmanr([q[measure] for q in own], [q["ndcg"] for q in own]).statistic)
        found |= {measure: value} if value == value else {}
    return found


def go_on(out: Path, asked: Mapping[str, Any]) -> None:
    """Keep what a ladder in `out` is climbed with; what a former climb did not name may come to it, nothing may change.

    Raises:
        InputError: the rungs there were measured with something else.
    """
    path = out / "rungs" / "asked.json"
    try:
        before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        changed = [name for name, value in asked.items() if name in before and before[name] != value]
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} is damaged: remove {path.parent}, or name another --out") from error
    if changed:
        raise InputError(f"{out} has rungs of another {changed[0]}: name another --out, or remove {path.parent}")
    write_text(path, json.dumps({**before, **asked}) + "\n")


def chosen_queries(
    collection: Collection, places: Int[Tensor, "queries ranks"], *, queries: int | None, top: int
) -> tuple[Collection, Int[Tensor, "queries top"]]:
    """Some queries, evenly chosen, and the first documents that were found for each.

    Raises:
        InputError: fewer documents were found.
    """
    if places.shape[1] < top:
        raise InputError(
            f"the run has {places.shape[1]} documents a query and {top} are to be ranked: retrieve more, or lower --top"
        )
    count = min(queries or len(places), len(places))
    kept = [i * len(places) // count for i in range(count)]
    return collection.asking(collection.queries[i] for i in kept), places[kept][:, :top]


def write_ladder(told: Mapping[str, Any], out: Path) -> str:
    """Write ladder.json, ladder.md and, where speeds are known, the figure; returns the table."""
    from gti_diag.render import climbed
    from gti_diag.render.ladder import table
    from gti_diag.render.view import Missing

    text = table(told)
    write_text(out / "ladder.json", json.dumps(told, indent=1) + "\n")
    write_text(out / "ladder.md", text + "\n")
    with contextlib.suppress(Missing):
        climbed(told, out)
    return text
