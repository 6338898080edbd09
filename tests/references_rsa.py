"""Literal, slow transcriptions of the definitions behind rsa.py, partial.py and alignment.py: Python floats, loops, no tricks."""

import math
from itertools import combinations, permutations

import numpy as np


def cosine(u, v) -> float:
    product = math.fsum(a * b for a, b in zip(u, v, strict=True))
    return product / math.sqrt(math.fsum(a * a for a in u) * math.fsum(b * b for b in v))


def dissimilarities(rows) -> list[float]:
    """1 - cosine of every pair i < j."""
    rows = [[float(value) for value in row] for row in rows]
    return [1 - cosine(rows[i], rows[j]) for i in range(len(rows)) for j in range(i + 1, len(rows))]


def pearson(first, second) -> float:
    a, b = math.fsum(first) / len(first), math.fsum(second) / len(second)
    product = math.fsum((x - a) * (y - b) for x, y in zip(first, second, strict=True))
    return product / math.sqrt(math.fsum((x - a) ** 2 for x in first) * math.fsum((y - b) ** 2 for y in second))


def midranks(values, *, tie=1e-12) -> list[float]:
    """Rank of a value = how many are smaller + half of how many others are equal + 1."""
    return [
        1 + sum(other < value - tie for other in values) + (sum(abs(other - value) <= tie for other in values) - 1) / 2
        for value in values
    ]


def spearman(first, second) -> float:
    return pearson(midranks(first), midranks(second))


def rho_a(first, second) -> float:
    n = len(first)
    return (
        12
        / (n**3 - n)
        * math.fsum(
            (r - (n + 1) / 2) * (s - (n + 1) / 2) for r, s in zip(midranks(first), midranks(second), strict=True)
        )
    )


def redrawn_pairs(draw, rows) -> list[float]:
    """Dissimilarities of a resample: every pair of drawn places that hold different tokens."""
    rows = [[float(value) for value in row] for row in rows]
    return [
        1 - cosine(rows[draw[i]], rows[draw[j]])
        for i in range(len(draw))
        for j in range(i + 1, len(draw))
        if draw[i] != draw[j]
    ]


def all_orders(labels) -> list[tuple[int, ...]]:
    """Every permutation that puts in each token's place a token of equal label."""
    places = range(len(labels))
    return [order for order in permutations(places) if all(labels[i] == labels[order[i]] for i in places)]


def gram(rows) -> list[list[float]]:
    rows = [[float(value) for value in row] for row in rows]
    return [[math.fsum(a * b for a, b in zip(u, v, strict=True)) for v in rows] for u in rows]


def hsic_biased(k, l) -> float:  # noqa: E741
    """tr(K H L H) with H = I - 11'/n."""
    n = len(k)

    def centre(m):
        means = [math.fsum(row) / n for row in m]
        total = math.fsum(means) / n
        return [[m[i][j] - means[i] - means[j] + total for j in range(n)] for i in range(n)]

    k, l = centre(k), centre(l)  # noqa: E741
    return math.fsum(k[i][j] * l[i][j] for i in range(n) for j in range(n))


def hsic_debiased(k, l) -> float:  # noqa: E741
    """Song et al. 2012, equation 5: diagonals set to zero, nothing re-centred."""
    n = len(k)
    k = [[0 if i == j else k[i][j] for j in range(n)] for i in range(n)]
    l = [[0 if i == j else l[i][j] for j in range(n)] for i in range(n)]  # noqa: E741
    trace = math.fsum(k[i][j] * l[j][i] for i in range(n) for j in range(n))
    sums = math.fsum(map(math.fsum, k)) * math.fsum(map(math.fsum, l)) / ((n - 1) * (n - 2))
    product = math.fsum(k[i][j] * l[j][m] for i in range(n) for j in range(n) for m in range(n)) * 2 / (n - 2)
    return (trace + sums - product) / (n * (n - 3))


def cka(x, y, hsic) -> float:
    k, l = gram(x), gram(y)  # noqa: E741
    return hsic(k, l) / math.sqrt(hsic(k, k) * hsic(l, l))


def neighbourhood_overlap(x, y, k) -> float:
    def nearest(rows, i):
        rows = [[float(value) for value in row] for row in rows]
        others = [j for j in range(len(rows)) if j != i]
        return set(sorted(others, key=lambda j: -cosine(rows[i], rows[j]))[:k])

    return sum(len(nearest(x, i) & nearest(y, i)) for i in range(len(x))) / (k * len(x))


def residuals(values, covariates):
    """What ordinary least squares leaves of `values`, given columns of covariates."""
    design = np.array(covariates, dtype=float).T
    fitted = design @ np.linalg.lstsq(design, np.array(values), rcond=None)[0]
    return np.array(values) - fitted


def covariates(counts, pairs):
    """A constant, and the sum, the absolute difference and the product of log(count + 1)."""
    logs = [math.log(count + 1) for count in counts]
    return [
        [1.0 for _ in pairs],
        [logs[i] + logs[j] for i, j in pairs],
        [abs(logs[i] - logs[j]) for i, j in pairs],
        [logs[i] * logs[j] for i, j in pairs],
    ]


def partial(x, y, counts, levels, apart):
    """Partial correlation of the cosines about level means over pairs, given two levels' mean and the counts."""
    pairs = [(i, j) for i, j in combinations(range(len(levels)), 2) if not (levels[i] in apart and levels[j] in apart)]
    kinds = sorted({tuple(sorted((levels[i], levels[j]))) for i, j in pairs})
    design = [[float(tuple(sorted((levels[i], levels[j]))) == kind) for i, j in pairs] for kind in kinds]
    if counts is not None:
        design += covariates(counts.tolist(), pairs)[1:]
    left = []
    for rows in (x.numpy(), y.numpy()):
        means = {level: rows[[i for i, own in enumerate(levels) if own == level]].mean(0) for level in levels}
        about = [row - means[level] for row, level in zip(rows, levels, strict=True)]
        cosines = [about[i] @ about[j] / math.sqrt((about[i] @ about[i]) * (about[j] @ about[j])) for i, j in pairs]
        left.append(residuals(cosines, design))
    return float(left[0] @ left[1] / math.sqrt((left[0] @ left[0]) * (left[1] @ left[1])))
