"""The definitions once more, literally: loops over pairs and float64, no closed forms. Slow and short."""

import math
import statistics

import numpy as np


def singular_values(rows, centred=False):
    rows = np.asarray(rows, dtype=np.float64)
    return np.linalg.svd(rows - rows.mean(0) if centred else rows, compute_uv=False)


def entropy_rank(weights):
    entropy = 0.0
    for weight in weights:
        p = weight / sum(weights)
        entropy -= p * math.log(p) if p > 0 else 0.0
    return math.exp(entropy)


def rankme(s, epsilon):
    p = [value / sum(s) + epsilon for value in s]
    return math.exp(-sum(q * math.log(q) for q in p))


def participation_ratio(s):
    return sum(v**2 for v in s) ** 2 / sum(v**4 for v in s)


def stable_rank(s):
    return sum(v**2 for v in s) / max(s) ** 2


def components_for(s, share):
    energies = sorted((v**2 for v in s), reverse=True)
    for k in range(1, len(energies) + 1):
        if sum(energies[:k]) >= share * sum(energies):
            return k


def cosine(x, y):
    return float(np.dot(x, y) / (np.linalg.norm(x) * np.linalg.norm(y)))


def mean_cosine(rows):
    n = len(rows)
    return sum(cosine(rows[i], rows[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))


def block_mean_cosine(rows, blocks, a, b):
    pairs = [
        cosine(rows[i], rows[j])
        for i in range(len(rows))
        for j in range(len(rows))
        if i != j and blocks[i] == a and blocks[j] == b
    ]
    return sum(pairs) / len(pairs)


def dispersion(rows):
    centre = rows.mean(0)
    return math.sqrt(sum(np.linalg.norm(row - centre) ** 2 for row in rows) / len(rows))


def median_dispersion(rows):
    middle = np.array([statistics.median(column) for column in rows.T])
    return statistics.median(np.linalg.norm(row - middle) for row in rows)


def isoscore(rows):
    """Rudman et al. 2022, algorithm 1, step by step."""
    d = rows.shape[1]
    variances = np.linalg.eigvalsh(np.cov(rows.T))
    normalised = math.sqrt(d) * variances / np.linalg.norm(variances)
    defect = np.linalg.norm(normalised - 1) / math.sqrt(2 * (d - math.sqrt(d)))
    return ((d - defect**2 * (d - math.sqrt(d))) ** 2 - d) / (d * (d - 1))


def uniformity(rows, temperature):
    unit = [row / np.linalg.norm(row) for row in rows]
    n = len(unit)
    terms = [math.exp(-temperature * np.linalg.norm(unit[i] - unit[j]) ** 2) for i in range(n) for j in range(i + 1, n)]
    return math.log(sum(terms) / len(terms))


def neighbours(rows, k):
    """Numbers of the k nearest other rows of each."""
    order = [sorted((np.linalg.norm(x - y), j) for j, y in enumerate(rows) if j != i) for i, x in enumerate(rows)]
    return [[j for _, j in row[:k]] for row in order]


def two_nn(rows, discard=0.1):
    n, ratios = len(rows), []
    for i, x in enumerate(rows):
        distances = sorted(np.linalg.norm(x - y) for j, y in enumerate(rows) if j != i)
        ratios.append(distances[1] / distances[0])
    ratios = sorted(ratios)[: int(n * (1 - discard))]
    x = [math.log(mu) for mu in ratios]
    y = [-math.log(1 - (i + 1) / n) for i in range(len(ratios))]
    return sum(a * b for a, b in zip(x, y, strict=True)) / sum(a * a for a in x)


def hubness(rows, k):
    counts = [0] * len(rows)
    for chosen in neighbours(rows, k):
        for j in chosen:
            counts[j] += 1
    mean = sum(counts) / len(counts)
    variance = sum((c - mean) ** 2 for c in counts) / len(counts)
    return sum((c - mean) ** 3 for c in counts) / len(counts) / variance**1.5


def silhouette(rows, levels):
    values = []
    for i, x in enumerate(rows):
        distance = {}
        for level in set(levels):
            others = [1 - cosine(x, rows[j]) for j in range(len(rows)) if j != i and levels[j] == level]
            distance[level] = sum(others) / len(others) if others else None
        a, b = distance[levels[i]], min(v for level, v in distance.items() if level != levels[i])
        values.append(0.0 if a is None else (b - a) / max(a, b))
    return values


def shared_depth(items, level, s, t):
    """Mean over items with s and items with t at this level of the length of the prefix they share."""
    total = pairs = 0
    for one in items:
        for other in items:
            if one[level - 1] == s and other[level - 1] == t:
                pairs += 1
                for q in range(level - 1):
                    if one[q] != other[q]:
                        break
                    total += 1
    return total / pairs


def mahalanobis(rows, mean, covariance):
    inverse = np.linalg.inv(covariance)
    return [math.sqrt((row - mean) @ inverse @ (row - mean)) for row in rows]
