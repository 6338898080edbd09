"""collapsed / degenerate / unstructured / untested / healthy: what the measures of the new rows mean, with the evidence.

The verdict reads one matrix of an analysis and nothing else: not the checkpoint, not its file names, not how the rows
were started. Rules are tried from the worst label to the best; the first label with a reason wins.
"""

from collections.abc import Iterator

from .evidence import evidence
from .remedies import remedies, remedy
from .thresholds import THRESHOLDS, Reason, reason

WIDEN = "gti-train extend --spread 1 widens a start"
FEWEST_FOR_NOISE = 8  # two words look like noise as often as not: any two rows have a centred rank of 1
LABELS = ("collapsed", "degenerate", "unstructured", "untested", "healthy")


ADVICE = {
    None: "Nothing was judged; the scan says how every row is (gti-diag scan CKPT). If tokens were added, name them with --new, or give the original model with --base.",
    "collapsed": "Do not fine-tune from these rows: start them apart (gti-train ground, or at least "
    "gti-train extend --init description --spread 1) and make sure that the training updates the new rows.",
    "degenerate": "Part of the new tokens cannot be told apart: look for codes that no item uses, rows left out of "
    "training, or a start from too few distinct vectors.",
    "unstructured": "The rows are distinct, but near and far mean nothing yet: ground them in descriptions "
    "(gti-train ground) before fine-tuning, or check that the reference is in token order.",
    "untested": "Whether near tokens mean near things is not known: give a reference that covers the new tokens (--reference), "
    "or judge the rows without one.",
    "healthy": "No action needed. Keep this analysis as a baseline: gti-diag baseline CKPT -o baseline.json",
}


def judge(matrix: dict, group: str = "new") -> dict:
    """The verdict on one group of one matrix of an analysis; its `null` and `rsa` must be that group's.

    Returns:
        `{"label", "reasons": [{"measure", "value", "expected", "text", "cause", "action", "verify"}], "advice"}`; label None when there is no new row, or
        nothing to hold the new rows against.
    """
    new = matrix["groups"].get(group)
    if not new or not new["count"]:
        text = "no new tokens were found, so there is nothing to judge"
        return _verdict(None, [reason("count", 0, "at least 1", text)])
    for label, rule in (
        ("collapsed", _collapsed),
        ("degenerate", _degenerate),
        ("unstructured", _unstructured),
        ("untested", _untested),
    ):
        reasons = list(rule(matrix, new))
        if reasons:
            return _verdict(label, reasons)
    compared = new.get("dispersion_ratio") is not None or new.get("centroid_distance") is not None
    if not compared and not matrix.get("rsa"):
        lacking = (
            "the text rows do not vary, and there is" if "dispersion_ratio" in new else "there are no text rows and"
        )
        text = f"{lacking} no reference to hold the new rows against"
        return _verdict(None, [reason("dispersion_ratio", None, "text rows that vary, or a reference", text)])
    return _verdict("healthy", list(_healthy(matrix, new)))


def _verdict(label: str | None, reasons: list[Reason]) -> dict:
    told = [{**found, **_steps(label, found["measure"])} for found in reasons]
    return {"label": label, "reasons": told, "advice": ADVICE[label]}


def _steps(label: str | None, measure: str) -> dict[str, str]:
    """Cause, action and check of a reason: of this label and measure where the table has them, else of the label."""
    name = f"verdict.{label or 'none'}"
    return remedy(f"{name}.{measure}" if f"{name}.{measure}" in remedies() else name, "CKPT")


def _collapsed(matrix: dict, new: dict) -> Iterator[Reason]:
    limit = THRESHOLDS["dispersion_ratio"].value
    expected = f"at least {limit}"
    if new.get("zero_rows") == new["count"]:
        yield reason("zero_rows", new["count"], "0", f"all {new['count']:,} new rows are zero")
        return
    if new["count"] == 1:
        distance = new.get("centroid_distance")
        if distance is not None and distance < limit:
            text = f"the one new row lies on the mean of the vocabulary ({distance:.2g} of its spread away)"
            yield reason("centroid_distance", distance, expected, text)
        return
    if new["unique_rows"] == 1:
        text = f"1 of {new['count']:,} rows is distinct: all new tokens share one vector"
        yield reason("unique_rows", 1, str(new["count"]), text)
    crowded = (new.get("crowded_rows") or 0) >= THRESHOLDS["crowded_share"].value * new["count"]
    for name, whose, counts in (
        ("dispersion_ratio", "their", True),
        ("median_dispersion_ratio", "the typical row's", crowded),
    ):
        value = new.get(name)
        if counts and value is not None and value < limit:
            text = f"{whose} spread is {_percent(value)} of the vocabulary's: near enough one point"
            yield reason(name, value, expected, text)
            return
    floor = new.get("precision_floor")
    if floor is not None and new["dispersion"] is not None and new["dispersion"] <= floor:
        text = f"their spread ({new['dispersion']:.2g}) is no more than the rounding of {matrix['dtype']} ({floor:.2g})"
        yield reason("dispersion", new["dispersion"], f"above {floor:.2g}", text)


