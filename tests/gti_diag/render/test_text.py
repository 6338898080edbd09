"""Markdown, LaTeX and terminal: the same numbers, escaped for each."""

import io

import pytest
from rich.console import Console

from gti_diag.render import markdown, tables, terminal, view

from .render_cases import STARTS, analysis, plain


@pytest.fixture(scope="module")
def three():
    return [analysis(start) for start in STARTS]


def printed(renderable, **console) -> str:
    out = io.StringIO()
    Console(file=out, width=100, **console).print(renderable)
    return out.getvalue()


@pytest.mark.parametrize(
    "value, shown",
    [
        (None, "–"),
        (1.0, "1.00"),
        (0, "0"),
        (49152, "49,152"),
        (137.26, "137"),
        (0.0315, "0.0315"),
        (3.18e-5, "3.18e-5"),
        (24576.0, "24,576"),
        (-0.5, "-0.500"),
        (1234.5, "1,234"),
        (True, "yes"),
        ("above 0", "above 0"),
        (9.9999, "10.0"),
        (1e38, "1.00e38"),
    ],
)
def test_numbers_read_well(value, shown):
    assert view.number(value) == shown


@pytest.mark.parametrize(
    "text, shown",
    [
        (" the", "␣the"),
        ("the ", "the␣"),
        ("\n", "↵"),
        ("  ", "␣␣"),
        ("a b", "a b"),
        (None, "–"),
        ("x" * 40, "x" * 13 + "…"),
        ("\x00", "\\u0000"),
        ("", ""),
    ],
)
def test_tokens_read_well(text, shown):
    assert view.token(text) == shown


def test_equal_names_are_told_apart():
    analyses = [
        analysis("random", name="model"),
        analysis("mean", name="model"),
        analysis("mean", name="other"),
    ]
    for one, path in zip(analyses, ("a/model", "b/model", "c/other"), strict=True):
        one["checkpoint"]["path"] = path
    assert view.names(analyses) == ["a/model", "b/model", "other"]
    assert view.names([analyses[0], analyses[0]]) == ["a/model", "a/model (2)"]


@pytest.mark.parametrize(
    "name, step", [("checkpoint-200", 200), ("run_step_50", 50), ("SmolLM2-135M", None), ("grounded", None)]
)
def test_steps_come_from_the_record_or_the_name(name, step):
    assert view.views([analysis("random", name=name)])[0].step == step
    assert view.views([analysis("random", name=name, step=7)])[0].step == 7


def test_summary_opens_with_the_verdict_and_its_reasons(three):
    text = markdown.summary(three[:1])
    first, second = text.split("\n\n")[:2]
    assert first == "## 🔴 mean: collapsed"
    assert second.startswith("- all 96 new rows are the same row (`unique_rows` 1, expected 96)")
    assert "**What to do:**" in text
    assert "| effective rank | 1.00 |" in text
    assert "gti-diag analyze runs/mean" in text
    assert len(text) < 20_000, "a step summary is read, not searched"


def test_comparison_has_a_column_per_checkpoint(three):
    table = tables.comparison(three)
    assert table.header == ("new tokens", *STARTS)
    assert table.rows[0] == ("verdict", "collapsed", "unstructured", "healthy")
    rows = dict(zip(table.measures, table.rows, strict=True))
    value = three[2]["matrices"]["input"]["groups"]["new"]["effective_rank"]
    assert rows["effective_rank"][3] == view.number(value)
    assert rows["effective_rank_centred"][1] == "–"
    assert all(len(row) == 4 for row in table.rows)


def test_single_table_names_the_text_band(three):
    table = tables.single(view.views(three)[2])
    assert table.header == ("measure", "new", "text", "text samples")
    row = dict(zip(table.measures, table.rows, strict=True))["effective_rank"]
    assert " to " in row[3]


def test_latex_escapes_what_latex_would_run(three):
    named = [{**three[0], "checkpoint": {**three[0]["checkpoint"], "name": "a_b & 50% \\input{x}"}}]
    text = tables.latex(named)
    assert r"a\_b \& 50\% \textbackslash{}input\{x\}" in text
    assert text.count(r"\toprule") == 1
    assert r"$\rho$" in text or "Spearman" not in text
    assert all(line.endswith(r"\\") == ("&" in line) for line in text.splitlines())
    assert tables.latex_text("  Mantel p\nof 5 % \x1b") == r"\quad Mantel p↵of 5 \% \textbackslash{}u001b"


def test_markdown_escapes_tokens_that_would_break_a_table(three):
    text = markdown.summary(three[2:])
    assert r"\<a\_0\>" in text
    for line in text.splitlines():
        if line.startswith("| ") and "new token" not in line:
            assert line.endswith(" |")
    assert tables.escape("a|b`c") == r"a\|b\`c"


def test_terminal_is_plain_when_piped_and_coloured_on_a_terminal(three, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    piped = printed(terminal.summary(three[:1]))
    assert "\x1b" not in piped
    assert "✗ collapsed  mean" in piped
    assert "effective rank" in piped
    coloured = printed(terminal.summary(three[:1]), force_terminal=True, color_system="standard")
    assert "\x1b[1;31m✗ collapsed" in coloured
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[1;31m" not in printed(terminal.summary(three[:1]), force_terminal=True)


def test_terminal_fits_a_hundred_columns(three):
    for analyses in (three, three[:1], [plain()]):
        assert max(map(len, printed(terminal.summary(analyses)).splitlines())) <= 100


def test_terminal_without_new_tokens_says_so():
    text = printed(terminal.summary([plain()]))
    assert "there are no new tokens" in text
    assert "500" in text


def test_sparkline_falls_by_decades():
    assert terminal.sparkline([1.0, 0.0, 0.0]) == "█▁▁"
    assert terminal.sparkline([1.0, 1.0]) == "██"
    assert terminal.sparkline([]) == ""
    assert terminal.sparkline([0.0]) == ""
    falling = terminal.sparkline([10 ** (-3 * i / 99) for i in range(100)])
    assert len(falling) == 20
    assert list(falling) == sorted(falling, reverse=True)
    assert (falling[0], falling[-1]) == ("█", "▁")


def test_markup_in_names_is_not_obeyed():
    assert "[red]x[/red]" in printed(terminal.summary([analysis("random", name="[red]x[/red]")]))
