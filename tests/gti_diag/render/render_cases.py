"""Analyses to draw: the dict of analysis.json computed with numpy from small real rows, for the render tests."""

import numpy as np

WORDS = (
    " the",
    " of",
    "\n",
    " and",
    "kettle",
    " warm",
    "$x$",
    "<b>",
    " café",
    "ing",
    " tent",
    "123",
    " two",
    "|",
    "'s",
    " light",
    " grün",
    "水",
    "\t",
    " antidisestablishmentarianism",
    " shoe",
    "_",
    " %",
    " road",
)
LEVELS, CODES, DIM = 3, 32, 48
STARTS = ("mean", "random", "grounded")


def analysis(
    start: str = "grounded",
    *,
    name: str | None = None,
    step: int | None = None,
    seed: int = 0,
    codes: int = CODES,
):
    """A whole analysis of a checkpoint with `LEVELS × codes` new tokens.

    mean: one point; random: rows unrelated to the codebooks; grounded: rows that follow them.
    """
    random = np.random.default_rng(seed)
    text, codebooks, levels = _world(random, codes)
    new = _rows(start, random, text, codebooks)
    tokens = [f"<{'abcd'[level - 1]}_{i}>" for level in range(1, LEVELS + 1) for i in range(codes)]
    words = [WORDS[i % len(WORDS)] + (str(i) if i >= len(WORDS) else "") for i in range(len(text))]
    matrix = {
        "tensor": "model.embed_tokens.weight",
        "dtype": "bfloat16",
        "shape": [len(text) + len(new), DIM],
        "undefined": {},
        "groups": {"text": _measures(text, text), "new": _measures(new, text)},
        "null": _null(text, len(new), random),
        "panel": _panel(text, new, words, tokens, random),
        "blocks": _blocks(new, tokens, levels, codes),
        "map": _map(text, new, tokens, levels, words),
        "hierarchy": {"levels": {str(k): {"count": codes, **_within(new, levels, k)} for k in range(1, LEVELS + 1)}},
        "neighbours": _neighbours(text, new, words, tokens, levels),
        "rsa": None if start == "mean" else _rsa(new, codebooks, levels, random),
        "drift": None,
        "verdict": VERDICTS[start],
    }
    if start == "mean":
        matrix["undefined"]["rsa"] = "the new rows are one point: their cosines are all 1"
    checkpoint = {
        "path": f"runs/{name or start}",
        "name": name or start,
        "fingerprint": "5f3a" * 16,
        "step": step,
        "format": "safetensors",
        "tied": True,
        "dtype": "bfloat16",
        "notes": ["the head shares the input matrix"],
    }
    return {
        "schema": 1,
        "checkpoint": checkpoint,
        "seed": 0,
        "command": ["gti-diag", "analyze", f"runs/{name or start}"],
        "versions": {"gti_diag": "0.1.0", "torch": "2.13.0", "numpy": "2.4.6"},
        "tokens": {
            "rule": "sidecar gti.json names 96 new tokens",
            "notes": [],
            "groups": {
                "text": {"count": len(text), "levels": None, "level_counts": None},
                "new": {"count": len(new), "levels": LEVELS, "level_counts": [codes] * LEVELS},
            },
        },
        "matrices": {"input": matrix},
    }


def plain(name: str = "SmolLM2"):
    """A checkpoint without new tokens: only the text group is reported."""
    whole = analysis("grounded", name=name)
    matrix = whole["matrices"]["input"]
    del matrix["groups"]["new"]
    whole["tokens"]["groups"].pop("new")
    whole["tokens"]["rule"] = "no new tokens found"
    for part in ("null", "panel", "blocks", "rsa", "drift", "hierarchy", "neighbours"):
        matrix[part] = None
    matrix["map"]["new"] = None
    matrix["verdict"] = {"label": None, "reasons": [], "advice": "there are no new tokens to judge"}
    return whole


