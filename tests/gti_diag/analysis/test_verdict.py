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
    "rsa": {"pearson": {"value": 0.3, "interval": [0.2, 0.4], "p_value": 0.001}},
}  # fmt: skip


def matrix(rsa="as is", **changes):
    made = copy.deepcopy(HEALTHY)
    made["groups"]["new"] |= changes
    if rsa != "as is":
        made["rsa"] = rsa
    return made


def test_a_healthy_matrix_is_healthy_and_says_why():
    found = judge(matrix())
    assert found["label"] == "healthy" and found["advice"] == ADVICE["healthy"]
    assert {reason["measure"] for reason in found["reasons"]} == {"dispersion_ratio", "rsa_pearson"}


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


@pytest.mark.parametrize(
    "pearson",
    [
        {"value": 0.01, "interval": [-0.02, 0.04], "p_value": 0.3},
        {"value": 0.12, "interval": [0.001, 0.24], "p_value": 0.02},
        {"value": 0.04, "interval": [0.01, 0.07], "p_value": 0.001},
        {"value": 0.02, "interval": [0.01, 0.03], "p_value": 0.001},
        {"value": -0.3, "interval": [-0.4, -0.2], "p_value": 1.0},
    ],
)
def test_unstructured_by_reference(pearson):
    found = judge(matrix(rsa={"pearson": pearson}))
    assert found["label"] == "unstructured" and "RSA" in found["reasons"][0]["text"]


def test_a_weak_but_sure_agreement_counts_whatever_its_interval():
    assert (
        judge(matrix(rsa={"pearson": {"value": 0.09, "interval": [-0.01, 0.2], "p_value": 0.001}}))["label"]
        == "healthy"
    )


def test_agreement_that_could_not_be_compared_with_chance_is_no_evidence():
    rsa = {"pearson": {"value": 1.0, "interval": None, "p_value": None}, "undefined": {"pearson.p_value": "4 tokens"}}
    found = judge(matrix(rsa=rsa))
    assert found["label"] == "healthy" and "was not tested: 4 tokens" in found["reasons"][-1]["text"]


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
    assert (
        judge(matrix(rsa={"pearson": {"value": 0.0, "interval": None, "p_value": 0.5}}, **both))["label"] == "collapsed"
    )


def test_nothing_new_is_no_verdict():
    found = judge({"groups": {"text": {"count": 5}}})
    assert found["label"] is None and "no new tokens" in found["reasons"][0]["text"]


def test_every_label_has_advice_and_every_threshold_its_reason():
    assert set(ADVICE) == {None, *LABELS} and all(len(threshold.why) > 40 for threshold in THRESHOLDS.values())


def levels(*values):
    found = {"pearson": {"value": 0.3, "interval": [0.2, 0.4], "p_value": 0.001}}
    return {**found, "levels": {str(n): {"pearson": {"value": v}} for n, v in enumerate(values, 1)}}


@pytest.mark.parametrize(
    "values,label,said",
    [
        ((0.5, -0.04, -0.12), "unstructured", "on 2 of 3 levels .* level 2 \\(-0.04\\), 3 \\(-0.12\\)"),
        ((0.5, 0.3, -0.12), "healthy", "on 1 of 3 levels"),
        ((0.5, 0.047, 0.01), "unstructured", r"level 2 \(0.047\), 3 \(0.01\)"),
        ((0.5, 0.04), "healthy", "on 1 of 2 levels"),
        ((0.5, None, 0.2), "healthy", "agrees"),
    ],
)
def test_agreement_on_level_one_alone_is_no_structure(values, label, said):
    found = judge(matrix(rsa=levels(*values)))
    assert found["label"] == label
    assert re.search(said, found["reasons"][-1]["text"])


def test_another_group_is_judged_by_its_own_measures():
    made = matrix(rsa=None)
    made["groups"]["C codes"] = {**made["groups"]["new"], "dispersion_ratio": 1e-5}
    assert judge(made)["label"] == "healthy"
    assert judge(made, "C codes")["label"] == "collapsed"
