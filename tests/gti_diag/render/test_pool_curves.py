"""Gain against the length of the list: values, bands, what is left out."""

import numpy as np
import pytest

from gti_diag import render
from gti_diag.render import pool_curves, style
from gti_diag.render.view import Missing


def evaluation(scale, lengths=(5, 10, 50)):
    metrics = {
        f"{name}@{k}": {"value": scale * k / 1000, "interval": [0, 1]} for name in pool_curves.METRICS for k in lengths
    }
    return {"k": list(lengths), "metrics": metrics}


ARMS = {
    "grounded": [evaluation(3.0), evaluation(2.0)],
    "mean": [evaluation(1.0), evaluation(1.5), evaluation(0.5)],
    "grounded, multi-task": [evaluation(4.0, (1, 5, 10, 50, 200))],
}


def test_gains_are_relative_to_the_baselines_mean_at_each_length():
    panels = pool_curves.points(ARMS, "mean")
    assert [panel.metric for panel in panels] == ["recall", "ndcg", "precision"]
    first = panels[0].curves
    assert [curve.arm for curve in first] == ["mean", "grounded", "grounded, multi-task"]
    assert first[1].lengths == (5, 10, 50)  # those that all share
    np.testing.assert_allclose(first[1].gains, [[2, 2, 2], [1, 1, 1]])
    np.testing.assert_allclose(first[0].gains.mean(0), 0, atol=1e-12)


def test_lines_are_means_and_bands_span_the_seeds():
    with style.using("paper") as look:
        figure = pool_curves.draw(pool_curves.points(ARMS, "mean"), look)
    axes = figure.axes[0]
    assert axes.get_xscale() == "log"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["5", "10", "50"]
    assert [line.get_ydata()[0] for line in axes.lines] == pytest.approx([0, 150, 300], abs=1e-9)
    spans = [
        (band.get_paths()[0].vertices[:, 1].min(), band.get_paths()[0].vertices[:, 1].max())
        for band in axes.collections
    ]
    assert spans == [pytest.approx((-50, 50)), pytest.approx((100, 200))]  # one seed has no band
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["mean", "grounded", "grounded, multi-task"]


def test_lengths_at_which_the_baseline_finds_nothing_are_left_out():
    nothing = evaluation(1.0)
    nothing["metrics"]["recall@5"]["value"] = 0.0
    panels = pool_curves.points({"base": [nothing], "arm": [evaluation(2.0)]}, "base")
    assert [panel.curves[0].lengths for panel in panels] == [(10, 50), (5, 10, 50), (5, 10, 50)]


def test_files_are_written_and_the_same_again(tmp_path):
    for folder in ("a", "b"):
        files = render.gain_curves(ARMS, tmp_path / folder, baseline="mean", formats=("svg",))
        assert [file.name for file in files] == ["pool_curves.svg"]
    assert (tmp_path / "a/pool_curves.svg").read_bytes() == (tmp_path / "b/pool_curves.svg").read_bytes()


@pytest.mark.parametrize(
    "arms, baseline, complaint",
    [
        (ARMS, "random", "no arm is called 'random'"),
        ({"a": [evaluation(1.0, (5,))], "b": [evaluation(1.0, (10,))]}, "a", "share no length"),
        ({"a": [evaluation(0.0)], "b": [evaluation(1.0)]}, "a", "at which the baseline finds anything"),
    ],
)
def test_what_cannot_be_drawn_is_told(arms, baseline, complaint):
    with pytest.raises(Missing, match=complaint):
        pool_curves.points(arms, baseline)
