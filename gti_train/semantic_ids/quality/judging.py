"""What the numbers mean: a verdict on each level and on the whole, with cause, action and check."""

from collections.abc import Iterator
from typing import Any

from ..ids import LETTERS

# Each with what it rests on: see reports/sids.
COLLAPSED = 0.02  # perplexity over the size of the level
USE = 0.95  # codes used, of those that so many items can use
EVENNESS = 0.4  # perplexity over that same number
P_VALUE = 0.01  # of a level's coherence against shuffled codes
COMPANY = 20  # items with another under the same prefix, below which nothing is said about their likeness
COLLISIONS = 0.0  # share of items that add no code of their own: the fix costs next to nothing

Reason = dict[str, Any]


def judge_level(level: dict[str, Any], prefix: dict[str, Any]) -> dict[str, Any]:
    """`collapsed`, `starved`, `unstructured` or `healthy`, and why; None for a level that only tells single items apart."""
    for label, rule in (("collapsed", _collapsed), ("starved", _starved), ("unstructured", _unstructured)):
        reasons = list(rule(level, prefix))
        if reasons:
            return {"label": label, "reasons": reasons}
    settled = prefix["depth"] > 1 and prefix["fan_out"]["most"] == 1
    return {"label": None if settled or _company(prefix) < COMPANY else "healthy", "reasons": []}


def judge(document: dict[str, Any]) -> dict[str, Any]:
    """The whole: the worst level, after `shadowed` where items share all their codes."""
    found = document["collisions"]
    reasons = []
    if found["rate"] > COLLISIONS:
        reasons.append(
            {
                "measure": "collisions",
                "value": found["rate"],
                "expected": "0",
                "text": f"{document['items'] - found['distinct']} items have no code of their own: a model cannot say which is meant",
                "cause": "items too alike for the number of levels and codes, or codes made without making them unique",
                "action": "make them unique at the same length: gti-train sids … --unique assign",
                "verify": "collisions.rate is 0 in the next report",
            }
        )
    order = ("collapsed", "starved", "unstructured")
    worst = min(
        (order.index(level["verdict"]["label"]) for level in document["levels"] if level["verdict"]["label"] in order),
        default=None,
    )
    reasons += [reason for level in document["levels"] for reason in level["verdict"]["reasons"]]
    label = "shadowed" if found["rate"] > COLLISIONS else "healthy"
    return {"label": label if worst is None else order[worst], "reasons": reasons}


def _collapsed(level: dict[str, Any], prefix: dict[str, Any]) -> Iterator[Reason]:
    share = level["perplexity"] / level["size"]
    if share < COLLAPSED or level["perplexity"] < 1.5:
        yield {
            "measure": "perplexity",
            "value": level["perplexity"],
            "expected": f"at least {max(COLLAPSED * level['size'], 1.5):.3g}",
            "text": f"level {_name(level)} says almost nothing: its codes are used as {level['perplexity']:.1f} would be evenly",
            "cause": "all residuals are alike there, or the codebook was never reached by a gradient (no k-means start, dead codes)",
            "action": "use fewer levels; for an RQ-VAE, a k-means start and restarts of dead codes (gti-train's has both)",
            "verify": "the level's perplexity rises in the next report, and so does the coherence at its depth",
        }


def _starved(level: dict[str, Any], prefix: dict[str, Any]) -> Iterator[Reason]:
    use, evenness = level["used"] / level["reachable"], level["perplexity"] / level["reachable"]
    if use < USE:
        yield {
            "measure": "used",
            "value": level["used"],
            "expected": f"at least {USE * level['reachable']:.0f} of {level['size']}",
            "text": f"level {_name(level)} leaves {level['size'] - level['used']} of {level['size']} codes unused: their tokens would never be trained",
            "cause": "dead codes that training never chose, or more codes than the items have groups",
            "action": "restart dead codes (gti-train sids --quantiser rq-vae), take residual-kmeans, or ask for fewer codes on this level",
            "verify": f"used is at least {USE * level['reachable']:.0f} on this level in the next report",
        }
    elif evenness < EVENNESS:
        yield {
            "measure": "perplexity",
            "value": level["perplexity"],
            "expected": f"at least {EVENNESS * level['reachable']:.0f}",
            "text": f"level {_name(level)} is used unevenly: {level['largest']} items share its commonest code",
            "cause": "a dense region of near-equal items takes one code, thin regions take the rest",
            "action": "even it out: gti-train sids --quantiser balanced-kmeans, or --unique sinkhorn where it is the last level",
            "verify": f"perplexity is at least {EVENNESS * level['reachable']:.0f} on this level in the next report",
        }


def _unstructured(level: dict[str, Any], prefix: dict[str, Any]) -> Iterator[Reason]:
    found = prefix["coherence"]
    if found is not None and found["p_value"] > P_VALUE and _company(prefix) >= COMPANY:
        low, high = found["interval"]
        yield {
            "measure": "coherence",
            "value": found["value"],
            "expected": f"above what shuffled codes give ({low:.3f} to {high:.3f})",
            "text": f"items that share a code of level {_name(level)} are no more alike than items that do not",
            "cause": "codes that only count or were drawn at random, items in another order than their vectors, or a level with nothing left to say",
            "action": "check that codes and items belong together; otherwise drop this level",
            "verify": "the coherence at this depth lies above its interval in the next report",
        }


def _company(prefix: dict[str, Any]) -> int:
    return round((1 - prefix["alone"]) * prefix["items"])


def _name(level: dict[str, Any]) -> str:
    return f"{level['level']} (<{LETTERS[level['level'] - 1]}_…>)"
