"""The grounding stage: teach new rows their meaning from text while everything else stays frozen."""

import contextlib
import inspect
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
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
from gti_train.batches import Encoded, collate, encode, order, shared
from gti_train.loop import LoopConfig, Part, StepRecord, Trackers, evaluate, join_processes, together, train, world
from gti_train.models import atomic_directory, best_dtype, load_language_model, parse_dtype
from gti_train.new_rows import NewRows, exact_loss
from gti_train.prefixes import Prefixes, past
from gti_train.state import Saving, run_name
from gti_train.unfrozen import unfreeze
from gti_train.vocabulary import (
    Sidecar,
    matrices,
    read_codebooks,
    read_sidecar,
    save_extended,
    trained_ids,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from gti_train.prompts import Example

log = logging.getLogger(__name__)
METRICS = "metrics.jsonl"
# What one more micro-batch costs, in live tokens: reading the weights on a CPU, launching kernels on a GPU.
OVERHEAD_CPU, OVERHEAD_GPU = 64, 2048


@dataclass(frozen=True)
class GroundingConfig:
    """Everything that a run depends on, besides model and examples.

    cache_bytes: how much may be kept of what precedes the first new token; 0 keeps nothing.
    micro_tokens: the most live tokens (with padding) in one forward pass; bounds memory, changes no result.
    every: steps between evaluations (geometry; held-out loss where examples are held out); 0 for none.
    patience: evaluations without a better value of `watch` before stopping; None never stops early.
    watch: held_out_loss (least is best) or rsa (most is best); the best rows are what remains.
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

    Models differ in what they do around embeddings and head; asking the model is surer than a list of names.
    """
    takes = inspect.signature(model.base_model.forward).parameters
    common: dict[str, Any] = {"pad": pad, "micro_tokens": config.micro_tokens}
    probe = sorted(range(len(encoded)), key=lambda i: (len(encoded[i].ids), i))
    probe = list({len(encoded[i].tail) > len(encoded[i].ids) // 2: i for i in probe[::-1]}.values())
    sample = [encoded[i] for i in probe]
    exact = Answers(model, rows, sample, way="exact", **common)
    tolerance = 1e-3 if model.dtype == torch.float32 else 3e-2
    expected = evaluate(exact, range(len(sample)), batch=1)
    budget = {"overhead": _overhead(model), "limit": config.micro_tokens}
    for way, needs in (("split", {"inputs_embeds", "position_ids", "past_key_values"}), ("whole", {"inputs_embeds"})):
        if not needs <= set(takes):
            continue
        prefixes = Prefixes(model, sample, schedule=[], budget=0, **budget) if way == "split" else None
        trial = Answers(model, rows, sample, way=way, prefixes=prefixes, **common)
        if abs(evaluate(trial, range(len(sample)), batch=2) / expected - 1) < tolerance:
            if way == "split":
                prefixes = _prefixes(model, encoded, config, train_count=train_count)
            return Answers(model, rows, encoded, way=way, prefixes=prefixes, **common)
    log.warning("%s has an unknown head: grounding takes the slow exact path", type(model).__name__)
    return Answers(model, rows, encoded, way="exact", **common)


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
) -> Iterator[StepRecord]:
    """Train the rows `ids` of `model` on answers alone, one record per step; `model` always holds the result.

    Only the new rows are parameters (float32 masters), so neither weight decay nor momentum nor clipping can
    see any other weight. The loss of a step is summed over its answer tokens and divided by their number.
    `geometry` measures the input rows at evaluations. With `saving`, the run resumes from its newest state.

    Raises:
        InputError: no examples, or one of them is empty or too long; a state of another run.
    """
    if not examples:
        raise InputError("no examples to ground on: give at least one")
    source = held_out if config.watch == "held_out_loss" else geometry
    if config.patience is not None and not (config.every and source):
        raise InputError(f"patience watches {config.watch!r}, which is not measured: set `every` and its source")
    new = frozenset(ids)
    encoded = [encode(e, tokenizer, new=new, max_tokens=config.max_tokens) for e in chain(examples, held_out)]
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0  # masked, so any id will do
    model.eval().requires_grad_(False)
    use_constant_past(model)
    rows = NewRows(model, ids)
    run = run_name(asdict(config), encoded, *rows.masters.values())
    objective = answers(model, rows, encoded, config, train_count=len(examples), pad=pad)
    parameters = list(rows.masters.values())
    begun = saving.newest(run) if saving else None
    best = begun.best if begun else {}
    for record, state in train(objective, parameters, config.loop, count=len(examples), state=begun):
        if config.every and (record.step % config.every == 0 or record.step == config.steps):
            values = geometry(rows.masters["input"].data) if geometry else {}
            if held_out:
                indices = range(len(examples), len(encoded))
                values["held_out_loss"] = evaluate(objective, indices, batch=config.batch)
            record = replace(record, evaluation=values)
            best = _better(best, record, parameters, watch=config.watch)
        state.best = best
        if saving and record.step % saving.every == 0 and world()[0] == 0:
            saving.save(state, run)
        yield record
        if config.patience is not None and best and best["stale"] >= config.patience:
            break
    if config.patience is not None and best:
        for parameter, kept in zip(parameters, best["rows"], strict=True):
            parameter.data.copy_(kept)
        objective.updated()


def _better(best: dict, record: StepRecord, parameters: Sequence[Tensor], *, watch: str) -> dict:
    if watch not in record.evaluation:
        return best
    value = record.evaluation[watch]
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
                found[name] = float(quantity())
            except ValueError:
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
    dtype: str | torch.dtype = torch.bfloat16,
    compute: str = "auto",
    progress: Callable[[StepRecord], None] | None = None,
    save_every: int = 0,
    keep: int = 2,
    then: LoopConfig | None = None,
    track: Sequence[str] = (),
) -> Sidecar:
    """Ground the new tokens of the extended checkpoint `source`; write the result to the directory `out`.

    Weights are stored as `dtype` and computed in `compute` (auto: bfloat16 where the machine multiplies it
    fast, else float32). With `save_every`, states go to `out`.state and a killed run resumes from the newest;
    metrics.jsonl (one line per step) ends up beside the weights. `then` runs the paper's second phase. Under `accelerate launch` or `torchrun` the
    processes share every batch; the first one writes.

    Raises:
        InputError: as `read_sidecar`, `load_language_model`, `ground` and `atomic_directory`.
    """
    sidecar, codebooks = read_sidecar(source), read_codebooks(source)
    device = join_processes()
    first = world()[0] == 0
    work = Path(out).with_name(Path(out).name + ".state")
    result = sidecar
    # The place of the result is claimed before hours are spent on it.
    with atomic_directory(out) if first else contextlib.nullcontext() as folder:
        model, tokenizer = load_language_model(source, dtype=best_dtype(device) if compute == "auto" else compute)
        model.to(device)  # type: ignore[arg-type]
        matrix = matrices(model)["input"].data
        trained = matrix[trained_ids(tokenizer, sidecar.ids, rows=len(matrix)).to(device)].cpu()
        records = ground(
            model,
            tokenizer,
            examples,
            config,
            ids=sidecar.ids,
            held_out=held_out,
            geometry=row_geometry(trained, codebooks=codebooks, levels=sidecar.levels) if config.every else None,
            saving=Saving(work, every=save_every, keep=keep) if save_every else None,
        )
        if then is not None:
            saving = Saving(work / "unfrozen", every=save_every, keep=keep) if save_every else None
            second = unfreeze(model, tokenizer, examples, then, max_tokens=config.max_tokens, saving=saving)
            records = chain(records, (replace(r, step=r.step + config.steps) for r in second))
        trackers = Trackers(track if first else (), folder=work, config=asdict(config))
        for number, record in enumerate(records):
            result = replace(
                sidecar, init="gti", seed=config.seed, parent=str(source), stage="ground", step=record.step
            )
            if first:
                _append(work / METRICS, record, first=number == 0)
                trackers.log(record)
                if progress is not None:
                    progress(record)
        trackers.close()
        if folder is not None:
            model.to(parse_dtype(dtype))  # type: ignore[arg-type]
            save_extended(model, tokenizer, folder, sidecar=result, codebooks=codebooks)
            shutil.copy(work / METRICS, folder / METRICS)
    if first:
        shutil.rmtree(work)
    together()
    return result


def _append(metrics: Path, record: StepRecord, *, first: bool) -> None:
    metrics.parent.mkdir(parents=True, exist_ok=True)
    if first and metrics.is_file():
        # A resumed run does the steps after its state again: drop their lines, and a half-written last one.
        lines = [line for line in metrics.read_text().splitlines() if line.endswith("}")]
        kept = [line for line in lines if json.loads(line)["step"] < record.step]
        metrics.write_text("".join(line + "\n" for line in kept))
    with metrics.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record.flat()) + "\n")
