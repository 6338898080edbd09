"""report.html: what is in the file, and what it does in a real browser with the network cut off."""

import base64
import gzip
import json
import os
import re
import shutil
import sys
from importlib import import_module

import pytest

from gti_diag.analysis.group_measures import SHAPES
from gti_diag.errors import InputError
from gti_diag.render import FIGURES, html, tables
from gti_diag.render.html import charts, tokens
from gti_diag.render.view import views

from .render_cases import STARTS, analysis, plain

NASTY = '</script><img src=x onerror="document.title=1">'


def page_data(text: str) -> dict:
    packed = re.search(r'id="data">([^<]*)<', text).group(1)
    return json.loads(gzip.decompress(base64.b64decode(packed)))


@pytest.fixture(scope="module")
def three():
    return [analysis(start) for start in STARTS]


@pytest.fixture(scope="module")
def comparison(three):
    return html.report(three)


def test_the_verdict_comes_first_with_reasons_and_advice(three):
    text = html.report(three[:1])
    body = text[text.index("<main>") :]
    assert body.index("collapsed") < body.index("all 96 new rows are the same row") < body.index("What to do")
    assert body.index("What to do") < body.index("<table")
    assert "gti-diag analyze runs/mean" in text
    assert "torch 2.13.0" in text


def test_the_page_may_fetch_nothing(comparison):
    assert "default-src 'none'" in comparison
    page = re.sub(r'<script type="text/plain".*?</script>', "", comparison, flags=re.DOTALL)
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", page)


def test_the_page_is_the_same_bytes_each_time(three, comparison):
    assert html.report(three) == comparison


def test_names_and_tokens_cannot_leave_their_place():
    wicked = analysis("grounded", name=NASTY)
    wicked["matrices"]["input"]["neighbours"][0]["token"] = NASTY
    wicked["command"] = ["gti-diag", "analyze", NASTY]
    text = html.report([wicked])
    assert "<img src=x" not in text
    assert text.count("</script>") == len(re.findall(r"<script", text))


def test_numbers_on_the_page_are_the_analysis(three, comparison):
    data = page_data(comparison)
    panel = data["charts"]["cosine-panels-2"]["data"][0]
    expected = three[2]["matrices"]["input"]["panel"]["cosine"]
    assert panel["z"][3][60] == pytest.approx(expected[3][60], abs=1e-3)
    new = data["maps"]["token-map-2"]["new"]
    place = three[2]["matrices"]["input"]["map"]["new"]
    x = [new["x"]["from"] + new["x"]["step"] * at for at in new["x"]["at"]]
    assert x == pytest.approx(place["x"], abs=(max(place["x"]) - min(place["x"])) / 10_000)
    assert data["lists"][new["tokens"]] == place["tokens"]
    assert data["maps"]["token-map-0"]["new"]["tokens"] == new["tokens"], "shared lists are kept once"


def test_the_neighbour_table_stands_in_for_a_map_without_neighbours():
    bare = analysis("grounded")
    bare["matrices"]["input"]["map"]["new"].pop("nearest")
    plan = tokens.token_map(views([bare])[0], lists := tokens.Lists())
    first = bare["matrices"]["input"]["neighbours"][0]
    words = lists.lists[plan["new"]["near"]["words"]]
    assert words[plan["new"]["near"]["at"][0][0]] == first["nearest"][0]["token"].replace(" ", "␣", 1)
    assert plan["new"]["near"]["at"][1] == [], "not in the table"


def test_equal_labels_stay_apart():
    assert charts.unique(["a", "b", "a", "a"]) == ["a", "b", "a (2)", "a (3)"]


def test_every_number_shown_has_an_explanation_at_hand(comparison):
    explained = set(re.findall(r'id="explain-([a-z_]+)"', comparison))
    assert {"effective_rank", "dispersion_ratio", "unique_rows", "collapsed", "healthy"} <= explained
    for name in set(re.findall(r'data-tip="([a-z_]+)"', comparison)):
        assert f'id="line-{name}"' in comparison


