"""How long `gti-diag scan` takes, and how much memory: a 151,936 × 1,024 bfloat16 file, and a 70B model's two matrices.

    python reports/benchmarks/scan.py                     writes reports/benchmarks/scan.md; needs 5 GB of disk

The rows are random numbers with a decaying spectrum; in the first file one row is zero and 200 are one cluster.
"""

import argparse
import os
from pathlib import Path

from large import DIM, ROWS, make, timed

HERE = Path(__file__).parent
SHAPE = (151_936, 1024)


def one_file(folder: Path) -> None:
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    scales = 0.1 / torch.arange(1, SHAPE[1] + 1).sqrt()
    mixing = torch.linalg.qr(torch.randn(SHAPE[1], SHAPE[1], generator=generator)).Q
    rows = ((torch.randn(*SHAPE, generator=generator) * scales + 0.02) @ mixing).bfloat16()
    rows[5] = 0
    rows[150_000:150_200] = rows[150_000] * (1 + 1e-3 * torch.randn(200, SHAPE[1], generator=generator)).bfloat16()
    save_file({"model.embed_tokens.weight": rows}, folder / "model.safetensors", metadata={"format": "pt"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/benchmark"))
    work = parser.parse_args().work
    small, large = work / "scan-one-file", work / "llama-70b-shape"
    for folder, maker in ((small, one_file), (large, make)):
        if not folder.is_dir():
            maker(folder)
    lines = [
        "# Scanning every row",
        f"`python reports/benchmarks/scan.py`: whole process, start included; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} when it began.",
        "| matrices | command | seconds | peak memory (MB) |\n|---|---|---:|---:|",
    ]
    for named, folder, runs in ((f"{SHAPE[0]:,} × {SHAPE[1]:,}", small, 3), (f"2 × {ROWS:,} × {DIM:,}", large, 1)):
        seconds, memory = min(timed("scan", str(folder), "--max-memory", "2GB", "--quiet") for _ in range(runs))
        lines[-1] += f"\n| {named} | `gti-diag scan CKPT --max-memory 2GB` | {seconds:.2f} | {memory:,.0f} |"
        print(lines[-1].splitlines()[-1], flush=True)
        (HERE / "scan.md").write_text("\n\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
