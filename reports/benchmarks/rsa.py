"""Agreement between spaces at size, beside the tools people use: `python reports/benchmarks/rsa.py`.

Every row runs in a process of its own, so that its peak memory is its own; ours and the peers see the same rows (float32, 1,024 and
32 wide, sharing a tenth of their variance). A peer that would need more memory than the machine has, or more than --limit seconds, is
listed with that reason.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

NOT_ASKED = {"skipped": "not asked for"}
SIZES = (1024, 4096, 24576)
ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))


def spaces(tokens: int):
    import torch

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(tokens, 1024, generator=generator)
    return x, 0.3 * x[:, :32] + torch.randn(tokens, 32, generator=generator)


def pairs_as_numpy(tokens: int):
    """Condensed cosine dissimilarities in float64, tiled: one large product crashes some OpenBLAS builds."""
    import numpy as np

    out = []
    for rows in spaces(tokens):
        unit = rows.double().numpy()
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        condensed, at = np.empty(tokens * (tokens - 1) // 2), 0
        for start in range(0, tokens, 4096):
            tile = 1 - unit[start : start + 4096] @ unit.T
            for i, row in enumerate(tile):
                length = tokens - start - i - 1
                condensed[at : at + length] = row[start + i + 1 :]
                at += length
        out.append(condensed)
    return out


def toolbox(tokens: int, method: str) -> float:
    from rsatoolbox.data import Dataset
    from rsatoolbox.rdm import calc_rdm, compare

    rows = [space.double().numpy() for space in spaces(tokens)]
    rdms = [calc_rdm(Dataset(space - space.mean(1, keepdims=True)), method="correlation") for space in rows]
    return compare(*rdms, method=method).item()


def numpy_pearson(tokens: int) -> float:
    import numpy as np

    return np.corrcoef(*pairs_as_numpy(tokens))[0, 1]


def numpy_spearman(tokens: int) -> float:
    """Two argsorts in place of rankdata: the shortest plain numpy (no ties here)."""
    import numpy as np

    ranks = []
    for condensed in pairs_as_numpy(tokens):
        rank = np.empty(len(condensed), dtype=np.float64)
        rank[np.argsort(condensed)] = np.arange(len(condensed))
        ranks.append(rank)
    return np.corrcoef(*ranks)[0, 1]


def scipy_spearman(tokens: int) -> float:
    from scipy.stats import spearmanr

    return spearmanr(*pairs_as_numpy(tokens))[0]


def numpy_cka(tokens: int) -> float:
    """Song et al. 2012, equation 5, on n × n kernels."""
    import numpy as np

    def zeroed(rows):
        kernel = np.empty((tokens, tokens))
        for start in range(0, tokens, 4096):
            kernel[start : start + 4096] = rows[start : start + 4096] @ rows.T
        np.fill_diagonal(kernel, 0)
        return kernel

    def hsic(k, l):  # noqa: E741
        ones = np.ones(tokens)
        sums = (ones @ k @ ones) * (ones @ l @ ones) / ((tokens - 1) * (tokens - 2))
        return np.vdot(k, l) + sums - 2 / (tokens - 2) * ((ones @ k) @ (l @ ones))

    k, l = (zeroed(rows.double().numpy()) for rows in spaces(tokens))  # noqa: E741
    return hsic(k, l) / (hsic(k, k) * hsic(l, l)) ** 0.5


def numpy_mantel(tokens: int) -> float:
    """One permutation of a stored matrix of dissimilarities, as scikit-bio does it."""
    import numpy as np
    from scipy.spatial.distance import squareform

    first, second = pairs_as_numpy(tokens)
    second, order = squareform(second), np.random.default_rng(0).permutation(tokens)
    start = time.perf_counter()
    np.corrcoef(first, squareform(second[order][:, order], checks=False))
    return {"seconds": time.perf_counter() - start}


def ours(statistic: str, **options):
    def run(tokens: int) -> float:
        from gti_diag.measures import alignment, rsa

        function = getattr(rsa, statistic, None) or getattr(alignment, statistic)
        return function(*spaces(tokens), **options)

    return run


def our_permutation(statistic: str, draws: int):
    def run(tokens: int) -> dict:
        import torch

        from gti_diag.measures import rsa

        x, y = spaces(tokens)
        times = []
        for permutations in (1, 1 + draws):
            start = time.perf_counter()
            generator = torch.Generator().manual_seed(0)
            rsa.mantel_test(x, y, statistic=getattr(rsa, statistic), permutations=permutations, generator=generator)
            times.append(time.perf_counter() - start)
        return {"seconds": (times[1] - times[0]) / draws}

    return run


def our_interval(statistic: str, samples: int):
    def run(tokens: int) -> float:
        import torch

        from gti_diag.measures import rsa

        generator = torch.Generator().manual_seed(0)
        rsa.rsa_interval(*spaces(tokens), statistic=getattr(rsa, statistic), samples=samples, generator=generator)
        return float("nan")

    return run


# job -> method -> (function, bytes for each pair held at once; None: memory grows with tokens only)
JOBS = {
    "Pearson RSA": {
        "gti-diag": (ours("pearson_rsa"), None),
        "numpy": (numpy_pearson, 24),
        "rsatoolbox": (lambda n: toolbox(n, "corr"), 60),
    },
    "Spearman RSA": {
        "gti-diag": (ours("spearman_rsa"), None),
        "gti-diag, exact": (ours("spearman_rsa", exact=True), 48),
        "numpy": (numpy_spearman, 52),
        "scipy": (scipy_spearman, 90),
        "rsatoolbox": (lambda n: toolbox(n, "spearman"), 90),
    },
    "debiased CKA": {"gti-diag": (ours("linear_cka", debiased=True), None), "numpy": (numpy_cka, 34)},
    "one Mantel permutation, Pearson": {
        "gti-diag": (our_permutation("pearson_rsa", 100), None),
        "numpy": (numpy_mantel, 72),
    },
    "one Mantel permutation, Spearman": {"gti-diag": (our_permutation("spearman_rsa", 60), 40)},
    "interval, 1,000 redraws, Pearson": {"gti-diag": (our_interval("pearson_rsa", 1000), None)},
    "interval, 1,000 redraws, Spearman": {"gti-diag": (our_interval("spearman_rsa", 1000), 80)},
    "Procrustes": {"gti-diag": (ours("procrustes_distance"), None)},
    "10 nearest, overlap": {"gti-diag": (ours("neighbourhood_overlap", k=10), None)},
}


def child(job: str, method: str, tokens: int) -> None:
    import resource

    import gti_diag.measures.alignment
    import gti_diag.measures.rsa  # noqa: F401 - imports are not what is timed

    if method not in ("gti-diag", "gti-diag, exact"):
        import scipy.stats  # noqa: F401
    if method == "rsatoolbox":
        import rsatoolbox.rdm  # noqa: F401
    spaces(tokens)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, worked = time.perf_counter(), time.process_time()
    value = JOBS[job][method][0](tokens)
    seconds, worked = time.perf_counter() - start, time.process_time() - worked
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = value if isinstance(value, dict) else {"value": value, "seconds": seconds, "cpu": worked}
    print(json.dumps(found | {"peak_mb": peak / 1000, "before_mb": before / 1000}))


def measure(job: str, method: str, tokens: int, limit: float) -> dict:
    held = JOBS[job][method][1]
    need = 0 if held is None else held * tokens * (tokens - 1) // 2
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    if need > 0.9 * free:
        return {"skipped": f"needs about {need / 1e9:.0f} GB, {free / 1e9:.0f} GB free"}
    command = [sys.executable, __file__, "--child", job, method, str(tokens)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=limit, env=environment, check=False)
    except subprocess.TimeoutExpired:
        return {"skipped": f"not done after {limit:.0f} s"}
    if run.returncode:
        return {"skipped": f"failed ({run.returncode}): {run.stderr.strip().splitlines()[-1:]}"}
    return json.loads(run.stdout.splitlines()[-1])


def cell(found: dict, own: dict) -> str:
    if "skipped" in found:
        return f"- ({found['skipped']})"
    seconds = found["seconds"]
    shown = f"{seconds:.2f} s" if seconds >= 0.1 else f"{seconds * 1000:.2g} ms"
    if "cpu" in found:
        shown += f" ({found['cpu']:.1f} s of cores)"
    ratio = f", {seconds / own['seconds']:.1f}×" if found is not own and "seconds" in own else ""
    return f"{shown}{ratio}, {found['peak_mb'] / 1000:.2f} GB"


def table(results: dict, sizes: tuple[int, ...]) -> str:
    lines = [
        f"Machine: {os.cpu_count()} cores, {platform.machine()}, {platform.system()}; Python {platform.python_version()}. "
        f"Load before: {os.getloadavg()[0]:.1f}. Cells: wall time (core time), multiple of our wall time, peak memory of the process (imports and input included).",
        "",
        "| job | method | " + " | ".join(f"{size:,}" for size in sizes) + " |",
        "|---|---|" + "---|" * len(sizes),
    ]
    for job, methods in JOBS.items():
        for method in methods:
            if all(results[job, method, size] == NOT_ASKED for size in sizes):
                continue
            cells = [cell(results[job, method, size], results[job, "gti-diag", size]) for size in sizes]
            lines.append(f"| {job} | {method} | " + " | ".join(cells) + " |")
    lines.append("")
    for size in sizes:
        streamed, exact = (results["Spearman RSA", name, size].get("value") for name in ("gti-diag", "gti-diag, exact"))
        if streamed is not None and exact is not None:
            lines.append(
                f"Spearman at {size:,} tokens: {streamed:.12f}, exact {exact:.12f}, apart {abs(streamed - exact):.1e}."
            )
    return "\n".join(lines) + "\n"


def coverage() -> str:
    """How often nominal 95 % intervals hold the population's value, for unrelated spaces and for spaces that share 5 of 12 axes."""
    import torch

    from gti_diag.measures.rsa import pearson_rsa, rsa_interval, spearman_rsa

    torch.set_num_threads(1)

    def drawn(tokens, seed, shared):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(tokens, 12, generator=generator)
        return x, shared * x[:, :5] + torch.randn(tokens, 5, generator=generator)

    lines = ["| statistic | spaces | tokens | trials | coverage | width / ideal |", "|---|---|---|---|---|---|"]
    for statistic in (pearson_rsa, spearman_rsa):
        for shared, spaces_are in ((0.0, "unrelated"), (1.0, "related")):
            truth = statistic(*drawn(6000, 10**6, shared)) if shared else 0.0
            for tokens, trials in ((20, 400), (60, 400), (200, 150)):
                held, widths, values = 0, [], []
                for seed in range(trials):
                    x, y = drawn(tokens, seed, shared)
                    generator = torch.Generator().manual_seed(seed)
                    low, high = rsa_interval(x, y, statistic=statistic, samples=400, generator=generator)
                    held += low <= truth <= high
                    widths.append(high - low)
                    values.append(statistic(x, y))
                ideal = 2 * 1.96 * torch.tensor(values).std().item()
                lines.append(
                    f"| {statistic.__name__} | {spaces_are} | {tokens} | {trials} | {held / trials:.1%} "
                    f"| {sum(widths) / trials / ideal:.2f} |"
                )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--child", nargs=3, metavar=("JOB", "METHOD", "TOKENS"), help=argparse.SUPPRESS)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument(
        "--limit", type=float, default=60, help="seconds for one cell of a peer; ours get three times that"
    )
    parser.add_argument("--only", default="", help="jobs and methods whose 'job: method' contains this")
    parser.add_argument("--coverage", action="store_true", help="check the intervals as well: some minutes more")
    args = parser.parse_args()
    if args.child:
        return child(args.child[0], args.child[1], int(args.child[2]))
    results = {}
    for job, methods in JOBS.items():
        for method in methods:
            for size in args.sizes:
                chosen = args.only in f"{job}: {method}"
                limit = args.limit * (3 if method.startswith("gti-diag") else 1)
                found = measure(job, method, size, limit) if chosen else NOT_ASKED
                results[job, method, size] = found
                if chosen:
                    print(f"{job}: {method}, {size:,}: {found}", file=sys.stderr, flush=True)
    text = table(results, tuple(args.sizes))
    if args.coverage:
        text += "\nNominal 95 % intervals of `rsa_interval`:\n\n" + coverage()
    print(text)


if __name__ == "__main__":
    main()
