"""Figures through their artists: values, labels, scales. Files through their bytes."""

import itertools
import json

import matplotlib as mpl
import numpy as np
import pytest

from gti_diag import render
from gti_diag.render import (
    cosine_blocks,
    cosine_panels,
    levels,
    norms,
    rsa_bars,
    spectrum,
    style,
    token_map,
    trajectory,
)
from gti_diag.render.view import Missing, views

from .render_cases import STARTS, analysis, plain


@pytest.fixture(scope="module")
def three():
    return [analysis(start) for start in STARTS]


@pytest.fixture
def look():
    with style.using("paper") as look:
        yield look


def test_cosine_panels_show_the_given_numbers_on_a_fixed_scale(three, look):
    panels = [cosine_panels.points(view) for view in views(three)]
    figure = cosine_panels.draw(panels, look)
    shown = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title("left").split("\n")[0] for axes in shown] == list(STARTS)
    for axes, one in zip(shown, three, strict=True):
        image = axes.images[0]
        np.testing.assert_array_equal(image.get_array(), one["matrices"]["input"]["panel"]["cosine"])
        assert image.get_clim() == (-1, 1)
    assert "mean of new pairs 1.00" in shown[0].get_title("left")


def test_one_cosine_panel_names_tokens_that_can_be_read(three, look):
    figure = cosine_panels.draw([cosine_panels.points(views(three)[2])], look)
    figure.draw_without_rendering()
    labels = [label for label in figure.axes[0].get_yticklabels() if label.get_text()]
    boxes = [label.get_window_extent() for label in labels]
    assert len(labels) >= 15
    assert any("<a_" in label.get_text() for label in labels)
    assert all(label.get_fontsize() >= 5 for label in labels)
    heights = sorted((box.y0, box.y1) for box in boxes)
    gaps = [after[0] - before[1] for before, after in itertools.pairwise(heights)]
    assert min(gaps) > -1, "token labels overlap"


def test_spectrum_lines_are_normalised_and_labelled_with_the_effective_rank(three, look):
    figure = spectrum.draw([spectrum.points(view) for view in views(three)], look)
    axes = figure.axes[0]
    for line, one in zip(axes.lines, three, strict=True):
        values = np.array(one["matrices"]["input"]["groups"]["new"]["singular_values"])
        values = values[values > 0]
        np.testing.assert_allclose(line.get_ydata(), values / values[0])
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels[0].startswith("text samples of 96: ")
    assert labels[1] == "mean: 1.00"
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert len(axes.lines[0].get_xdata()) == 1
    assert axes.lines[0].get_marker() == "o", "one component has no line, so it needs a marker"


def test_names_and_numbers_of_many_checkpoints_lie_on_no_line(three, look):
    for times, written in ((1, True), (2, False)):
        figure = spectrum.draw([spectrum.points(view) for view in views(three * times)], look)
        assert (figure.axes[0].get_legend() is not None) is written
        assert bool(figure.legends) is not written
        bars = [rsa_bars.points(view) for view in views(three[1:] * times)]
        assert bool(rsa_bars.draw(bars, look).axes[0].texts) is written


def test_text_band_uses_one_normaliser_for_both_edges(three):
    panel = spectrum.points(views(three)[1])
    band = three[1]["matrices"]["input"]["null"]["singular_values"]
    ratio = np.array(band["high"]) / np.array(band["low"])
    np.testing.assert_allclose(panel.band[1] / panel.band[0], ratio)


def test_rsa_bars_and_whiskers_are_the_results(three, look):
    shown = views(three)
    figure = rsa_bars.draw([rsa_bars.points(view) for view in shown[1:]], look)
    rsa = three[2]["matrices"]["input"]["rsa"]
    axes = figure.axes[0]
    heights = [bar.get_height() for bar in axes.containers[1]]
    assert heights == [rsa["pearson"]["value"], *(rsa["levels"][k]["pearson"]["value"] for k in "123")]
    whiskers = [list(line.get_ydata()) for line in axes.lines]
    assert rsa["pearson"]["interval"] in whiskers
    assert [tick.get_text() for tick in axes.get_xticklabels()] == [
        "all\ncodes",
        "level\n1",
        "level\n2",
        "level\n3",
    ]


