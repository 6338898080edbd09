"""What constrained decoding costs a user: `transformers.generate` with three kinds of constraint, and ours.

    python reports/benchmarks/decoding.py --data FOLDER [--users 6] [--out decoding.md]

FOLDER holds items.jsonl ({"item_id", "sid"} a line) and sequences.jsonl ({"user_id", "items"} a line). SmolLM2-135M
comes from its wheel and is extended by the codes, whose rows start with the spread of the vocabulary's: what wins is then
arbitrary, but differs from item to item, and the work is that of a trained model. One process runs the variants user by
user in turn, so that a busy machine slows all alike; peak memory is taken in a process of its own for each variant. What
is measured is kept beside --out, and a run that was stopped goes on there.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as gti-train does; spinning threads stall a busy machine
os.environ.setdefault("TQDM_DISABLE", "1")

import psutil
import torch
from transformers import GenerationConfig, LogitsProcessor

from gti_train.model.loading import installed_model, load_language_model
from gti_train.model.matrices import matrices
from gti_train.model.sequences import prompt_ids
from gti_train.model.vocabulary import extend, start_rows
from gti_train.recommend.bridges import TrieLogitsProcessor, prefix_allowed_tokens_fn
from gti_train.recommend.decoding import Decoder
from gti_train.recommend.prompts import LONGEST, history_prompt
from gti_train.recommend.trie import Trie

WIDTHS = (10, 20, 50)
LEVELS, SIZE = 3, 256
PEERS = ("generate, callback", "generate, dictionary and −1e6", "generate, mask of the vocabulary")
OURS = ("ours, one user", "ours, nothing known", "ours, all users")


class Printed(LogitsProcessor):
    """MiniOneRec's way: a dictionary keyed by the printed prefix, read in a loop over beams, and −1e6 elsewhere."""

    def __init__(self, rows, *, prompt_length):
        self.prompt_length, self.table = prompt_length, {}
        for row in rows:
            for depth in range(LEVELS):
                self.table.setdefault(str(row[:depth]), set()).add(row[depth])

    def __call__(self, input_ids, scores):
        scores = scores.log_softmax(-1)
        mask = torch.full_like(scores, -1e6)
        for beam, ids in enumerate(input_ids):
            mask[beam, sorted(self.table.get(str(ids[self.prompt_length :].tolist()), ()))] = 0
        return scores + mask


def prepare(options: argparse.Namespace):
    items = [json.loads(line) for line in (options.data / "items.jsonl").open(encoding="utf-8")]
    codes = torch.tensor([[int(token.split("_")[1][:-1]) for token in item["sid"]] for item in items])
    names = [f"<{letter}_{code}>" for letter in "abc"[:LEVELS] for code in range(SIZE)]
    model, tokenizer = load_language_model(installed_model(), dtype="float32")
    ids = extend(model, tokenizer, names)
    weight = matrices(model)["input"]
    trained, generator = torch.arange(min(ids)), torch.Generator().manual_seed(0)
    rows = start_rows(weight.data, trained=trained, count=len(ids), init="gaussian", generator=generator)
    weight.data[ids] = rows.to(weight.dtype)
    users = [json.loads(line)["items"] for line in (options.data / "sequences.jsonl").open(encoding="utf-8")]
    histories = [items[:-1][-LONGEST:] for items in users if len(items) > 2]
    chosen = histories[:: max(1, len(histories) // options.users)][: options.users]
    prompts = [
        prompt_ids(history_prompt(["".join(items[item]["sid"]) for item in history]), tokenizer) for history in chosen
    ]
    tokens = torch.tensor(ids).view(LEVELS, SIZE)
    separate = codes.unique(dim=0)  # generate returns sequences of codes, and a few items share theirs
    return model, Trie(separate, list(tokens)), prompts, int(tokenizer.eos_token_id)


def generate(model, prompt, width, end, *, scores, **constraint):
    """Sequences of codes (width × levels) and their scores, nothing read of the model's own generation config."""
    config = GenerationConfig(
        num_beams=width, num_return_sequences=width, max_new_tokens=LEVELS, length_penalty=0.0, do_sample=False,
        pad_token_id=end, eos_token_id=end, return_dict_in_generate=True, output_scores=True,
        renormalize_logits=scores == "items",
    )  # fmt: skip
    ids = torch.tensor([prompt])
    found = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config, **constraint)
    return found.sequences[:, len(prompt) :], found.sequences_scores


def variants(model, trie, end, *, scores):
    """For each way a function of prompts and width: per user, sequences of codes as tokens, and scores."""
    rows = [[int(trie.tokens[level][code]) for level, code in enumerate(row)] for row in codes_of(trie).tolist()]
    printed, decoder = Printed(rows, prompt_length=0), Decoder(model, trie, scores=scores)

    def by_callback(prompt, width):
        callback = prefix_allowed_tokens_fn(trie, prompt_length=len(prompt), end=end)
        return generate(model, prompt, width, end, scores=scores, prefix_allowed_tokens_fn=callback)

    def by_dictionary(prompt, width):
        printed.prompt_length = len(prompt)
        return generate(model, prompt, width, end, scores=scores, logits_processor=[printed])

    def by_mask(prompt, width):
        processor = TrieLogitsProcessor(trie, prompt_length=len(prompt), end=end)
        return generate(model, prompt, width, end, scores=scores, logits_processor=[processor])

    def together(prompts, width):
        items, scores = decoder.decode(prompts, width)
        return [
            (torch.tensor([rows[item] for item in user]), score)
            for user, score in zip(items.tolist(), scores, strict=True)
        ]

    def alone(prompts, width):
        if decoder.way:
            decoder.way.known = ()
        return together(prompts, width)

    def each(way):
        return lambda prompts, width: [way(prompt, width) for prompt in prompts]

    one = lambda prompt, width: together([prompt], width)[0]  # noqa: E731
    ways = dict(zip(PEERS, map(each, (by_callback, by_dictionary, by_mask)), strict=True))
    return ways | dict(zip(OURS, (each(one), alone, together), strict=True)), decoder


def codes_of(trie: Trie) -> torch.Tensor:
    """The codes of each item."""
    codes = torch.empty(len(trie.items), LEVELS, dtype=torch.long)
    nodes = trie.leaf_of
    for depth in range(LEVELS, 0, -1):
        codes[:, depth - 1], nodes = trie.codes[depth][nodes], trie.parents[depth][nodes]
    return codes


class Kept:
    """Measurements by name, each made once: a line of JSON in a file for each."""

    def __init__(self, path: Path):
        self.path, self.found = path, {}
        if path.is_file():
            self.found = dict(map(json.loads, path.read_text(encoding="utf-8").splitlines()))

    def get(self, name: str, make):
        if name not in self.found:
            self.found[name] = make()
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps([name, self.found[name]]) + "\n")
        return self.found[name]