def test_every_measure_of_the_tables_and_figures_can_be_explained():
    named = {row.measure for row in tables.ROWS}
    named |= {import_module(f"gti_diag.render.{file}").MEASURE for file in FIGURES if file != "token_map"}
    assert {name for name in named if html.explanation(name) is None} == set()
    assert html.explanation("no_such_measure") is None


def test_no_two_measures_of_a_page_have_one_title():
    titles = [html.explanation(name).title for name in (*SHAPES, *(f"{name}_centred" for name in SHAPES))]
    assert len(set(titles)) == 2 * len(SHAPES)


def test_all_other_numbers_are_there_on_demand(three):
    more = tables.more(views(three)[2:])
    assert dict(zip(more.measures, more.rows, strict=True))["numerical_rank"] == ("numerical rank", "48", "48")
    assert tables.more(views(three)).header == ("measure", *STARTS)


def test_24576_tokens_stay_under_8_megabytes():
    big = analysis("grounded")
    count = 24_576
    place = big["matrices"]["input"]["map"]
    place["new"] = {
        "ids": list(range(49_152, 49_152 + count)),
        "tokens": [f"<{'abc'[i // 8192]}_{i % 8192}>" for i in range(count)],
        "levels": [1 + i // 8192 for i in range(count)],
        "x": [((i * 7919) % 10_007) / 1e4 for i in range(count)],
        "y": [((i * 104_729) % 10_009) / 1e4 for i in range(count)],
        "nearest": [[[f" word{(i * 31 + k * 977) % 40_000}", 0.5 - k / 10] for k in range(3)] for i in range(count)],
    }
    text = html.report([big])
    assert len(text.encode()) < 8e6
    assert len(page_data(text)["maps"]["token-map-0"]["new"]["x"]["at"]) == count


def test_without_the_plotting_library_one_line_says_what_to_install(three, monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(InputError, match=r"pip install 'gti-diag\[report\]'"):
        html.report(three)


def test_no_analyses_is_refused():
    with pytest.raises(ValueError, match="at least one analysis"):
        html.report([])


def test_an_analysis_with_missing_parts_still_makes_a_page():
    for bare in (plain(), {"schema": 1, "matrices": {"input": {"groups": {"text": {"count": 3}}}}}):
        assert "<h1>" in html.report([bare])


# ---- in the browser ---------------------------------------------------------------------------------------------


def chromium_path() -> str:
    """The installed Chromium; without one the tests fail in CI and are skipped, with the reason, elsewhere."""
    named = os.environ.get("CHROMIUM")
    found = named or next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        message = "browser tests need Chromium: apt-get install chromium, or set CHROMIUM=/path/to/chrome"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(message)
    return found


@pytest.fixture(scope="module")
def browser():
    path = chromium_path()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--enable-unsafe-swiftshader"])
        yield browser
        browser.close()


class Opened:
    """A report in a page of its own, the network cut; `problems` collects errors and requests."""

    def __init__(self, browser, file, *, width=1600, theme="light"):
        self.context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=theme, offline=True, reduced_motion="reduce"
        )
        self.page, self.problems = self.context.new_page(), []
        self.page.set_default_timeout(60_000)
        self.page.on("console", lambda m: self.problems.append(m.text) if m.type == "error" else None)
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on(
            "request",
            lambda r: self.problems.append(r.url) if not r.url.startswith(("file:", "data:", "blob:")) else None,
        )
        self.page.goto(file.as_uri())
        self.page.wait_for_function("document.documentElement.dataset.ready")

    def draw(self, chart: str) -> None:
        """Scroll a chart into view, as a reader would, and wait until it is drawn."""
        self.page.evaluate("id => document.getElementById(id).scrollIntoView({block: 'center'})", chart)
        self.page.wait_for_function(f"document.getElementById('{chart}')._fullLayout")

    def draw_all(self) -> None:
        for chart in self.page.evaluate("[...document.querySelectorAll('.chart')].map(node => node.id)"):
            self.draw(chart)

    def hover(self, chart: str, curve: int, point: int) -> str:
        """Move the real mouse over one point of a scatter chart and read the label."""
        x, y = self.page.evaluate(
            """([id, curve, point]) => { const node = document.getElementById(id), l = node._fullLayout, t = node.data[curve];
            const box = node.getBoundingClientRect();
            return [box.x + l.xaxis._offset + l.xaxis.d2p(t.x[point]), box.y + l.yaxis._offset + l.yaxis.d2p(t.y[point])]; }""",
            [chart, curve, point],
        )
        self.page.mouse.move(x - 3, y - 3)
        self.page.mouse.move(x, y)
        self.page.wait_for_selector(f"#{chart} .hoverlayer .hovertext")
        return self.page.text_content(f"#{chart} .hoverlayer .hovertext")


@pytest.fixture(scope="module")
def files(tmp_path_factory, three, comparison):
    folder = tmp_path_factory.mktemp("reports")
    (folder / "comparison.html").write_text(comparison, encoding="utf-8")
    (folder / "single.html").write_text(html.report([analysis("grounded", name=NASTY)]), encoding="utf-8")
    return folder


@pytest.fixture
def opened(browser, files):
    pages = []

    def open_page(name="comparison", **options):
        pages.append(Opened(browser, files / f"{name}.html", **options))
        return pages[-1]

    yield open_page
    for page in pages:
        problems = page.problems
        page.context.close()
        assert problems == []


@pytest.fixture(scope="module")
def reading(browser, files):
    """One open comparison for the tests that leave no trace another would see."""
    page = Opened(browser, files / "comparison.html")
    yield page
    problems = page.problems
    page.context.close()
    assert problems == []


@pytest.mark.browser
@pytest.mark.parametrize(
    "width, theme, name", [(400, "light", "comparison"), (1600, "dark", "comparison"), (400, "dark", "single")]
)
def test_nothing_overflows_and_axe_has_no_serious_complaint(opened, width, theme, name):
    from axe_playwright_python.sync_playwright import Axe

    report = opened(name, width=width, theme=theme)
    report.draw_all()
    wide = report.page.evaluate(
        """() => [...document.querySelectorAll('main *')].filter(node => !node.closest('.scroll, svg, .chart, pre')
        && node.getBoundingClientRect().right > innerWidth + 1).map(node => node.outerHTML.slice(0, 80))"""
    )
    assert wide == []
    assert report.page.evaluate("document.documentElement.scrollWidth") <= width
    charts_out = "() => [...document.querySelectorAll('.chart .main-svg')].filter(n => n.getBoundingClientRect().right > innerWidth).length"
    assert report.page.evaluate(charts_out) == 0
    found = Axe().run(report.page).response["violations"]
    serious = [(v["id"], v["nodes"][0]["html"][:120]) for v in found if v["impact"] in ("serious", "critical")]
    assert serious == []


@pytest.mark.browser
def test_map_points_answer_the_mouse_and_the_filters(opened):
    report = opened("single")
    report.draw("token-map-0")
    label = report.hover("token-map-0", 2, 5)
    assert "<b_5>" in label
    assert "level 2" in label
    assert "nearest text:" in label
    shown = "() => document.getElementById('token-map-0').data.filter(t => t.visible !== false).map(t => t.name).filter(Boolean)"
    assert report.page.evaluate(shown) == ["text", "level 1", "level 2", "level 3"]
    report.page.get_by_label("level 2").uncheck()
    report.page.locator(".filters input[value=text]").uncheck()
    assert report.page.evaluate(shown) == ["level 1", "level 3"]


@pytest.mark.browser
def test_map_zooms_by_dragging(opened):
    report = opened("single")
    report.draw("token-map-0")
    report.page.evaluate("document.getElementById('token-map-0').scrollIntoView({block: 'center'})")
    width = "() => { const [a, b] = document.getElementById('token-map-0')._fullLayout.xaxis.range; return b - a; }"
    before = report.page.evaluate(width)
    box = report.page.locator("#token-map-0 .nsewdrag").bounding_box()
    report.page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.3)
    report.page.mouse.down()
    report.page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] * 0.7, steps=4)
    report.page.mouse.up()
    report.page.wait_for_function(f"({width})() < {before / 2}")


