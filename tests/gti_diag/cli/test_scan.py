"""gti-diag scan at the terminal."""

import json

import pytest
from safetensors.torch import load_file, save_file

from .test_cli import run  # noqa: F401

EMBEDDING = "model.embed_tokens.weight"


@pytest.fixture
def zeroed(tiny_lm):
    folder = tiny_lm("zeroed")
    tensors = load_file(folder / "model.safetensors")
    tensors[EMBEDDING][[2, 300]] = 0
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_scan_names_the_rows_and_writes_the_document(run, zeroed, tmp_path):  # noqa: F811
    code, out, _ = run("scan", zeroed, "--json", tmp_path / "scan.json")
    flat = " ".join(out.split())
    assert (
        code == 0
        and "2 exactly zero [zero]" in flat
        and "</s> 2 (special" in flat
        and "to do: gti-train repair" in flat
    )
    found = json.loads((tmp_path / "scan.json").read_text())
    (finding,) = found["matrices"]["input"]["findings"]
    assert found["schema"] == 1 and finding["kind"] == "zero" and finding["ids"] == [2, 300]


def test_the_exit_code_says_what_was_asked_for(run, zeroed, tiny_lm):  # noqa: F811
    assert run("scan", zeroed, "--fail-on", "zero,cluster", "--quiet")[:2] == (1, "")
    assert run("scan", zeroed, "--fail-on", "cluster")[0] == 0
    assert run("scan", tiny_lm("sound"), "--fail-on", "any")[:1] == (0,)
    code, _, error = run("scan", zeroed, "--fail-on", "zeroes")
    assert code == 2 and "--fail-on 'zeroes': choose some of" in error


def test_top_bounds_what_is_shown(run, zeroed):  # noqa: F811
    assert "and 1 more" in run("scan", zeroed, "--top", 1)[1]


def test_every_file_is_written(run, zeroed, tmp_path):  # noqa: F811
    files = {"--junit": "a.xml", "--sarif": "a.sarif", "--summary": "a.md", "--html": "a.html"}
    options = [part for option, name in files.items() for part in (option, tmp_path / name)]
    assert run("scan", zeroed, "--fail-on", "zero", "-q", *options)[0] == 1
    texts = {name: (tmp_path / name).read_text() for name in files.values()}
    assert 'failures="1"' in texts["a.xml"] and '"level": "error"' in texts["a.sarif"]
    assert "| exactly zero | 2 |" in texts["a.md"] and "Every row: input" in texts["a.html"]


def test_no_new_tokens_is_not_the_whole_answer(run, zeroed, tmp_path):  # noqa: F811
    code, out, _ = run("analyze", zeroed, "--out", tmp_path / "out", "--formats", "md,html")
    assert code == 0 and "2 exactly zero [zero]" in out
    assert "| exactly zero | 2 |" in (tmp_path / "out" / "summary.md").read_text()
    assert 'id="rows-input"' in (tmp_path / "out" / "report.html").read_text()
    assert "worth it: of 400 rows looked at, 2 zero" in " ".join(run("inspect", zeroed)[1].split())