def timed(way, prompts, width) -> dict:
    """What a way finds, and the seconds of wall and processor that it takes a user."""
    began = time.perf_counter(), time.process_time()
    found = way(prompts, width)
    spent = time.perf_counter() - began[0], time.process_time() - began[1]
    lists = [(tokens.tolist(), scores.tolist()) for tokens, scores in found]
    return {"seconds": [value / len(prompts) for value in spent], "lists": lists}


def measure(options: argparse.Namespace, kept: Kept) -> dict:
    model, trie, prompts, end = prepare(options)
    code_of = {int(token): code for tokens in trie.tokens for code, token in enumerate(tokens)}
    body = sum(p.numel() for p in model.parameters()) - matrices(model)["input"].numel()
    results: dict = {
        "tokens": [len(prompt) for prompt in prompts],
        "items": len(trie.items),
        "body": body,
        "inner": sum(trie.count(depth) for depth in range(trie.levels)),
        "tables": {},
    }
    codes = codes_of(trie).tolist()
    for scores, widths, peers in (("vocabulary", WIDTHS, PEERS), ("items", WIDTHS[1:2], PEERS[:1])):
        ways, decoder = variants(model, trie, end, scores=scores)
        exact = [
            kept.get(
                f"{scores}, exact {u}",
                lambda p=p, d=decoder: d.decode([p], max(WIDTHS), exact=True)[0][0].tolist(),
            )
            for u, p in enumerate(prompts)
        ]
        for name in (*peers, *OURS):
            ways[name](prompts[-1:], 2)  # warm; and no user comes after itself
        for width in widths:
            made = turns(kept, {name: ways[name] for name in (*peers, *OURS)}, prompts, width, label=scores)
            lists = {name: [found for one in of for found in one["lists"]] for name, of in made.items()}
            results["tables"][f"{scores} {width}"] = {
                name: {
                    "seconds": statistics.median(one["seconds"][0] for one in of),
                    "cpu_seconds": statistics.median(one["seconds"][1] for one in of),
                    **judged(lists[name], lists[OURS[0]], [row[:width] for row in exact], code_of, codes),
                }
                for name, of in made.items()
            }
    return results


def turns(kept: Kept, ways: dict, prompts: list, width: int, *, label: str) -> dict[str, list[dict]]:
    """What each way finds and takes, user by user in turn, and all users together."""
    made: dict[str, list[dict]] = {name: [] for name in ways}
    for user, prompt in enumerate(prompts):
        for name in (name for name in ways if name != OURS[-1]):
            found = kept.get(f"{label} {width}, {name}, {user}", lambda w=ways[name], p=prompt: timed(w, [p], width))
            made[name].append(found)
    made[OURS[-1]].append(kept.get(f"{label} {width}, {OURS[-1]}", lambda: timed(ways[OURS[-1]], prompts, width)))
    return made


