"""Numbers at the edge of what a type holds, and vocabularies that say nothing."""

import numpy as np
import pytest

import gti_diag
from gti_diag.errors import InputError
from tests.conftest import vocabulary_like


@pytest.fixture
def judged(tmp_path):
    """The input matrix of an analysis of these rows, of which the last 40 are new."""

    def run(rows):
        np.save(tmp_path / "rows.npy", rows)
        new = f"{len(rows) - 40}:{len(rows)}"
        return gti_diag.diagnose(tmp_path / "rows.npy", new=new)["matrices"]["input"]

    return run


def scaled(dtype, scale, count=240):
    rows = vocabulary_like(count, 12).double().numpy()
    return (rows / np.abs(rows).max() * scale).astype(dtype)


@pytest.mark.parametrize("dtype, scale", [("float32", 1e38), ("float32", 1e-37), ("float64", 1e99), ("float64", 1e-90)])
def test_a_scale_changes_no_measure_that_has_none(judged, dtype, scale):
    one, far = judged(scaled(dtype, 1)), judged(scaled(dtype, scale))
    assert far["verdict"]["label"] == one["verdict"]["label"]
    for name in (
        "effective_rank",
        "two_nn",
        "hubness",
        "dispersion_ratio",
        "centroid_distance",
        "crowded_rows",
        "mahalanobis",
    ):
        assert far["groups"]["new"][name] == pytest.approx(one["groups"]["new"][name], rel=1e-4), name
    assert far["groups"]["new"]["dispersion"] == pytest.approx(scale * one["groups"]["new"]["dispersion"], rel=1e-4)


@pytest.mark.parametrize("scale", [1e-200, 1e-320])
def test_rows_whose_squares_are_zero_are_refused_by_id(judged, scale):
    rows = scaled("float64", 1)
    rows[[203, 207]] *= scale
    with pytest.raises(InputError, match=r"rows\.npy.* 2 rows of group new .*nothing over 1e-100 .*token id 203"):
        judged(rows)


def test_a_scan_calls_no_row_zero_that_is_not(tmp_path):
    rows = scaled("float64", 1)
    rows[7], rows[9] = 0, rows[9] * 1e-200
    np.save(tmp_path / "rows.npy", rows)
    findings = {f["kind"]: f["ids"] for f in gti_diag.scan(tmp_path / "rows.npy")["matrices"]["input"]["findings"]}
    assert findings["zero"] == [7]
    assert 9 in findings["near_zero"]


@pytest.mark.parametrize("text", [200, 1])
def test_text_that_does_not_vary_is_nothing_to_judge_by(judged, text):
    rows = scaled("float32", 1)
    rows[:200] = rows[0]
    verdict = judged(rows[200 - text :])["verdict"]
    assert verdict["label"] is None
    assert verdict["reasons"][0]["text"].startswith("the text rows do not vary")
    assert "--base" in verdict["reasons"][0]["action"]