def _degenerate(matrix: dict, new: dict) -> Iterator[Reason]:
    most = THRESHOLDS["twin_share"].value
    twins = new.get("near_duplicates")
    if new["count"] > 1 and twins is not None and twins > most * new["count"]:
        text = f"{twins:,} of {new['count']:,} rows have a twin within rounding; {new['unique_rows']:,} are distinct as stored"
        yield reason("near_duplicates", twins, f"at most {most:.0%} of {new['count']:,}", text)
    crowded = new.get("crowded_rows")
    if new["count"] > 1 and crowded is not None and crowded > max(most * new["count"], twins or 0):
        text = f"{crowded:,} of {new['count']:,} rows lie within 1% of the vocabulary's spread of another"
        yield reason("crowded_rows", crowded, f"at most {most:.0%} of {new['count']:,}", text)
    band = ((matrix.get("null") or {}).get("measures") or {}).get("effective_rank_centred")
    rank = new.get("effective_rank_centred")
    if band and rank is not None:
        share = THRESHOLDS["effective_rank_share"].value
        if rank < share * band["low"]:
            text = (
                f"the rows vary along few directions: effective rank {rank:.1f}, "
                f"where equally many vocabulary rows have {band['low']:.1f} to {band['high']:.1f}"
            )
            yield reason("effective_rank_centred", rank, f"at least {share:.0%} of {band['low']:.1f}", text)


def _unstructured(matrix: dict, new: dict) -> Iterator[Reason]:
    found = evidence(matrix.get("rsa"))
    if found is not None and found.outcome != "untested":
        if found.outcome == "unrelated":
            yield from found.reasons
        return
    noise = (matrix.get("null") or {}).get("isotropic")
    if noise and _looks_isotropic(new, noise):
        energy, band = new["text_subspace_energy"], noise["text_subspace_energy"]
        text = (
            f"the rows fill the space like independent noise: {_percent(energy)} of their spread lies in the "
            f"vocabulary's {noise['axes']} main directions, where chance puts {_percent(band['chance'])}"
        )
        yield reason("text_subspace_energy", energy, f"above {band['high']:.3g}", text)


def _untested(matrix: dict, new: dict) -> Iterator[Reason]:
    found = evidence(matrix.get("rsa"))
    if found is not None and found.outcome == "untested":
        yield from found.reasons


def _healthy(matrix: dict, new: dict) -> Iterator[Reason]:
    ratio, distance = new.get("dispersion_ratio"), new.get("centroid_distance")
    if new["count"] == 1 and distance is not None:
        text = f"the one new row lies {distance:.2g} of the vocabulary's spread from its mean"
        limit = THRESHOLDS["dispersion_ratio"].value
        yield reason("centroid_distance", distance, f"at least {limit}", text)
    elif ratio is not None:
        text = f"{new['unique_rows']:,} of {new['count']:,} rows are distinct, spread {_percent(ratio)} of the vocabulary's"
        if ratio < THRESHOLDS["tight"].value:
            text += f": so little that fine-tuning may not tell them apart ({WIDEN})"
        yield reason("dispersion_ratio", ratio, f"at least {THRESHOLDS['dispersion_ratio'].value}", text)
    null = matrix.get("null") or {}
    if new["count"] > 1 and null.get("undefined"):
        yield reason("effective_rank_centred", None, "a text null", f"their shape was not judged: {null['undefined']}")
    found = evidence(matrix.get("rsa"))
    if found is not None:
        yield from found.reasons
    else:
        text = "whether near tokens mean near things was not tested: no reference was given (--reference)"
        yield reason("rsa", None, "a reference", text)


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