VERDICTS = {
    "mean": {
        "label": "collapsed",
        "reasons": [
            {
                "measure": "unique_rows",
                "value": 1,
                "expected": "96",
                "text": "all 96 new rows are the same row",
            },
            {
                "measure": "effective_rank",
                "value": 1.0,
                "expected": "at least 30",
                "text": "the new rows span one direction",
            },
        ],
        "advice": "Start the new tokens from distinct rows, or ground them before fine-tuning.",
    },
    "random": {
        "label": "unstructured",
        "reasons": [
            {
                "measure": "rsa",
                "value": 0.01,
                "expected": "above 0",
                "text": "the rows are unrelated to the codebooks",
            }
        ],
        "advice": "Ground the new tokens: they are distinct but say nothing about their items yet.",
    },
    "grounded": {
        "label": "healthy",
        "reasons": [
            {
                "measure": "dispersion_ratio",
                "value": 0.9,
                "expected": "0.1 to 10",
                "text": "the rows spread like text",
            }
        ],
        "advice": "Nothing to repair.",
    },
}


def _world(random, codes):
    scales = 1 / np.sqrt(np.arange(1, DIM + 1))
    text = random.normal(size=(500, DIM)) * scales + 0.35 * np.eye(DIM)[0]
    centres = random.normal(size=(LEVELS, DIM)) * 0.6 * scales
    codebooks = np.concatenate([random.normal(size=(codes, 16)) / (level + 1) for level in range(LEVELS)])
    levels = np.repeat(np.arange(1, LEVELS + 1), codes)
    lift = random.normal(size=(16, DIM)) * scales * 0.3
    return text, (codebooks, centres, lift), levels


