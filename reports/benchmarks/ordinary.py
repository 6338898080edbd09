"""The ordinary case: `gti-diag analyze` of some new tokens in a real vocabulary, and of industrial ones, quiet and on a busy machine.

    python reports/benchmarks/ordinary.py --smollm2 BASE [--before PYTHON]      writes ordinary.md

BASE is a SmolLM2-135M checkpoint folder (`gti-train demo` leaves one in runs/demo/base). PYTHON is the interpreter of a virtual
environment that holds another version: every case is then run by both, one after the other. Each run is a process of its own, by
the kernel's accounting, interpreter start included. The new rows carry structure (codes that resemble their reference), so that no
permutation test stops early.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import torch
from analyze import make as make_industrial
from diagnostics import processor
from safetensors.torch import load_file, save_file

HERE = Path(__file__).parent
WIDTH = 288  # of the references
SPIN = "while True: pass"
PYTEST = """
import gti_diag
def test_rows():
    analysis = gti_diag.diagnose({checkpoint!r}, reference={reference!r})
    assert analysis["matrices"]["input"]["verdict"]["label"] == "healthy"
"""


class Cost(NamedTuple):
    wall: float
    processor: float
    memory: float

    def __str__(self) -> str:
        return f"{self.wall:.1f} s / {self.processor:.1f} s / {self.memory:,.0f} MB"


def extended(base: Path, out: Path, per_level: list[int]) -> tuple[Path, Path]:
    """A copy of `base` with new tokens whose rows are a noisy image of their reference; checkpoint and reference."""
    from gti_train.model.vocabulary import extend_checkpoint

    tokens = [f"<{'abcd'[level]}_{code}>" for level, count in enumerate(per_level) for code in range(count)]
    reference = out.with_suffix(".safetensors")
    if out.is_dir() and reference.is_file():
        return out, reference
    ids = extend_checkpoint(base, out, tokens=tokens, init="random").ids
    generator = torch.Generator().manual_seed(0)
    levels = torch.arange(len(per_level)).repeat_interleave(torch.tensor(per_level))
    vectors = torch.randn(len(tokens), WIDTH, generator=generator)
    vectors += torch.randn(len(per_level), WIDTH, generator=generator)[levels]
    stored = load_file(out / "model.safetensors")
    matrix = stored["model.embed_tokens.weight"]
    old = matrix[: min(ids)].float()
    image = vectors @ torch.randn(WIDTH, old.shape[1], generator=generator) / (2 * WIDTH**0.5)
    rows = old.mean(0) + (image + torch.randn(len(tokens), old.shape[1], generator=generator)) * old.std(0) * 0.7
    matrix[torch.tensor(ids)] = rows.to(matrix.dtype)
    save_file(stored, out / "model.safetensors", metadata={"format": "pt"})
    save_file(dict(zip(tokens, vectors.unbind(), strict=True)), reference)
    return out, reference


def cost(command: list[str], *, busy: int = 0, **environment: str) -> Cost:
    load = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(busy)]
    try:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=os.environ | environment, cwd="/")
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
    finally:
        for spinning in load:
            spinning.kill()
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    return Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000)


def cases(work: Path, base: Path) -> dict[str, tuple[list[str], int]]:
    """Name -> arguments of Python, and how many other processes are busy meanwhile."""
    found: dict[str, tuple[list[str], int]] = {}
    shapes = {96: [48, 24, 24], 1024: [256] * 4}
    made = {count: extended(base, work / f"smollm2-{count}", levels) for count, levels in shapes.items()}
    for size, name in ((24_576, "industrial"), (1024, "wide")):
        if not (work / name).is_dir():
            make_industrial(work / name, size)
    analyze = ["-m", "gti_diag", "analyze", "--quiet", "--out", str(work / "out")]
    for count, (checkpoint, reference) in made.items():
        found[f"{count:,} + 49,152 × 576, reference"] = ([*analyze, str(checkpoint), "--reference", str(reference)], 0)
    checkpoint, reference = map(str, made[1024])
    found["1,024 + 49,152 × 576, no reference"] = ([*analyze, checkpoint], 0)
    found["1,024 + 151,936 × 1,024, reference"] = ([*analyze, str(work / "wide")], 0)
    found["24,576 + 151,936 × 1,024, reference"] = ([*analyze, str(work / "industrial")], 0)
    found["1,024 + 49,152 × 576, reference, two busy"] = ([*analyze, checkpoint, "--reference", reference], 2)
    call = f"import gti_diag; gti_diag.diagnose({checkpoint!r}, reference={reference!r})"
    found["the same from Python, quiet"] = (["-c", call], 0)
    found["the same from Python, two busy"] = (["-c", call], 2)
    small, near = map(str, made[96])
    test = work / "test_rows.py"
    test.write_text(PYTEST.format(checkpoint=small, reference=near))
    found["diagnose of 96 tokens inside pytest"] = (["-m", "pytest", "-q", "-p", "no:cacheprovider", str(test)], 0)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smollm2", type=Path, required=True)
    parser.add_argument("--before", help="Python of a virtual environment with the version to compare with")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "gti-ordinary")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    kept = options.work / "results.json"  # a run that was stopped goes on
    results = json.loads(kept.read_text()) if kept.is_file() else {}
    pythons = {"before": options.before, "now": sys.executable} if options.before else {"now": sys.executable}
    for name, (arguments, busy) in cases(options.work.resolve(), options.smollm2.resolve()).items():
        for version, python in pythons.items():
            if f"{name}, {version}" not in results:
                alone = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # other plugins take seconds, and are the environment's
                results[f"{name}, {version}"] = cost([python, *arguments], busy=busy, **alone)
                kept.write_text(json.dumps(results))
                print(f"{name}, {version}: {Cost(*results[f'{name}, {version}'])}", flush=True)
    lines = [
        "# The ordinary case",
        f"`python reports/benchmarks/ordinary.py` on {os.cpu_count()} cores ({processor()}), torch {torch.__version__}. "
        "Whole processes: wall / processor time / peak memory.",
        "| tokens + text rows × dim | before | now | wall, ratio | processor time, ratio |\n|---|---:|---:|---:|---:|",
    ]
    for name in dict.fromkeys(key.rpartition(", ")[0] for key in results):
        now, before = (
            Cost(*results[key]) if (key := f"{name}, {version}") in results else None for version in ("now", "before")
        )
        ratios = (
            f"{before.wall / now.wall:.1f} × | {before.processor / now.processor:.1f} ×" if before and now else "– | –"
        )
        lines[-1] += f"\n| {name} | {before or '–'} | {now} | {ratios} |"
    (HERE / "ordinary.md").write_text("\n\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
