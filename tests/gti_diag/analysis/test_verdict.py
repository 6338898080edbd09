"""Each rule of the verdict on its own: the measures in, label and evidence out."""

import copy
import re

import pytest

from gti_diag.analysis.verdict import ADVICE, LABELS, THRESHOLDS, judge

HEALTHY = {
    "dtype": "bfloat16",
    "groups": {
        "new": {
            "count": 100, "unique_rows": 100, "near_duplicates": 0, "zero_rows": 0, "dispersion": 0.3,
            "dispersion_ratio": 0.3, "median_dispersion_ratio": 0.3, "precision_floor": 1e-4,
            "effective_rank_centred": 60.0, "text_subspace_energy": 0.4, "centroid_distance": 0.5,
        }
    },
    "null": {
        "measures": {"effective_rank_centred": {"low": 70.0, "median": 72.0, "high": 74.0}},
        "isotropic": {
            "axes": 20,
            "effective_rank_centred": {"low": 90.0, "high": 91.0},
            "text_subspace_energy": {"low": 0.19, "chance": 0.2, "high": 0.21},
        },
    },
    "rsa": None,
}  # fmt: skip


def statistic(value, p_value=0.001):
    return {"value": value, "interval": None if value is None else [value - 0.1, value + 0.1], "p_value": p_value}


def agreement(value=0.3, p_value=0.001, *, levels=(), beyond=(), dropped=0, **more):
    """The parts of `rsa` that a verdict reads: of 100 tokens, `dropped` left out; levels and tests as (value, p)."""
    tokens = (100 - dropped) // max(1, len(levels))
    return {
        "read": "centred",
        "reference_name": "reference",
        "tokens": 100 - dropped,
        "dropped_zero_rows": dropped,
        "dropped": [f"<a_{n}>" for n in range(dropped)][:20],
        "centred": statistic(value, p_value),
        "undefined": {},
        "levels": {
            str(n): {"tokens": tokens, "dropped_zero_rows": 0, "centred": statistic(*found), "undefined": {}}
            for n, found in enumerate(levels, 1)
        },
        "beyond": [{"apart": [n], "value": v, "p_value": p} for n, (v, p) in enumerate(beyond, 1)],
        **more,
    }


def matrix(rsa="as is", **changes):
    made = copy.deepcopy(HEALTHY)
    made["groups"]["new"] |= changes
    made["rsa"] = agreement() if rsa == "as is" else rsa
    return made


def test_a_healthy_matrix_is_healthy_and_says_why():
    found = judge(matrix())
    assert found["label"] == "healthy" and found["advice"] == ADVICE["healthy"]
    assert {reason["measure"] for reason in found["reasons"]} == {"dispersion_ratio", "rsa_centred"}


@pytest.mark.parametrize("spread, warned", [(0.07, True), (0.0999, True), (0.1, False), (0.27, False)])
def test_healthy_rows_that_are_close_together_come_with_a_warning(spread, warned):
    found = judge(matrix(dispersion_ratio=spread, median_dispersion_ratio=spread))
    text = next(reason["text"] for reason in found["reasons"] if reason["measure"] == "dispersion_ratio")
    assert found["label"] == "healthy" and ("--spread 1" in text) is warned


def test_without_a_reference_healthy_admits_what_was_not_tested():
    found = judge(matrix(rsa=None))
    assert found["label"] == "healthy" and "was not tested" in found["reasons"][-1]["text"]


@pytest.mark.parametrize(
    "changes,measure",
    [
        ({"unique_rows": 1, "dispersion_ratio": 0.0}, "unique_rows"),
        ({"dispersion_ratio": 3e-5}, "dispersion_ratio"),
        ({"dispersion_ratio": 1.4, "median_dispersion_ratio": 0.0, "crowded_rows": 99}, "median_dispersion_ratio"),
        ({"zero_rows": 100}, "zero_rows"),
        ({"dispersion": 5e-5, "precision_floor": 1e-4}, "dispersion"),
        ({"count": 1, "centroid_distance": 0.001}, "centroid_distance"),
    ],
)
def test_collapsed(changes, measure):
    found = judge(matrix(**changes))
    assert found["label"] == "collapsed" and measure in [reason["measure"] for reason in found["reasons"]]


@pytest.mark.parametrize(
    "changes,measure",
    [
        ({"near_duplicates": 100, "unique_rows": 16}, "near_duplicates"),
        ({"crowded_rows": 30}, "crowded_rows"),
        ({"median_dispersion_ratio": 0.0, "crowded_rows": 60}, "crowded_rows"),
        ({"effective_rank_centred": 30.0}, "effective_rank_centred"),
    ],
)
def test_degenerate(changes, measure):
    found = judge(matrix(**changes))
    assert found["label"] == "degenerate" and found["reasons"][0]["measure"] == measure


@pytest.mark.parametrize("found", [(0.01, 0.3), (0.12, 0.02), (0.04, 0.001), (-0.3, 1.0)])
def test_unstructured_by_reference(found):
    found = judge(matrix(rsa=agreement(*found)))
    assert found["label"] == "unstructured" and "centred RSA" in found["reasons"][0]["text"]


def test_a_weak_but_sure_agreement_counts():
    assert judge(matrix(rsa=agreement(0.06, 0.009)))["label"] == "healthy"


def test_agreement_that_could_not_be_compared_with_chance_is_no_evidence():
    rsa = agreement(1.0, None, undefined={"centred.p_value": "about 35 arrangements of the tokens differ"})
    found = judge(matrix(rsa=rsa))
    assert found["label"] == "untested"
    assert "not tested" in found["reasons"][0]["text"] and "35 arrangements" in found["reasons"][0]["text"]
    noise = {"effective_rank_centred": 90.5, "text_subspace_energy": 0.2}
    assert judge(matrix(rsa=rsa, **noise))["label"] == "unstructured"


