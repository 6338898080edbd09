"""The scan on paper and screen."""

import re

import pytest
from rich.console import Console

from gti_diag.analysis.scan_findings import KINDS
from gti_diag.render.scan import html, markdown, norms, terminal, words

from .scan_cases import SCAN, scan


def printed(document, **options):
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(terminal.summary(document, **options))
    return console.export_text()


def test_every_kind_has_a_title():
    assert set(words.TITLES) == set(KINDS)


def test_the_terminal_names_the_tokens_that_matter_most_first():
    text = printed(SCAN)
    assert "3 near zero [near_zero]: norms of at most 2e-09" in text
    assert "</s> 2 (special, chat template), ␣red 7 (in text), <|pad|> 9 (padding)" in text
    assert "to do: gti-train repair ckpt" in text and "not judged: untrained (0 rows" in text
    short = printed(SCAN, top=1, steps=False)
    assert "and 2 more" in short and "to do" not in short


def test_markdown_escapes_what_tokens_hold():
    text = markdown.summary(scan(tokens=["a|b", "</details>", "`x`"]))
    (row,) = [line for line in text.splitlines() if line.startswith("| near zero")]
    assert len(re.findall(r"(?<!\\)\|", row)) == 5
    assert text.count("</details>") == 1 and "**Check:** gti-diag scan repaired." in text


def test_the_page_escapes_marks_and_lists_each_row_once():
    page = html.page(scan(tokens=["</s>", "<script>x</script>", "<|pad|>"]))
    assert "<script>x" not in page and "&lt;script&gt;x" in page and "<title>&lt;b&gt;: rows" in page
    assert page.count('<tr data-kinds="near_zero">') == 3 and "special, chat template" in page
    assert 'class="gap"' in page and "Not judged: never trained" in page


def test_long_tables_are_cut_and_say_so(monkeypatch):
    monkeypatch.setattr(html, "MOST_ROWS", 2)
    page = html.page(SCAN)
    assert page.count("<tr data-kinds") == 2 and "1 more rows are in the JSON" in page


def test_the_drawing_shows_one_row_and_the_gap():
    drawing = norms.drawing(SCAN["matrices"]["input"]["norms"])
    assert [bar.height > 1 for bar in drawing.bars] == [True, True] and "398 rows" in drawing.bars[1].title
    (band,) = drawing.bands
    assert band.label == "gap; 3 near zero to the left" and 0 < band.x < band.x + band.width <= drawing.width
    assert drawing.above == 0 and "no norm lies there, 3 near zero to the left" in html.page(SCAN)
    assert norms.drawing({**SCAN["matrices"]["input"]["norms"], "gaps": {}}).above > 0
    assert [label for _, label in drawing.ticks if label.startswith("10")][:1] == ["10⁻⁹"]
    assert norms.drawing({"histogram": None}) is None


@pytest.mark.parametrize("low, high", [(0.01, 0.012), (-20, 30), (0.0, 0.9)])
def test_the_axis_of_any_range_has_ticks_inside_it(low, high):
    made = norms.drawing({"median": 10**low, "gaps": {}, "histogram": {"log10_edges": [low, high], "counts": [5]}})
    assert 1 <= len(made.ticks) <= norms.MOST_TICKS and all(0 <= at <= made.width for at, _ in made.ticks)


def test_every_kind_has_a_page():
    from gti_diag.render.explain import explanations

    assert set(KINDS) <= set(explanations()) and all(explanations()[kind].title == words.TITLES[kind] for kind in KINDS)