@pytest.mark.browser
def test_a_token_is_found_by_keyboard_alone(reading):
    report = reading
    report.page.focus("#find")
    report.page.keyboard.type("b_7")
    report.page.keyboard.press("Enter")
    status = report.page.locator(".found")
    assert status.text_content().startswith("1 of 1: <b_7>, level 2")
    ring = "() => document.getElementById('token-map-1').data.at(-1).x.length"
    assert report.page.evaluate(ring) == 1
    report.page.keyboard.press("ControlOrMeta+a")
    report.page.keyboard.type("no such token")
    report.page.keyboard.press("Enter")
    assert "No token" in status.text_content()
    assert report.page.evaluate(ring) == 0


@pytest.mark.browser
def test_matrix_cells_name_their_pair_and_value(reading, three):
    report = reading
    report.draw("cosine-panels-2")
    box = report.page.locator("#cosine-panels-2 .nsewdrag").bounding_box()
    report.page.mouse.move(box["x"] + box["width"] * 0.305, box["y"] + box["height"] * 0.705)
    report.page.wait_for_selector("#cosine-panels-2 .hoverlayer .hovertext")
    label = report.page.text_content("#cosine-panels-2 .hoverlayer .hovertext")
    panel = three[2]["matrices"]["input"]["panel"]
    value = panel["cosine"][70][30]
    assert panel["new"]["tokens"][20] in label
    assert f"{value:.3f}" in label


