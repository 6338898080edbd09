"""Time and memory of spectra, block means and nearest tokens at industrial size, against plain torch, in one run.

    python reports/benchmarks/spectra.py                 # the table below, about two minutes on two cores
    python reports/benchmarks/spectra.py --quick         # small sizes: does it run?

Each job runs in a process of its own, so that its peak memory is its own; jobs of one comparison alternate and the
fastest of the repeats counts. Rows are made by a fixed seed: a mean, and a spectrum that decays like a vocabulary's.
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import time

import torch

SIZES = {"text": 151_936, "new": 24_576, "dim": 1024}
QUICK = {"text": 6_000, "new": 2_000, "dim": 128}


def vocabulary(rows, dim, seed=0):
    """bfloat16 rows, made tile by tile so that making them does not set the peak."""
    generator = torch.Generator().manual_seed(seed)
    scales = 0.1 / torch.arange(1, dim + 1).sqrt()
    mixing = torch.linalg.qr(torch.randn(dim, dim, generator=generator)).Q
    found = torch.empty(rows, dim, dtype=torch.bfloat16)
    for tile in found.split(4096):
        tile.copy_((torch.randn(len(tile), dim, generator=generator) * scales + 0.02) @ mixing)
    return found


def spectrum_ours(size):
    from gti_diag.measures import spectra

    def run(rows):
        moments = spectra.moments(rows)
        return [spectra.singular_values(moments, centred=centred) for centred in (False, True)]

    return vocabulary(size["text"], size["dim"]), run


def spectrum_torch(size):
    return vocabulary(size["text"], size["dim"]), lambda rows: [torch.linalg.svdvals(rows.float())]


def blocks_ours(size):
    from gti_diag.measures import geometry

    cells = torch.arange(size["new"]) * 256 // size["new"]
    return vocabulary(size["new"], size["dim"]).float(), lambda rows: [geometry.block_mean_cosine(rows, cells)]


def blocks_torch(size):
    def run(rows):
        units = torch.nn.functional.normalize(rows, dim=1)
        cells = (units @ units.T).view(256, size["new"] // 256, 256, -1)
        return [cells.mean((1, 3))]

    return vocabulary(size["new"] // 256 * 256, size["dim"]).float(), run


def nearest_ours(size):
    from gti_diag.measures import relation

    text = vocabulary(size["text"], size["dim"])
    return vocabulary(size["new"] // 6, size["dim"], seed=1), lambda rows: [relation.nearest(rows, text, k=10).cosine]


def nearest_torch(size):
    text = vocabulary(size["text"], size["dim"])

    def run(rows):
        keys = torch.nn.functional.normalize(text.float(), dim=1)
        units = torch.nn.functional.normalize(rows.float(), dim=1)
        return [torch.cat([(part @ keys.T).topk(10, dim=1).values for part in units.split(1024)])]

    return vocabulary(size["new"] // 6, size["dim"], seed=1), run


JOBS = {
    "spectrum": (
        spectrum_ours,
        spectrum_torch,
        "text × dim bf16; ours: uncentred and centred, torch: svdvals, uncentred",
    ),
    "block means": (blocks_ours, blocks_torch, "new × dim fp32 in 256 × 256 blocks; torch: the whole cosine matrix"),
    "nearest": (nearest_ours, nearest_torch, "10 nearest of text for a sixth of new; torch: fp32 products, topk"),
}


def measure(job, side, size):
    """Run one job in this process and print its seconds and peak memory."""
    rows, run = JOBS[job][side](size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    run(rows)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"seconds": seconds, "peak": peak / 1024, "added": (peak - before) / 1024}))


def agreement(size):
    """Largest relative difference from float64 svd, for values above the noise, and where the noise lies."""
    from gti_diag.measures import spectra

    rows = vocabulary(size["text"], size["dim"])
    moments, lines = spectra.moments(rows), []
    for centred in (False, True):
        exact = rows.double()
        exact = torch.linalg.svdvals(torch.linalg.qr(exact - exact.mean(0) if centred else exact).R)
        found = spectra.singular_values(moments, centred=centred)
        error = float(((found - exact).abs() / exact)[found > 0].max())
        floor = moments.noise(centred=centred) ** 0.5 / float(exact[0])
        lines.append(
            f"{'centred' if centred else 'uncentred'}: largest relative error {error:.1e} over σ/σ₁ ≥ "
            f"{float(exact[-1] / exact[0]):.1e}; values below {floor:.1e} σ₁ would be reported as 0"
        )
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--job", choices=list(JOBS))
    parser.add_argument("--side", type=int)
    options = parser.parse_args()
    size = QUICK if options.quick else SIZES
    if options.side is not None:
        measure(options.job, options.side, size)
        return
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"text {size['text']:,}, new {size['new']:,}, dim {size['dim']:,}\n")
    print("| job | ours | plain torch | ratio | our peak (added) | torch's peak (added) |\n|---|---|---|---|---|---|")
    for job in [options.job] if options.job else JOBS:
        runs = ([], [])
        for _ in range(options.repeats):
            for side in (0, 1):
                command = [sys.executable, __file__, "--job", job, "--side", str(side)]
                command += ["--quick"] * options.quick
                runs[side].append(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
        best = [min(side, key=lambda run: run["seconds"]) for side in runs]
        cells = [f"{one['peak']:.0f} MB ({one['added']:.0f})" for one in best]
        ratio = best[1]["seconds"] / best[0]["seconds"]
        print(
            f"| {job}: {JOBS[job][2]} | {best[0]['seconds']:.2f} s | {best[1]['seconds']:.2f} s | {ratio:.2f} | "
            f"{cells[0]} | {cells[1]} |",
            flush=True,
        )
    if options.job in (None, "spectrum"):
        print("\nAgreement with float64 svd: " + "; ".join(agreement(size)) + ".")


if __name__ == "__main__":
    main()
