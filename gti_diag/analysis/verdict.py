"""collapsed / degenerate / unstructured / healthy: what the measures of the new rows mean, with the evidence.

The verdict reads one matrix of an analysis and nothing else: not the checkpoint, not its file names, not how the rows
were started. Rules are tried from the worst label to the best; the first label with a reason wins.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

FEWEST_FOR_NOISE = 8  # two words look like noise as often as not: any two rows have a centred rank of 1
LABELS = ("collapsed", "degenerate", "unstructured", "healthy")


@dataclass(frozen=True)
class Threshold:
    """A number that decides, and why it is that number."""

    value: float
    why: str


THRESHOLDS = {
    "dispersion_ratio": Threshold(
        0.01,
        "Spread of the new rows as a share of the vocabulary's. Draws of transformers' mean_resizing sit at 3e-5 "
        "(8e-5 after bf16 rounding); the least spread rows that still carried structure, 50 grounding steps after a "
        "mean start, at 0.07. 0.01 is far from both.",
    ),
    "twin_share": Threshold(
        0.1,
        "Share of rows with another row within rounding. Trained vocabularies have almost none outside padding; "
        "a tenth of the codes with a twin is already a tenth of the items confused. The same share of rows within 1 % of the "
        "vocabulary's spread of another: rows started from descriptions, the closest that still differ, keep 1.9 % apart.",
    ),
    "crowded_share": Threshold(
        0.9,
        "Share of the rows with another within 1 % of the vocabulary's spread, from which a tiny spread of the typical row means "
        "collapsed. A group with half of its rows at one point is degenerate; with all but one there, collapsed.",
    ),
    "effective_rank_share": Threshold(
        0.5,
        "Centred effective rank over the least of equally many text rows. Rows grounded for a few dozen steps reach "
        "0.7 or more; sixteen distinct rows repeated 64 times reach about 0.1.",
    ),
    "noise_rank_share": Threshold(
        0.99,
        "Centred effective rank over that of Gaussian noise of the same size. Independent draws reach 1.00; trained "
        "text rows, whose directions differ in weight, stay below.",
    ),
    "rsa_p_value": Threshold(
        0.01,
        "One in a hundred random starts may pass by luck, not one in twenty. Of 1,200 groups without a relation (gaussian rows, "
        "shuffled grounded rows, words; two models) 6 passed the RSA and its p, 5 the levels too. That the interval "
        "exclude 0 is not asked for: it stopped none of the six, and failed starts from descriptions at p = 0.001.",
    ),
    "rsa": Threshold(
        0.05,
        "Least agreement that counts: with thousands of tokens an r of 0.01 is significant and still worthless. "
        "Random starts of 96 tokens stayed under 0.03, the first useful grounding of the trials was at 0.2.",
    ),
    "level_share": Threshold(
        0.5,
        "Share of the levels that must agree with the reference. Over all codes, agreement can come from the levels' own "
        "differences, or from level 1 alone: grounded O*NET codes had 0.17 over all and −0.04, −0.12 on levels 2 and 3.",
    ),
}

ADVICE = {
    None: "Nothing to judge. If tokens were added, name them with --new, or give the original model with --base.",
    "collapsed": "Do not fine-tune from these rows: start them apart (gti-train ground, or at least "
    "gti-train extend --init description) and make sure that the training updates the new rows.",
    "degenerate": "Part of the new tokens cannot be told apart: look for codes that no item uses, rows left out of "
    "training, or a start from too few distinct vectors.",
    "unstructured": "The rows are distinct, but near and far mean nothing yet: ground them in descriptions "
    "(gti-train ground) before fine-tuning, or check that the reference is in token order.",
    "healthy": "No action needed. Keep this analysis as a baseline: gti-diag baseline CKPT -o baseline.json",
}

Reason = dict[str, Any]


def judge(matrix: dict, group: str = "new") -> dict:
    """The verdict on one group of one matrix of an analysis; its `null` and `rsa` must be that group's.

    Returns:
        `{"label", "reasons": [{"measure", "value", "expected", "text"}], "advice"}`; label None when there is no new row.
    """
    new = matrix["groups"].get(group)
    if not new or not new["count"]:
        text = "no new tokens were found, so there is nothing to judge"
        return _verdict(None, [_reason("count", 0, "at least 1", text)])
    for label, rule in (
        ("collapsed", _collapsed),
        ("degenerate", _degenerate),
        ("unstructured", _unstructured),
    ):
        reasons = list(rule(matrix, new))
        if reasons:
            return _verdict(label, reasons)
    return _verdict("healthy", list(_healthy(matrix, new)))


def _verdict(label: str | None, reasons: list[Reason]) -> dict:
    return {"label": label, "reasons": reasons, "advice": ADVICE[label]}


def _reason(measure: str, value: Any, expected: str, text: str) -> Reason:
    return {"measure": measure, "value": value, "expected": expected, "text": text}


def _collapsed(matrix: dict, new: dict) -> Iterator[Reason]:
    limit = THRESHOLDS["dispersion_ratio"].value
    expected = f"at least {limit}"
    if new.get("zero_rows") == new["count"]:
        yield _reason("zero_rows", new["count"], "0", f"all {new['count']:,} new rows are zero")
        return
    if new["count"] == 1:
        distance = new.get("centroid_distance")
        if distance is not None and distance < limit:
            text = f"the one new row lies on the mean of the vocabulary ({distance:.2g} of its spread away)"
            yield _reason("centroid_distance", distance, expected, text)
        return
    if new["unique_rows"] == 1:
        text = f"1 of {new['count']:,} rows is distinct: all new tokens share one vector"
        yield _reason("unique_rows", 1, str(new["count"]), text)
    crowded = (new.get("crowded_rows") or 0) >= THRESHOLDS["crowded_share"].value * new["count"]
    for name, whose, counts in (
        ("dispersion_ratio", "their", True),
        ("median_dispersion_ratio", "the typical row's", crowded),
    ):
        value = new.get(name)
        if counts and value is not None and value < limit:
            text = f"{whose} spread is {_percent(value)} of the vocabulary's: near enough one point"
            yield _reason(name, value, expected, text)
            return
    floor = new.get("precision_floor")
    if floor is not None and new["dispersion"] is not None and new["dispersion"] <= floor:
        text = f"their spread ({new['dispersion']:.2g}) is no more than the rounding of {matrix['dtype']} ({floor:.2g})"
        yield _reason("dispersion", new["dispersion"], f"above {floor:.2g}", text)


def _degenerate(matrix: dict, new: dict) -> Iterator[Reason]:
    most = THRESHOLDS["twin_share"].value
    twins = new.get("near_duplicates")
    if new["count"] > 1 and twins is not None and twins > most * new["count"]:
        text = f"{twins:,} of {new['count']:,} rows have a twin within rounding; {new['unique_rows']:,} are distinct as stored"
        yield _reason("near_duplicates", twins, f"at most {most:.0%} of {new['count']:,}", text)
    crowded = new.get("crowded_rows")
    if new["count"] > 1 and crowded is not None and crowded > max(most * new["count"], twins or 0):
        text = f"{crowded:,} of {new['count']:,} rows lie within 1% of the vocabulary's spread of another"
        yield _reason("crowded_rows", crowded, f"at most {most:.0%} of {new['count']:,}", text)
    band = ((matrix.get("null") or {}).get("measures") or {}).get("effective_rank_centred")
    rank = new.get("effective_rank_centred")
    if band and rank is not None:
        share = THRESHOLDS["effective_rank_share"].value
        if rank < share * band["low"]:
            text = (
                f"the rows vary along few directions: effective rank {rank:.1f}, "
                f"where equally many vocabulary rows have {band['low']:.1f} to {band['high']:.1f}"
            )
            yield _reason("effective_rank_centred", rank, f"at least {share:.0%} of {band['low']:.1f}", text)


def _unstructured(matrix: dict, new: dict) -> Iterator[Reason]:
    rsa = _tested(matrix)
    if rsa is not None:
        if not _related(rsa["pearson"]):
            yield _rsa_reason(rsa, "shows no relation to the reference")
        lost, tested = _levels_without_relation(rsa)
        if tested and len(lost) > (1 - THRESHOLDS["level_share"].value) * tested:
            yield _level_reason(lost, tested)
        return
    noise = (matrix.get("null") or {}).get("isotropic")
    if noise and _looks_isotropic(new, noise):
        energy, band = new["text_subspace_energy"], noise["text_subspace_energy"]
        text = (
            f"the rows fill the space like independent noise: {_percent(energy)} of their spread lies in the "
            f"vocabulary's {noise['axes']} main directions, where chance puts {_percent(band['chance'])}"
        )
        yield _reason("text_subspace_energy", energy, f"above {band['high']:.3g}", text)


def _healthy(matrix: dict, new: dict) -> Iterator[Reason]:
    ratio, distance = new.get("dispersion_ratio"), new.get("centroid_distance")
    if new["count"] == 1 and distance is not None:
        text = f"the one new row lies {distance:.2g} of the vocabulary's spread from its mean"
        limit = THRESHOLDS["dispersion_ratio"].value
        yield _reason("centroid_distance", distance, f"at least {limit}", text)
    elif ratio is not None:
        text = f"{new['unique_rows']:,} of {new['count']:,} rows are distinct, spread {_percent(ratio)} of the vocabulary's"
        yield _reason("dispersion_ratio", ratio, f"at least {THRESHOLDS['dispersion_ratio'].value}", text)
    null = matrix.get("null") or {}
    if new["count"] > 1 and null.get("undefined"):
        yield _reason("effective_rank_centred", None, "a text null", f"their shape was not judged: {null['undefined']}")
    rsa = _tested(matrix)
    if rsa is not None:
        yield _rsa_reason(rsa, "agrees with the reference")
        lost, tested = _levels_without_relation(rsa)
        if lost:
            yield _level_reason(lost, tested)
    else:
        why = "no reference was given (--reference)"
        if untested := matrix.get("rsa"):
            key = "pearson.p_value" if untested["pearson"]["value"] is not None else "pearson.value"
            why = untested["undefined"].get(key, "the reference cannot be compared with")
        yield _reason("rsa", None, "a reference", f"whether near tokens mean near things was not tested: {why}")


def _tested(matrix: dict) -> dict | None:
    """The agreement with a reference, if it could be compared with chance."""
    rsa = matrix.get("rsa")
    if rsa is None or rsa["pearson"]["value"] is None or rsa["pearson"]["p_value"] is None:
        return None
    return rsa


def _related(statistic: dict) -> bool:
    enough, significant = THRESHOLDS["rsa"].value, THRESHOLDS["rsa_p_value"].value
    return statistic["value"] >= enough and statistic["p_value"] < significant


def _rsa_reason(rsa: dict, claim: str) -> Reason:
    pearson = rsa["pearson"]
    interval = "" if pearson["interval"] is None else " [{:.2f}, {:.2f}]".format(*pearson["interval"])
    p_value = "" if pearson["p_value"] is None else f", p = {pearson['p_value']:.3g}"
    text = f"their similarity structure {claim}: RSA {pearson['value']:.2f}{interval}{p_value}"
    least, p = THRESHOLDS["rsa"].value, THRESHOLDS["rsa_p_value"].value
    return _reason("rsa_pearson", pearson["value"], f"at least {least}, p < {p}", text)


def _levels_without_relation(rsa: dict) -> tuple[dict[str, float], int]:
    """Levels on which the agreement is below what counts, and how many levels could be tested."""
    values = {level: found["pearson"]["value"] for level, found in (rsa.get("levels") or {}).items()}
    tested = {level: value for level, value in values.items() if value is not None}
    return {level: value for level, value in tested.items() if value < THRESHOLDS["rsa"].value}, len(tested)


def _level_reason(lost: dict[str, float], tested: int) -> Reason:
    named = ", ".join(f"{level} ({value:.2g})" for level, value in lost.items())
    text = f"on {len(lost)} of {tested} levels they show no relation to the reference: RSA of level {named}"
    return _reason("rsa_pearson", min(lost.values()), f"at least {THRESHOLDS['rsa'].value} on each level", text)


def _looks_isotropic(new: dict, noise: dict) -> bool:
    """Both the spectrum and the place of the rows are those of independent Gaussian noise of their size."""
    rank, energy = new.get("effective_rank_centred"), new.get("text_subspace_energy")
    if new["count"] < FEWEST_FOR_NOISE or rank is None or energy is None:
        return False
    return (
        rank >= THRESHOLDS["noise_rank_share"].value * noise["effective_rank_centred"]["low"]
        and energy <= noise["text_subspace_energy"]["high"]
    )


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.1 else f"{100 * share:.2g}%"