@pytest.mark.browser
def test_dark_mode_recolours_page_and_charts_and_is_remembered(opened):
    report = opened(theme="light")
    report.draw("spectrum-0")
    colours = "() => [getComputedStyle(document.body).backgroundColor, document.getElementById('spectrum-0')._fullLayout.font.color]"
    light = report.page.evaluate(colours)
    button = report.page.get_by_role("button", name="Dark mode")
    button.click()
    dark = report.page.evaluate(colours)
    assert light[0] != dark[0]
    assert light[1] != dark[1]
    assert button.get_attribute("aria-pressed") == "true"
    report.page.reload()
    report.page.wait_for_function("document.documentElement.dataset.ready")
    assert report.page.evaluate("document.documentElement.dataset.theme") == "dark"


@pytest.mark.browser
def test_tables_sort_by_value_with_missing_numbers_last(reading):
    report = reading
    table = report.page.locator("#numbers table.sortable")
    names = "() => [...document.querySelectorAll('#numbers .sortable tbody th')].map(th => th.textContent)"
    table.get_by_role("button", name="effective rank", exact=True).click()
    assert report.page.evaluate(names) == ["mean", "grounded", "random"]
    table.get_by_role("button", name="effective rank", exact=True).click()
    assert report.page.evaluate(names) == ["random", "grounded", "mean"]
    head = table.locator("th[aria-sort=descending]")
    assert head.count() == 1
    table.get_by_role("button", name="effective rank, centred").click()
    assert report.page.evaluate(names)[-1] == "mean", "an undefined rank sorts last"


@pytest.mark.browser
def test_the_neighbour_table_sorts_filters_and_changes_checkpoint(reading):
    report = reading
    section = report.page.locator("#neighbours")
    section.get_by_label("Checkpoint").select_option(label="grounded")
    section.get_by_role("button", name="cosine").click()
    cosines = section.locator("tbody td:nth-child(3)").all_text_contents()
    assert cosines == sorted(cosines, key=float)
    section.get_by_label("Filter").fill("c_8")
    assert section.locator("tbody th").all_text_contents() == ["<c_8>"]


@pytest.mark.browser
def test_explanations_show_on_focus_and_hide_on_escape(opened):
    report = opened("single")
    term = report.page.locator("a.term", has_text="effective rank").first
    term.focus()
    tip = report.page.locator("#tip")
    assert "directions" in tip.text_content()
    assert tip.is_visible()
    report.page.keyboard.press("Escape")
    assert tip.is_hidden()
    term.click()
    assert report.page.locator("#explain-effective_rank[open]").count() == 1


@pytest.mark.browser
def test_it_prints_in_light_with_every_chart(opened):
    report = opened(theme="dark")
    printed = report.page.pdf(format="A4")
    assert printed[:5] == b"%PDF-"
    assert report.page.evaluate("[...document.querySelectorAll('.chart')].every(node => node._fullLayout)")
    assert report.page.evaluate("document.documentElement.dataset.theme") == "dark", "the screen keeps its theme"