def test_a_checkpoint_keeps_its_colour_in_every_figure(three, look):
    bars = rsa_bars.draw([rsa_bars.points(view) for view in views(three)[1:]], look).axes[0].containers[1][0]
    lines = spectrum.draw([spectrum.points(view) for view in views(three)], look).axes[0].lines
    assert mpl.colors.to_hex(bars.get_facecolor()) == mpl.colors.to_hex(lines[2].get_color())


def test_map_puts_every_level_where_it_was_computed(three, look):
    figure = token_map.draw([token_map.points(views(three)[2])], look)
    axes = figure.axes[0]
    place = three[2]["matrices"]["input"]["map"]["new"]
    offsets = np.concatenate([collection.get_offsets() for collection in axes.collections[1:]])
    np.testing.assert_allclose(offsets, np.column_stack([place["x"], place["y"]]))
    assert [collection.get_label() for collection in axes.collections] == [
        "text",
        "level 1",
        "level 2",
        "level 3",
    ]
    assert "% of variance" in axes.get_xlabel()


def test_map_says_when_all_new_tokens_are_one_point(three, look):
    figure = token_map.draw([token_map.points(view) for view in views(three)], look)
    notes = [[text.get_text() for text in axes.texts] for axes in figure.axes]
    assert notes == [["all 96 new\ntokens here"], [], []]


def test_blocks_share_a_scale_centred_at_zero(three, look):
    panels = [cosine_blocks.points(view) for view in views(three)]
    figure = cosine_blocks.draw(panels[1:], look)
    limits = {axes.images[0].get_clim() for axes in figure.axes if axes.images}
    ((low, high),) = limits
    assert low == -high
    assert cosine_blocks.limit(panels) == 1.0
    assert cosine_blocks.limit(panels[1:2]) < 1.0
    ticks = [tick.get_text() for tick in figure.axes[0].get_xticklabels()]
    assert ticks == ["level 1", "level 2", "level 3"]


def test_norms_are_scaled_to_their_peaks_and_one_norm_is_a_line(three, look):
    panels = [norms.points(view) for view in views(three)]
    histogram = three[2]["matrices"]["input"]["groups"]["new"]["norm"]["histogram"]
    np.testing.assert_allclose(panels[2].new.density, np.array(histogram["counts"]) / max(histogram["counts"]))
    axes = norms.draw(panels, look).axes[0]
    (line,) = axes.lines
    assert line.get_label() == "mean: all one norm"
    assert line.get_xdata()[0] == pytest.approx(three[0]["matrices"]["input"]["groups"]["new"]["norm"]["mean"])


def test_bins_too_narrow_to_be_seen_are_put_together():
    counts = np.array([1.0, 3, 4, 2, 6])
    fine = norms.Histogram(np.linspace(2, 2.5, 6), counts / 6)
    coarse = norms.coarser(fine, 0.2)
    np.testing.assert_allclose(coarse.edges, [2, 2.2, 2.4, 2.5])
    np.testing.assert_allclose(coarse.density, np.array([2, 3, 6]) / 6)
    np.testing.assert_allclose(norms.coarser(fine, 0.05).density, fine.density)


def test_levels_show_same_against_other(three, look):
    axes = levels.draw([levels.points(views(three)[2])], look).axes[0]
    expected = three[2]["matrices"]["input"]["hierarchy"]["levels"]
    stems = [list(line.get_ydata()) for line in axes.lines if len(line.get_xdata()) == 2]
    assert stems[:3] == [[expected[k]["within"], expected[k]["between"]] for k in "123"]