def _rows(start, random, text, world):
    codebooks, centres, lift = world
    n = len(codebooks)
    if start == "mean":
        return np.repeat(text.mean(axis=0, keepdims=True), n, axis=0)
    if start == "random":
        return random.normal(size=(n, DIM)) * text.std()
    noise = random.normal(size=(n, DIM)) * text.std(axis=0) * 0.35
    return text.mean(axis=0) + codebooks @ lift + np.repeat(centres, n // LEVELS, axis=0) + noise


def _spectrum(rows):
    return np.linalg.svd(rows, compute_uv=False)


def _effective_rank(s):
    p = s[s > 0] / s.sum()
    return float(np.exp(-(p * np.log(p)).sum()))


def _cosine(x, y):
    return (x / np.linalg.norm(x, axis=1, keepdims=True)) @ (y / np.linalg.norm(y, axis=1, keepdims=True)).T


def _dispersion(rows):
    return float(np.sqrt(((rows - rows.mean(axis=0)) ** 2).sum(axis=1).mean()))


def _measures(rows, text):
    s, unique = _spectrum(rows), len(np.unique(rows, axis=0))
    if unique == 1:
        s[1:] = 0
    centred = _spectrum(rows - rows.mean(axis=0)) if unique > 1 else np.zeros_like(s)
    norms, n = np.linalg.norm(rows, axis=1), len(rows)
    counts, edges = np.histogram(norms, bins=24)
    cosine = _cosine(rows, rows)
    power = s**2
    spread = _dispersion(rows) if unique > 1 else 0.0
    return {
        "count": n,
        "unique_rows": unique,
        "singular_values": s.tolist(),
        "singular_values_centred": centred.tolist(),
        "effective_rank": _effective_rank(s),
        "effective_rank_centred": _effective_rank(centred) if unique > 1 else None,
        "participation_ratio": float(power.sum() ** 2 / (power**2).sum()),
        "stable_rank": float(power.sum() / power[0]),
        "numerical_rank": int((s > s[0] * 1e-6).sum()),
        "mean_cosine": float((cosine.sum() - n) / (n * (n - 1))),
        "mean_cosine_centred": None,
        "dispersion": spread,
        "dispersion_ratio": spread / _dispersion(text),
        "norm": {
            "mean": norms.mean(),
            "std": norms.std(),
            "min": norms.min(),
            "max": norms.max(),
            "histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
        },
        "undefined": {}
        if unique > 1
        else {"effective_rank_centred": "all rows are identical: nothing is left once centred"},
    }


def _null(text, size, random):
    samples = [_spectrum(text[random.choice(len(text), size, replace=False)]) for _ in range(20)]
    ranks = sorted(_effective_rank(s) for s in samples)
    spectra = np.array(samples)
    return {
        "samples": 20,
        "size": size,
        "measures": {
            "effective_rank": {"low": ranks[0], "median": ranks[10], "high": ranks[-1]},
            "dispersion_ratio": {"low": 0.97, "median": 1.0, "high": 1.03},
        },
        "singular_values": {"low": spectra.min(axis=0).tolist(), "high": spectra.max(axis=0).tolist()},
    }


def _panel(text, new, words, tokens, random):
    some = sorted(random.choice(len(text), 50, replace=False).tolist())
    fresh = np.linspace(0, len(new) - 1, 50).astype(int).tolist()
    rows = np.concatenate([text[some], new[fresh]])
    return {
        "text": {"ids": some, "tokens": [words[i] for i in some]},
        "new": {"ids": [len(text) + i for i in fresh], "tokens": [tokens[i] for i in fresh]},
        "cosine": np.round(_cosine(rows, rows), 4).tolist(),
    }


def _blocks(new, tokens, levels, codes):
    return {
        "labels": tokens,
        "levels": levels.tolist(),
        "bounds": [i * codes for i in range(LEVELS)],
        "tokens_per_cell": 1,
        "cosine": np.round(_cosine(new, new), 4).tolist(),
    }


def _map(text, new, tokens, levels, words):
    both = np.concatenate([text, new])
    centred = both - both.mean(axis=0)
    _, s, axes = np.linalg.svd(centred, full_matrices=False)
    xy = centred @ axes[:2].T
    nearest = [[[words[j], float(row[j])] for j in np.argsort(-row)[:3]] for row in _cosine(new, text)]
    n = len(text)
    return {
        "method": "PCA",
        "explained": (s[:2] ** 2 / (s**2).sum()).tolist(),
        "text": {"ids": list(range(n)), "x": xy[:n, 0].tolist(), "y": xy[:n, 1].tolist()},
        "new": {
            "ids": list(range(n, len(both))),
            "tokens": tokens,
            "levels": levels.tolist(),
            "x": xy[n:, 0].tolist(),
            "y": xy[n:, 1].tolist(),
            "nearest": nearest,
        },
    }


def _within(new, levels, level):
    cosine = _cosine(new, new)
    same = levels == level
    n = int(same.sum())
    return {
        "within": float((cosine[np.ix_(same, same)].sum() - n) / (n * (n - 1))),
        "between": float(cosine[np.ix_(same, ~same)].mean()),
    }


def _neighbours(text, new, words, tokens, levels):
    cosine = _cosine(new, text)
    chosen = range(0, len(new), 8)
    return [
        {
            "token": tokens[i],
            "id": len(text) + i,
            "level": int(levels[i]),
            "nearest": [
                {"token": words[j], "id": int(j), "cosine": float(cosine[i, j])} for j in np.argsort(-cosine[i])[:5]
            ],
        }
        for i in chosen
    ]


def _rsa(new, world, levels, random):
    codebooks = world[0]

    def part(keep):
        x, y = _cosine(new[keep], new[keep]), _cosine(codebooks[keep], codebooks[keep])
        upper = np.triu_indices(len(x), 1)
        entry = {}
        for name, rank in (("pearson", lambda v: v), ("spearman", lambda v: np.argsort(np.argsort(v)))):
            value = float(np.corrcoef(rank(x[upper]), rank(y[upper]))[0, 1])
            half = 1.6 / np.sqrt(len(x)) / 3 + random.uniform(0, 0.01)
            entry[name] = {
                "value": value,
                "interval": [value - half, value + half],
                "p_value": 0.001 if abs(value) > 0.1 else 0.4,
            }
        return {**entry, "rho_a": entry["spearman"]["value"], "pairs": len(upper[0]), "tokens": len(x)}

    return {
        "reference": "codebooks.safetensors",
        **part(levels > 0),
        "levels": {str(k): part(levels == k) for k in (1, 2, 3)},
    }