def test_tokens_left_out_are_named_and_too_many_leave_nothing_tested():
    few = judge(matrix(rsa=agreement(dropped=12)))
    assert few["label"] == "healthy"
    said = few["reasons"][-1]["text"]
    assert (
        said
        == "12 of 100 tokens were not compared, a zero row or no vector: <a_0>, <a_1>, <a_2>, <a_3>, <a_4> and 7 more"
    )
    many = judge(matrix(rsa=agreement(0.9, dropped=60)))
    assert many["label"] == "untested" and "40 of 100 tokens have a row and a vector" in many["reasons"][0]["text"]


def test_what_counts_are_known_for_is_read_with_counts_held():
    held = {"read": "counts_held", "counts_held": statistic(0.02, 0.4), "reference_name": "item_means"}
    found = judge(matrix(rsa=agreement(0.4) | held))
    assert found["label"] == "unstructured"
    assert "the means of their items: RSA with counts held 0.02" in found["reasons"][0]["text"]


def test_a_text_null_that_could_not_be_drawn_is_told():
    made = matrix()
    made["null"] = {"measures": {}, "undefined": "the vocabulary has 50 rows"}
    assert any("50 rows" in reason["text"] for reason in judge(made)["reasons"])


def test_few_rows_are_never_noise():
    few = {"count": 3, "unique_rows": 3, "effective_rank_centred": 91.0, "text_subspace_energy": 0.2}
    assert judge(matrix(rsa=None, **few))["label"] == "healthy"


def test_unstructured_by_noise_needs_both_spectrum_and_directions():
    noise = {"effective_rank_centred": 90.5, "text_subspace_energy": 0.2}
    assert judge(matrix(rsa=None, **noise))["label"] == "unstructured"
    assert judge(matrix(rsa=None, **noise | {"text_subspace_energy": 0.3}))["label"] == "healthy"
    assert judge(matrix(rsa=None, **noise | {"effective_rank_centred": 80.0}))["label"] == "healthy"


def test_one_distinct_new_row_is_not_called_collapsed():
    one = {"count": 1, "unique_rows": 1, "dispersion": 0.0, "dispersion_ratio": 0.0, "effective_rank_centred": None}
    found = judge(matrix(rsa=None, **one))
    assert found["label"] == "healthy" and found["reasons"][0]["measure"] == "centroid_distance"


def test_worse_labels_win():
    both = {"dispersion_ratio": 0.001, "near_duplicates": 100}
    assert judge(matrix(rsa=agreement(0.0, 0.5), **both))["label"] == "collapsed"


def test_nothing_new_is_no_verdict():
    found = judge({"groups": {"text": {"count": 5}}})
    assert found["label"] is None and "no new tokens" in found["reasons"][0]["text"]


def test_every_label_has_advice_and_every_threshold_its_reason():
    assert set(ADVICE) == {None, *LABELS} and all(len(threshold.why) > 40 for threshold in THRESHOLDS.values())


SURE = (0.3, 0.001)


@pytest.mark.parametrize(
    "levels,beyond,label,said",
    [
        ([SURE, (-0.04, 0.8), (-0.12, 0.9)], [SURE] * 3, "unstructured", r"on 2 of 3 levels .* level 2 \(-0.04\), 3 \(-0.12\)"),
        ([SURE, SURE, (-0.12, 0.9)], [SURE] * 3, "healthy", "on 1 of 3 levels"),
        ([SURE, (0.047, 0.1), (0.01, 0.4)], [SURE] * 3, "unstructured", r"level 2 \(0.047\), 3 \(0.01\)"),
        ([SURE, (0.2, 0.2), (0.2, 0.2)], [(0.1, 0.2), SURE, SURE], "unstructured", "p = 0.2 beyond level 1"),
        ([SURE, (0.2, 0.04), (0.2, 0.04)], [(0.1, 0.009), SURE, SURE], "healthy", "p = 0.009 beyond level 1"),
        ([SURE, (None, None), (0.2, 0.01)], [SURE, SURE], "healthy", "level 2 was not tested"),
        ([SURE, (None, None), (None, None)], [], "untested", "level 3 was not tested"),
        ([SURE, (None, None), (0.01, 0.4)], [SURE, SURE], "untested", "level 2 was not tested"),
        ([SURE, SURE, SURE], [{"none": 1}], "untested", "nothing is left"),
    ],
)  # fmt: skip
def test_agreement_on_level_one_alone_is_no_structure(levels, beyond, label, said):
    if isinstance(beyond[-1] if beyond else None, dict):
        rsa = agreement(levels=levels, beyond=[(None, None)])
        rsa["beyond"][0]["reason"] = "nothing is left to compare"
    else:
        rsa = agreement(levels=levels, beyond=beyond)
    found = judge(matrix(rsa=rsa))
    assert found["label"] == label
    assert any(re.search(said, reason["text"]) for reason in found["reasons"]), found["reasons"]


def test_a_level_of_which_most_tokens_lack_a_vector_is_not_tested():
    rsa = agreement(levels=[SURE] * 3, beyond=[SURE] * 3)
    rsa["levels"]["3"] |= {"tokens": 8, "dropped_zero_rows": 24}
    assert "level 3 was not tested" in judge(matrix(rsa=rsa))["reasons"][-1]["text"]


def test_another_group_is_judged_by_its_own_measures():
    made = matrix(rsa=None)
    made["groups"]["C codes"] = {**made["groups"]["new"], "dispersion_ratio": 1e-5}
    assert judge(made)["label"] == "healthy"
    assert judge(made, "C codes")["label"] == "collapsed"