def test_trajectory_follows_the_steps_in_order(look):
    run = [analysis("grounded", name="late", step=100), analysis("mean", name="early", step=0)]
    rank, spread, rsa = trajectory.draw([trajectory.points(view) for view in views(run)], look).axes
    assert list(rank.lines[0].get_xdata()) == [0, 100]
    assert rank.lines[0].get_ydata()[0] == pytest.approx(1.0)
    assert spread.lines[0].get_ydata()[0] == 0.0
    assert list(rsa.lines[0].get_xdata()) == [100], "RSA of the mean start is undefined, so it has no point"


def test_trajectory_needs_one_run(three):
    assert "trajectory" not in {name for name, _, _ in render.drawable(three)}
    assert not trajectory.together([trajectory.points(view) for view in views([analysis("mean", step=5)] * 2)])
    assert "trajectory" not in render.left_out(three), "nobody misses it in a comparison of starts"


def test_dollars_and_foreign_scripts_in_tokens_are_text(look):
    assert style.printable("$x$ 水 café") == r"\$x\$ U+6C34 café"
    figure, axes = style.canvas(2, 2)
    axes.set_title(style.printable("$\\broken{ $"))
    figure.draw_without_rendering()  # mathtext would raise


@pytest.mark.parametrize("name", sorted(style.STYLES))
def test_every_style_draws_every_figure(three, tmp_path, name):
    written = render.figures(three[2:], tmp_path, formats=("png",), style=name)
    assert {path.stem for path in written} == {
        "levels",
        "norms",
        "cosine-panels",
        "spectrum",
        "rsa",
        "token-map",
        "cosine-blocks",
    }
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in written)


def test_files_are_the_same_bytes_each_time(tmp_path):
    for out in ("first", "second"):
        render.figures([plain()], tmp_path / out, formats=("png", "svg", "pdf"))
    first = sorted((tmp_path / "first").iterdir())
    assert len(first) >= 6
    for path in first:
        assert path.read_bytes() == (tmp_path / "second" / path.name).read_bytes(), path.name
    assert {path.name.split(".")[0] for path in first} == {
        path.name.split(".")[0] for path in first if path.suffix == ".pdf"
    }


def test_settings_of_matplotlib_are_left_alone(tmp_path):
    before = dict(mpl.rcParams, backend=None)
    render.figures([plain()], tmp_path, formats=("svg",), style="dark")
    assert dict(mpl.rcParams, backend=None) == before


def test_a_plain_checkpoint_gets_what_there_is_and_reasons_for_the_rest(tmp_path):
    written = render.figures([plain()], tmp_path, formats=("svg",))
    assert {path.stem for path in written} >= {"spectrum", "token-map"}
    reasons = render.left_out([plain()])
    assert reasons["cosine-panels"] == "SmolLM2: no new tokens"
    with pytest.raises(Missing, match="no new tokens"):
        cosine_panels.points(views([plain()])[0])


def test_an_undefined_rsa_is_left_out_with_its_reason(three):
    assert render.left_out(three)["rsa"] == "mean: the new rows are one point: their cosines are all 1"


def test_both_matrices_get_their_own_files(tmp_path):
    both = json.loads(json.dumps(plain()))
    both["matrices"]["output"] = both["matrices"]["input"]
    names = {path.name for path in render.figures([both], tmp_path, formats=("png",))}
    assert {"spectrum.png", "spectrum-output.png"} <= names


def test_unknown_style_and_format_are_refused(three, tmp_path):
    with pytest.raises(ValueError, match="no figure style 'neon'"):
        render.figures(three, tmp_path, style="neon")
    with pytest.raises(ValueError, match="no figure format 'bmp'"):
        render.figures(three, tmp_path, formats=("bmp",))


def test_an_empty_analysis_draws_nothing(tmp_path):
    assert render.figures([{"schema": 1}], tmp_path) == []
    assert render.figures([{"schema": 1, "matrices": {"input": {"groups": {}}}}], tmp_path) == []
