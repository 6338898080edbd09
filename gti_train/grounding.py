"""The grounding stage: teach new rows their meaning from text while everything else stays frozen."""

import gc
import inspect
import json
import logging
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gti_diag.errors import InputError
from gti_diag.tiles import workers
from gti_train.attention import use_constant_past
from gti_train.batches import Encoded, collate, encode, most_tokens, order, shared
from gti_train.loop import (
    LoopConfig,
    Part,
    StepRecord,
    Trackers,
    check_finite,
    evaluate,
    join_processes,
    together,
    train,
    world,
)
from gti_train.models import atomic_directory, best_dtype, check_place, load_language_model, parse_dtype
from gti_train.new_rows import NewRows, exact_loss
from gti_train.prefixes import Prefixes, past
from gti_train.state import METRICS, SECOND, Saving, check_folder, clear_folder, newest_step, run_name
from gti_train.unfrozen import unfreeze
from gti_train.vocabulary import (
    Sidecar,
    matrices,
    read_codebooks,
    read_sidecar,
    rows_of,
    save_extended,
    trained_ids,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from gti_train.prompts import Example

log = logging.getLogger(__name__)
WATCHED = ("held_out_loss", "rsa")
# What one more micro-batch costs, in live tokens: reading the weights on a CPU, launching kernels on a GPU.
OVERHEAD_CPU, OVERHEAD_GPU = 64, 2048
# Ways to a loss, the cheapest first, and what the body of a model must take for each.
WAYS = {"split": {"inputs_embeds", "position_ids", "past_key_values"}, "whole": {"inputs_embeds"}}


@dataclass(frozen=True)
class GroundingConfig:
    """Everything that a run depends on, besides model and examples.

    cache_bytes: how much may be kept of what precedes the first new token; 0 keeps nothing.
    micro_tokens: the most live tokens (with padding) in one forward pass; bounds memory, changes no result.
    every: steps between evaluations (geometry; held-out loss where examples are held out); 0 for none.
    patience: evaluations without a better value of `watch` before stopping; None never stops early.
    watch: held_out_loss (least is best) or rsa (most is best); the best rows are what remains.

    Raises:
        InputError: as `LoopConfig`; something else to watch.
    """

    steps: int = 150
    batch: int = 16
    learning_rate: float = 1e-3
    warmup: int = 10
    schedule: str = "constant"
    clip: float = 1.0
    max_tokens: int = 512
    seed: int = 0
    cache_bytes: int = 1 << 30
    micro_tokens: int = 8192
    every: int = 0
    patience: int | None = None
    watch: str = "held_out_loss"

    def __post_init__(self) -> None:
        if self.watch not in WATCHED:
            raise InputError(f"{self.watch!r} cannot be watched: use one of {', '.join(WATCHED)}")
        _ = self.loop  # refuses what the loop cannot run

    @property
    def loop(self) -> LoopConfig:
        """The part that the loop reads."""
        names = LoopConfig.__dataclass_fields__
        return LoopConfig(**{name: getattr(self, name) for name in names})


class Answers:
    """The objective: −log likelihood of answers, with gradients to the new rows alone.

    Three ways to the same number: `split` runs what precedes the first new token apart (see `prefixes`);
    `whole` runs sequences from their start, for models that take no keys and values; `exact` differentiates
    whole matrices, for heads that `new_rows` does not know.
    """

    def __init__(
        self,
        model: "PreTrainedModel",
        rows: NewRows,
        encoded: Sequence[Encoded],
        *,
        way: str,
        pad: int,
        micro_tokens: int,
        prefixes: Prefixes | None = None,
    ):
        self.model, self.rows, self.encoded, self.way = model, rows, encoded, way
        self.pad, self.micro_tokens, self.prefixes = pad, micro_tokens, prefixes

    def supervised(self, indices: Sequence[int]) -> int:
        """The number of answer tokens."""
        return sum(self.encoded[i].supervised for i in indices)

    def updated(self) -> None:
        """Let the model hold the new values."""
        self.rows.materialise(self.model)

    @property
    def side_by_side(self) -> bool:
        """Whether two parts may run at once: `exact` swaps the model's weights while it runs."""
        return self.way != "exact"

    def parts(self, indices: Sequence[int]) -> list[Part]:
        """Micro-batches of similar length, the longest first; enough of them to share among the workers."""
        loss = {"split": self._split, "whole": self._whole, "exact": self._exact}[self.way]
        lengths = [len(e.tail) if self.way == "split" else len(e.ids) for e in (self.encoded[i] for i in indices)]
        count = workers(self.model.device) if self.side_by_side else 1
        groups = shared(lengths, overhead=_overhead(self.model), limit=self.micro_tokens, count=count)
        if self.prefixes is not None:
            self.prefixes.prepare(indices)
        return [partial(loss, [indices[i] for i in group]) for group in groups]

    def _split(self, indices: list[int]) -> Tensor:
        from transformers import DynamicCache

        assert self.prefixes is not None
        examples, prefixes = [self.encoded[i] for i in indices], self.prefixes.get(indices)
        known = torch.cat([p.hidden for p in prefixes])
        next_tokens = [t for e in examples for t in e.ids[min(e.answer - 1, e.live) + 1 : e.live + 1]]
        loss = self.rows.loss(self.model, known, torch.tensor(next_tokens, device=known.device).long())
        if not any(e.tail for e in examples):
            return loss
        batch = collate(examples, pad=self.pad).to(self.model.device)
        states, mask = past(prefixes)
        hidden = self.model.base_model(
            inputs_embeds=self.rows.embed(self.model, batch.ids),
            attention_mask=torch.cat([mask, batch.mask], 1),
            position_ids=batch.positions,
            past_key_values=DynamicCache([(k, v) for k, v in states] if mask.shape[1] else None),
            use_cache=True,
        ).last_hidden_state
        return loss + self.rows.loss(self.model, hidden[batch.supervised], batch.targets)

    def _whole(self, indices: list[int]) -> Tensor:
        batch = collate([self.encoded[i] for i in indices], pad=self.pad, whole=True).to(self.model.device)
        hidden = self.model.base_model(
            inputs_embeds=self.rows.embed(self.model, batch.ids), attention_mask=batch.mask, use_cache=False
        ).last_hidden_state
        return self.rows.loss(self.model, hidden[batch.supervised], batch.targets)

    def _exact(self, indices: list[int]) -> Tensor:
        batch = collate([self.encoded[i] for i in indices], pad=self.pad, whole=True).to(self.model.device)
        where = {"mask": batch.mask, "supervised": batch.supervised, "targets": batch.targets}
        return exact_loss(self.model, self.rows, batch.ids, **where)


def answers(
    model: "PreTrainedModel",
    rows: NewRows,
    encoded: Sequence[Encoded],
    config: GroundingConfig,
    *,
    train_count: int,
    pad: int,
) -> Answers:
    """The cheapest way that agrees with `model(input_ids, labels).loss` on an example of each direction.

    Models differ in what they do around embeddings and head, and in what they hand to their attention; asking the
    model is surer than a list of names. Each way is tried with our attention, then with the model's own, which is
    also what the loss to agree with is taken by.
    """
    takes = inspect.signature(model.base_model.forward).parameters
    common: dict[str, Any] = {"pad": pad, "micro_tokens": config.micro_tokens}
    probe = sorted(range(len(encoded)), key=lambda i: (len(encoded[i].ids), i))
    probe = list({len(encoded[i].tail) > len(encoded[i].ids) // 2: i for i in probe[::-1]}.values())
    sample = [encoded[i] for i in probe]
    exact = Answers(model, rows, sample, way="exact", **common)
    tolerance = 1e-3 if model.dtype == torch.float32 else 3e-2
    own, expected = model.config._attn_implementation, _probed(exact, batch=1)
    budget = {"overhead": _overhead(model), "limit": config.micro_tokens}

    def agrees(way: str) -> bool:
        try:
            prefixes = Prefixes(model, sample, schedule=[], budget=0, **budget) if way == "split" else None
            found = _probed(Answers(model, rows, sample, way=way, prefixes=prefixes, **common), batch=2)
        except Exception as error:  # other caches, other shapes, other arguments: whatever it is, this way does not fit
            log.debug("%s does not run %s: %s", type(model).__name__, way, error)
            return False
        return abs(found / expected - 1) < tolerance

    for attend in (use_constant_past, lambda model: model.set_attn_implementation(own)):
        attend(model)
        for way, needs in WAYS.items():
            if needs <= set(takes) and agrees(way):
                split = way == "split"
                prefixes = _prefixes(model, encoded, config, train_count=train_count) if split else None
                return Answers(model, rows, encoded, way=way, prefixes=prefixes, **common)
    log.warning("%s runs none of the fast ways: grounding takes the slow exact one", type(model).__name__)
    return Answers(model, rows, encoded, way="exact", **common)


@torch.no_grad()
def _probed(objective: Answers, *, batch: int) -> float:
    """The summed loss of the objective's examples, in this process alone: another may fail where it does not."""
    batches = torch.arange(len(objective.encoded)).split(batch)
    return sum(float(part()) for indices in batches for part in objective.parts(indices.tolist()))


def _overhead(model: "PreTrainedModel") -> int:
    return OVERHEAD_CPU if model.device.type == "cpu" else OVERHEAD_GPU


def _prefixes(model: Any, encoded: Sequence[Encoded], config: GroundingConfig, *, train_count: int) -> Prefixes:
    rank, size = world()
    batches = islice(order(train_count, batch=config.batch, seed=config.seed), config.steps)
    held_out = range(train_count, len(encoded))
    asked = chain((batch[rank::size] for batch in batches), [held_out, held_out])
    limits = {"overhead": _overhead(model), "limit": config.micro_tokens}
    return Prefixes(model, encoded, schedule=asked, budget=config.cache_bytes, **limits)


def ground(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    examples: Sequence["Example"],
    config: GroundingConfig,
    *,
    ids: Sequence[int],
    held_out: Sequence["Example"] = (),
    geometry: Callable[[Tensor], dict[str, float]] | None = None,
    saving: Saving | None = None,
    rows: NewRows | None = None,
) -> Iterator[StepRecord]:
    """Train the rows `ids` of `model` on answers alone, one record per step; `model` always holds the result.

    Only the new rows are parameters (float32 masters), so neither weight decay nor momentum nor clipping can
    see any other weight. The loss of a step is summed over its answer tokens and divided by their number.
    `geometry` measures the input rows at evaluations. With `saving`, the run resumes from its newest state.
    `rows` are the new rows of a caller who wants them in float32 afterwards.

    Raises:
        InputError: no examples, or one of them is empty or too long; a state of another run; a loss that is not finite.
    """
    if not examples:
        raise InputError("no examples to ground on: give at least one")
    source = held_out if config.watch == "held_out_loss" else geometry
    if config.patience is not None and not (config.every and source):
        raise InputError(
            f"patience watches {config.watch!r}, which is not measured: "
            "set every (--every) and, for held_out_loss, hold examples out (--hold-out)"
        )
    new, longest = frozenset(ids), most_tokens(model, config.max_tokens)
    encoded = [encode(e, tokenizer, new=new, max_tokens=longest) for e in chain(examples, held_out)]
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0  # masked, so any id will do
    model.eval().requires_grad_(False)
    rows = NewRows(model, ids) if rows is None else rows
    run = run_name(asdict(config), encoded, *rows.masters.values())
    objective = answers(model, rows, encoded, config, train_count=len(examples), pad=pad)
    parameters = list(rows.masters.values())
    begun = saving.newest(run) if saving else None
    best = begun.best if begun else {}

    def exhausted() -> bool:
        return config.patience is not None and bool(best) and best["stale"] >= config.patience

    steps = () if exhausted() else train(objective, parameters, config.loop, count=len(examples), state=begun)
    for record, state in steps:
        if config.every and (record.step % config.every == 0 or record.step == config.steps):
            values = geometry(rows.masters["input"].data) if geometry else {}
            if held_out:
                indices = range(len(examples), len(encoded))
                loss = evaluate(objective, indices, batch=config.batch, device=model.device)
                check_finite("held-out loss", loss, step=record.step)
                values["held_out_loss"] = loss
            record = replace(record, evaluation=values)
            best = _better(best, record, parameters, watch=config.watch)
        state.best = best
        last = record.step == config.steps or exhausted()  # saved, so that a second phase never runs this one again
        if saving and (last or record.step % saving.every == 0) and world()[0] == 0:
            saving.save(state, run)
        yield record
        if last:
            break
    if config.patience is not None and best:
        for parameter, kept in zip(parameters, best["rows"], strict=True):
            parameter.data.copy_(kept)
        objective.updated()


def _better(best: dict, record: StepRecord, parameters: Sequence[Tensor], *, watch: str) -> dict:
    value = record.evaluation.get(watch, math.nan)
    if not math.isfinite(value):
        return best
    sign = -1 if watch.endswith("loss") else 1
    if best and sign * value <= sign * best["value"]:
        return {**best, "stale": best["stale"] + 1}
    return {"value": value, "step": record.step, "stale": 0, "rows": [p.data.clone().cpu() for p in parameters]}


def row_geometry(
    trained: Tensor, *, codebooks: Tensor | None = None, levels: Sequence[int] | None = None
) -> Callable[[Tensor], dict[str, float]]:
    """A function from new rows to their geometry, for the step records.

    effective_rank, effective_rank_centred, dispersion_ratio (to the `trained` rows); with `codebooks`, Pearson
    RSA over all new rows and within each level. A quantity that is undefined for the rows is left out.
    """
    from gti_diag.geometry import dispersion
    from gti_diag.rsa import pearson_rsa
    from gti_diag.spectra import effective_rank, singular_values

    spread = float(dispersion(trained.float()))

    def measure(rows: Tensor) -> dict[str, float]:
        rows = rows.detach().float().cpu()
        measures: dict[str, Callable[[], Any]] = {
            "effective_rank": lambda: effective_rank(singular_values(rows)),
            "effective_rank_centred": lambda: effective_rank(singular_values(rows, centred=True)),
            "dispersion_ratio": lambda: dispersion(rows) / spread,
        }
        if codebooks is not None:
            measures["rsa"] = lambda: pearson_rsa(codebooks, rows)
            numbers = torch.tensor(list(levels or ()))
            for level in numbers.unique().tolist():
                chosen = numbers == level
                measures[f"rsa_level_{level}"] = partial(pearson_rsa, codebooks[chosen], rows[chosen])
        found = {}
        for name, quantity in measures.items():
            try:
                value = float(quantity())
            except ValueError:
                value = math.nan
            if math.isfinite(value):
                found[name] = value
            else:
                log.debug("%s is undefined for these rows", name)
        return found

    return measure


def ground_checkpoint(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    examples: Sequence["Example"],
    config: GroundingConfig,
    held_out: Sequence["Example"] = (),
    dtype: str | torch.dtype | None = None,
    compute: str = "auto",
    progress: Callable[[StepRecord], None] | None = None,
    save_every: int = 0,
    keep: int = 2,
    then: LoopConfig | None = None,
    track: Sequence[Any] = (),
) -> Sidecar:
    """Ground the new tokens of the extended checkpoint `source`; write the result to the directory `out`.

    Weights are computed with in `compute` (auto: bfloat16 where the machine multiplies it fast, else float32), new
    rows learn in float32, and all is written as `dtype`, or else as `source` stores it: what is not a new row is
    read from there again, so it is the same to the bit. `then` runs the paper's second phase, from those weights.

    With `save_every`, states go to `out`.state and a killed run resumes from the newest when it is started again;
    metrics.jsonl (one line per step) ends up beside the weights; trackers that write files write to `out`.logs. Under
    `accelerate launch` or `torchrun` the processes share every batch; the first one writes.

    Raises:
        InputError: as `read_sidecar`, `load_language_model`, `ground`, `check_place` and `check_folder`; patience on
            RSA without codebooks.
    """
    sidecar, codebooks = read_sidecar(source), read_codebooks(source)
    if config.patience is not None and config.watch == "rsa" and codebooks is None:
        raise InputError(
            f"patience watches rsa, but {source} has no codebooks: extend by semantic IDs, or watch another"
        )
    device, out = join_processes(), Path(os.path.abspath(out))
    first, work = world()[0] == 0, out.with_name(out.name + ".state")
    if first:
        check_place(out)
        check_folder(work)
    model, tokenizer, start, stored = _to_compute(source, sidecar.ids, dtype=dtype, compute=compute, device=device)
    rows = NewRows(model, sidecar.ids, start=start)
    trackers = Trackers(track if first else (), folder=out.with_name(out.name + ".logs"), config=asdict(config))
    diary = _Diary(work, trackers, progress, step=_reached(work, config))
    diary.follow(
        ground(
            model,
            tokenizer,
            examples,
            config,
            ids=sidecar.ids,
            held_out=held_out,
            geometry=_geometry(model, tokenizer, sidecar, codebooks) if config.every else None,
            saving=Saving(work, every=save_every, keep=keep) if save_every else None,
            rows=rows,
        )
    )
    attention = model.config._attn_implementation  # the one that was found to agree with the model's own
    del model
    if then is not None:
        model = _grounded(source, rows, dtype=torch.float32).to(device)  # type: ignore[arg-type]
        model.set_attn_implementation(attention)
        saving = Saving(work / SECOND, every=save_every, keep=keep) if save_every else None
        second = unfreeze(model, tokenizer, examples, then, max_tokens=config.max_tokens, saving=saving)
        diary.follow(replace(record, step=record.step + config.steps) for record in second)
        model.to(stored)  # type: ignore[arg-type]
    elif first:
        model = _grounded(source, rows, dtype=stored)
    trackers.close()
    result = replace(sidecar, init="gti", seed=config.seed, parent=str(source), stage="ground", step=diary.step)
    if first:
        with atomic_directory(out) as folder:
            save_extended(model, tokenizer, folder, sidecar=result, codebooks=codebooks)
            shutil.copy(work / METRICS, folder / METRICS)
        clear_folder(work)
    together()
    return result


def _to_compute(
    source: str | os.PathLike[str],
    ids: Sequence[int],
    *,
    dtype: str | torch.dtype | None,
    compute: str,
    device: torch.device,
) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase", dict[str, Tensor], torch.dtype]:
    """The model in the type to compute in, its tokenizer, and rows `ids` and type of the weights as they are kept."""
    model, tokenizer = load_language_model(source, dtype=dtype)
    kept, start = model.dtype, rows_of(model, ids)
    wanted = best_dtype(device) if compute == "auto" else parse_dtype(compute)
    if wanted != kept:  # loaded again, not cast: a cast would take the float32 buffers along (rotary frequencies, …)
        del model
        model = _instead(source, dtype=wanted)
    return model.to(device), tokenizer, start, kept  # type: ignore[arg-type]


def _grounded(source: str | os.PathLike[str], rows: NewRows, *, dtype: torch.dtype) -> "PreTrainedModel":
    """The weights of `source` as they were before they were rounded to compute with, and the new rows."""
    model = _instead(source, dtype=dtype)
    rows.materialise(model)
    return model


def _instead(source: str | os.PathLike[str], *, dtype: torch.dtype) -> "PreTrainedModel":
    """Load a model again, once the one before is really gone: the library leaves it in a cycle of references."""
    gc.collect()
    return load_language_model(source, dtype=dtype)[0]


def _geometry(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", sidecar: Sidecar, codebooks: Tensor | None
) -> Callable[[Tensor], dict[str, float]]:
    matrix = matrices(model)["input"].data
    trained = trained_ids(tokenizer, sidecar.ids, rows=len(matrix)).to(matrix.device)
    return row_geometry(matrix[trained].cpu(), codebooks=codebooks, levels=sidecar.levels)


def _reached(work: Path, config: GroundingConfig) -> int:
    """The step up to which the states in `work` lead."""
    second = newest_step(work / SECOND)
    return config.steps + second if second else newest_step(work)


class _Diary:
    """What is kept of the steps: the last one's number and, in the first process, a line of metrics for each."""

    def __init__(self, work: Path, trackers: Trackers, progress: Callable[[StepRecord], None] | None, *, step: int):
        self.metrics, self.trackers, self.progress, self.step = work / METRICS, trackers, progress, step
        self.begun = False

    def follow(self, records: Iterable[StepRecord]) -> None:
        for record in records:
            self.step = record.step
            if world()[0] != 0:
                continue
            _append(self.metrics, record, first=not self.begun)
            self.begun = True
            self.trackers.log(record)
            if self.progress is not None:
                self.progress(record)


def _append(metrics: Path, record: StepRecord, *, first: bool) -> None:
    metrics.parent.mkdir(parents=True, exist_ok=True)
    if first and metrics.is_file():
        # A resumed run does the steps after its state again: drop their lines, and a half-written last one.
        lines = [line for line in metrics.read_text().splitlines() if line.endswith("}")]
        kept = [line for line in lines if json.loads(line)["step"] < record.step]
        metrics.write_text("".join(line + "\n" for line in kept))
    with metrics.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record.flat()) + "\n")
