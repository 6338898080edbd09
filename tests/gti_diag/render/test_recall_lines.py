"""What the starts lead to: a panel for what was measured, none for what was not."""

import pytest

from gti_diag.render.recall_lines import draw, points
from gti_diag.render.style import using


@pytest.mark.parametrize(
    "course, titles",
    [
        ({"loss": [[[1, 9.0], [2, 4.0]]], "spread": [[[1, 0.1]]]}, ["Recall", "Loss", "Spread of new rows / vocabulary's"]),
        ({"loss": [[[1, 9.0], [2, 4.0]]], "spread": [[]]}, ["Recall", "Loss"]),
        ({}, ["Recall"]),
    ],
)  # fmt: skip
def test_only_what_was_measured_has_a_panel(course, titles):
    arm = {"recall": [[0.1, 0.0, 0.2], [0.2, 0.1, 0.3]], **course}
    found = {"k": [5, 10], "arms": {"mean": arm}, "baselines": {"popularity": {"recall": arm["recall"]}}}
    with using("paper") as look:
        figure = draw(points(found), look)
    assert [axes.get_title(loc="left") or axes.get_title() for axes in figure.axes] == titles


def test_more_arms_than_colours_still_differ_in_colour_or_mark():
    arms = {f"arm {number}": {"recall": [[0.1, 0.0, 0.2], [0.2, 0.1, 0.3]]} for number in range(12)}
    with using("paper") as look:
        figure = draw(points({"k": [5, 10], "arms": arms, "baselines": {}}), look)
    lines = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 2]
    assert len(lines) == len({(line.get_color(), line.get_marker()) for line in lines}) == 12
