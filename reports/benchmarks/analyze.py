"""A full `gti-diag analyze` of an industrial vocabulary: time, peak memory, and how cost grows with the new tokens.

    python reports/benchmarks/analyze.py                  prints a table; diagnostics.py keeps it

The checkpoint is made on the spot: 151,936 text rows of 1,024 dimensions in bfloat16 with a vocabulary's decaying spectrum, in
two safetensors shards, plus new code tokens on three levels and 32-dimensional codebooks as the reference. Every size is
measured in a process of its own by the kernel's accounting; the largest once more with one core kept busy.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

DIM, TEXT = 1024, 151_936


def make(folder: Path, new: int, text: int = TEXT) -> None:
    """A sharded checkpoint with tokenizer-free token strings from gti.json."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(0)
    scales = torch.arange(1, DIM + 1).float().pow(-0.35)
    rows = torch.empty(text + new, DIM, dtype=torch.bfloat16)
    for part in rows[:text].split(16_384):
        part.copy_(torch.randn(len(part), DIM, generator=generator) * scales + 0.05)
    books = torch.randn(new, 32, generator=generator)
    lift = torch.randn(32, DIM, generator=generator) / 32
    rows[text:] = (books @ lift + 0.3 * torch.randn(new, DIM, generator=generator) * scales).bfloat16()
    levels = [1 + 3 * i // new for i in range(new)]
    tokens = [f"<{'abc'[level - 1]}_{i}>" for i, level in enumerate(levels)]
    names = {"model.embed_tokens.weight": rows, "model.norm.weight": torch.ones(DIM, dtype=torch.bfloat16)}
    index = {}
    for number, (name, tensor) in enumerate(names.items(), 1):
        file = f"model-{number:05}-of-00002.safetensors"
        save_file({name: tensor}, folder / file, metadata={"format": "pt"})
        index[name] = file
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    config = {"model_type": "llama", "vocab_size": text + new, "hidden_size": DIM, "tie_word_embeddings": True}
    (folder / "config.json").write_text(json.dumps(config))
    save_file({"codebooks": books}, folder / "codebooks.safetensors")
    sidecar = {
        "schema": 1, "new_tokens": tokens, "ids": list(range(text, text + new)), "levels": levels, "init": "gti",
        "seed": 0, "parent": "made by the benchmark", "codebooks": "codebooks.safetensors", "stage": "ground", "step": 0,
    }  # fmt: skip
    (folder / "gti.json").write_text(json.dumps(sidecar))


def timed(folder: Path, out: Path) -> tuple[float, float]:
    """Wall seconds and peak resident megabytes of the whole command, interpreter start included."""
    command = [sys.executable, "-m", "gti_diag", "analyze", str(folder), "--out", str(out), "--quiet"]
    start = time.perf_counter()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, f"{' '.join(command)} failed"
    return time.perf_counter() - start, usage.ru_maxrss / 1000


def fitted(points: list[tuple[float, float, float]]) -> str:
    """Least squares of seconds = a + b · text rows + c · new² (new in thousands, text in hundred thousands)."""
    import numpy as np

    new, text, seconds = np.array(points).T
    design = np.stack([np.ones_like(new), text / 1e5, (new / 1e3) ** 2], axis=1)
    (start, rows, pairs), *_ = np.linalg.lstsq(design, seconds, rcond=None)
    worst = float(np.abs(design @ (start, rows, pairs) - seconds).max())
    return (
        f"Cost: {start:.1f} s + {rows:.1f} s for each 100,000 text rows + {1000 * pairs:.0f} ms · (new tokens / 1,000)², "
        f"fitted to the quiet runs; the largest residual is {worst:.1f} s."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/benchmark"))
    parser.add_argument("--sizes", type=int, nargs="+", default=[1024, 4096, 16_384, 24_576])
    options = parser.parse_args()
    print("| new tokens | text rows | machine | seconds | peak memory (MB) |")
    print("|---:|---:|---|---:|---:|", flush=True)
    largest, points = max(options.sizes), []
    cases = [
        (min(options.sizes), TEXT // 4),
        (min(options.sizes), TEXT // 2),
        *((size, TEXT) for size in options.sizes),
    ]
    for size, text in cases:
        folder = options.work / f"ckpt-{size}-{text}"
        if not folder.is_dir():
            make(folder, size, text)
        for busy in (False, True) if size == largest else (False,):
            load = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if busy else None
            seconds, memory = timed(folder, options.work / "out")
            if load is not None:
                load.kill()
            else:
                points.append((size, text, seconds))
            state = "one core busy" if busy else "quiet"
            print(f"| {size:,} | {text:,} | {state} | {seconds:.1f} | {memory:,.0f} |", flush=True)
    print(f"\n{fitted(points)}")
    print(
        f"Full `gti-diag analyze` (default settings, JSON, Markdown and figures) on {os.cpu_count()} cores "
        f"({platform.processor() or platform.machine()}), Python {platform.python_version()}; whole process, start included."
    )


if __name__ == "__main__":
    main()