def judged(found, ours, exact, code_of, codes) -> dict:
    """Invalid share, overlap with the exact list, share of users with our list, largest difference of scores."""
    known = set(map(tuple, codes))
    invalid, overlap, same, apart = [], [], [], []
    for (tokens, scores), (our_tokens, our_scores), items in zip(found, ours, exact, strict=True):
        rows = [tuple(code_of.get(token, -1) for token in row) for row in tokens]
        invalid.append(sum(row not in known for row in rows) / len(rows))
        overlap.append(len({tuple(codes[item]) for item in items} & set(rows)) / len(items))
        same.append(tokens == our_tokens)
        apart.append(max(abs(a - b) for a, b in zip(scores, our_scores, strict=True)))
    mean = statistics.mean
    return {"invalid": mean(invalid), "overlap": mean(overlap), "same": mean(same), "apart": max(apart)}


def million() -> dict:
    """The tree of a million items of four levels of 256 random codes."""
    codes = torch.randint(256, (10**6, 4), generator=torch.Generator().manual_seed(0))
    began = time.perf_counter(), time.process_time()
    trie = Trie(codes, [torch.arange(256)] * 4)
    return {"seconds": time.perf_counter() - began[0], "cpu": time.process_time() - began[1], "bytes": trie.nbytes}


def peak(options: argparse.Namespace, name: str) -> float:
    """MiB above the loaded model, in a process of its own, at the widest beam."""
    command = [sys.executable, __file__, "--data", str(options.data), "--users", "1", "--peak", name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def peak_here(options: argparse.Namespace) -> None:
    """Resident memory sampled while a way runs: loading the model has left a higher mark than any of them."""
    model, trie, prompts, end = prepare(options)
    way, process = variants(model, trie, end, scores="vocabulary")[0][options.peak], psutil.Process()
    way(prompts, 2)  # warm
    before, seen, done = process.memory_info().rss, [], threading.Event()

    def sample() -> None:
        while not done.wait(0.005):
            seen.append(process.memory_info().rss)

    watcher = threading.Thread(target=sample)
    watcher.start()
    way(prompts, max(WIDTHS))
    done.set()
    watcher.join()
    print((max(seen) - before) / 2**20)


def report(results: dict, memory: dict[str, float]) -> str:
    tokens = results["tokens"]
    lines = [
        "# What constrained decoding costs a user\n",
        "    python reports/benchmarks/decoding.py --data FOLDER\n",
        f"SmolLM2-135M in float32 on {torch.get_num_threads()} threads, 3 levels of 256 codes, {results['items']:,} sequences "
        f"of them ({results['inner']:,} inner nodes), {len(tokens)} users, prompts of {min(tokens)} to {max(tokens)} tokens (median "
        f"{statistics.median(tokens):.0f}). Median seconds a user, variants in turn; scores are true probabilities among the "
        "vocabulary, for all alike, and in the last table among the codes that may follow (our default; `renormalize_logits` "
        "of `generate`). One user: the beginning that the prompt shares with the one before is known; nothing known: it is "
        "not, as for a first user. Invalid: sequences that are no item. Overlap: with the exact list of the same "
        "length. Same: users whose list is ours, in order. Apart: largest difference of a score at the same rank. MiB: "
        "peak at the widest beam above what a run of width 2 leaves, one user.\n",
    ]
    made = results["million"]
    lines.append(
        f"The tree of a million items (4 levels of 256 codes) takes {made['seconds']:.1f} s ({made['cpu']:.1f} s of "
        f"processor) and {made['bytes'] / 1e6:.0f} MB.\n"
    )
    for label, ways in results["tables"].items():
        scores, width = label.split()[0], int(label.split()[1])
        floor, theirs = (
            statistics.mean(2e-9 * results["body"] * (times * length + (LEVELS - 1) * width) for length in tokens)
            for times in (1, width)
        )
        lines += [f"### K = {width}, scores among the {scores}\n",
                  f"GFLOP a user through the body of the model: {floor:.1f} where each prompt is run once (the floor), "
                  f"{theirs:.1f} where it is run for each beam.\n", "| variant | s/user | CPU s | × ours, one user | invalid | overlap | same | apart | MiB |",
                  "|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
        ours = ways[OURS[0]]["cpu_seconds"]
        for name, r in ways.items():
            lines.append(
                f"| {name} | {r['seconds']:.3f} | {r['cpu_seconds']:.3f} | {r['cpu_seconds'] / ours:.1f} | {r['invalid']:.1%} | "
                f"{r['overlap']:.3f} | {r['same']:.0%} | {r['apart']:.0e} | {memory[name]:.1f} |"
            )
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--users", type=int, default=6)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        return peak_here(options)
    kept = Kept(options.out.with_suffix(".partial.jsonl"))
    with torch.no_grad():
        results = measure(options, kept) | {"million": kept.get("million", million)}
    memory = {name: kept.get(f"peak {name}", lambda name=name: peak(options, name)) for name in (*PEERS, *OURS)}
    options.out.write_text(report(results, memory), encoding="utf-8")
    kept.path.unlink()
    print(options.out.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
