"""Hostile strings in every place that a user does not write himself, through every command and every format."""

import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from safetensors.torch import load_file, save_file

from gti_diag import cli
from tests.gti_diag.gate.gate_cases import HEALTHY
from tests.hostile import NASTY, harmless


@pytest.fixture
def run(monkeypatch, capsys):
    """Exit code, standard output and standard error of `gti-diag …`, all of it checked."""
    monkeypatch.setenv("COLUMNS", "60")

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["gti-diag", *map(str, arguments)])
        capsys.readouterr()  # what making the checkpoint printed
        with pytest.raises(SystemExit) as left:
            cli.main()
        printed = capsys.readouterr()
        harmless(printed.out + printed.err)
        return left.value.code or 0, printed.out, printed.err

    return call


@pytest.fixture
def nasty(tiny_lm):
    """A checkpoint whose tokens, tensors' folder and sidecar are hostile."""
    folder = tiny_lm("plain")
    place = folder.rename(folder.with_name("ckpt [INST] \x1b[31m\n::error::owned"))
    tokenizer = json.loads((place / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    for old, new in zip(
        [token for token, id in vocabulary.items() if 100 <= id < 100 + len(NASTY)], NASTY, strict=True
    ):
        vocabulary[new] = vocabulary.pop(old)
    (place / "tokenizer.json").write_text(json.dumps(tokenizer))
    ids = [vocabulary[token] for token in NASTY]
    sidecar = {
        "schema": 1,
        "new_tokens": NASTY,
        "ids": ids,
        "init": "[/b]\x1b[0m",
        "parent": "https://me:hunter2@host/[/x]",
    }
    (place / "gti.json").write_text(json.dumps(sidecar))
    return place


def test_inspect(run, nasty):
    for options in ([], ["--json"]):
        code, out, err = run("inspect", nasty, *options)
        assert code == 0, err
        assert "[/INST]" in out
    assert json.loads(out)["tokens"]["groups"]["new"]["first"] == NASTY[:3]


def test_analyze_in_every_format_and_figures(run, nasty, tmp_path):
    out = tmp_path / "out"
    code, _, err = run("analyze", nasty, "--out", out, "--formats", "json,md,html,tex", "--json", tmp_path / "a.json")
    assert code == 0, err
    assert run("figures", out, "--out", tmp_path / "again", "--formats", "svg")[0] == 0
    for file in (out / "summary.md", out / "report.html", out / "tables.tex"):
        text = file.read_text(encoding="utf-8")
        assert "hunter2" not in text
        assert "\x1b" not in text and "\u202e" not in text
        assert "<script>alert" not in text
    assert "hunter2" not in (out / "analysis.json").read_text(encoding="utf-8")


def test_scan_in_every_format(run, nasty, tmp_path):
    tensors = load_file(nasty / "model.safetensors")
    tensors["model.embed_tokens.weight"][json.loads((nasty / "gti.json").read_text())["ids"]] = 0
    save_file(tensors, nasty / "model.safetensors", metadata={"format": "pt"})
    files = {name: tmp_path / f"scan.{name}" for name in ("json", "junit", "sarif", "summary", "html")}
    options = [part for name, path in files.items() for part in (f"--{name}", path)]
    code, _, err = run("scan", nasty, "--top", 20, *options)
    assert code == 0, err
    ElementTree.parse(files["junit"])
    assert "hunter2" not in files["json"].read_text(encoding="utf-8")
    found = {
        f["kind"]: f for f in json.loads(files["json"].read_text(encoding="utf-8"))["matrices"]["input"]["findings"]
    }
    assert len(found["zero"]["ids"]) == len(NASTY)
    for name in ("junit", "sarif", "summary"):
        harmless(files[name].read_text(encoding="utf-8"))
    page = files["html"].read_text(encoding="utf-8")
    assert "hunter2" not in page and "<script>alert" not in page and "\x1b" not in page


def test_compare_and_trajectory(run, nasty, tmp_path):
    code, _, err = run("compare", nasty, nasty, "--out", tmp_path / "out", "--formats", "md,html")
    assert code == 0, err
    code, _, err = run("trajectory", nasty, "--out", tmp_path / "trajectory")
    assert code == 0, err
    assert "hunter2" not in "".join(
        path.read_text(errors="replace") for path in (tmp_path / "trajectory").rglob("*.json*")
    )


@pytest.mark.parametrize("text", NASTY)
def test_the_gate(run, tmp_path, monkeypatch, text):
    found = json.loads(json.dumps(HEALTHY))
    found["checkpoint"] |= {"path": text, "name": text, "notes": [f"silently untied: {text}"]}
    found["tokens"]["rule"] = text
    matrix = found["matrices"]["input"]
    matrix["verdict"] = {"label": "collapsed", "reasons": [{"text": text}], "advice": text}
    (tmp_path / "analysis.json").write_text(json.dumps(found))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "github"))
    files = {name: tmp_path / f"out.{name}" for name in ("junit", "sarif", "summary", "json")}
    options = [part for name, path in files.items() for part in (f"--{name}", path)]
    assert run("check", tmp_path / "analysis.json", *options)[0] == 1
    ElementTree.parse(files["junit"])
    for file in (files["sarif"], files["json"]):
        json.loads(file.read_text(encoding="utf-8"))
    for name in ("junit", "sarif", "summary"):
        harmless(files[name].read_text(encoding="utf-8"))
    harmless(Path(tmp_path / "github").read_text(encoding="utf-8"))
    assert run("baseline", tmp_path / "analysis.json", "-o", tmp_path / "b.json")[0] == 0
    assert "hunter2" not in (tmp_path / "b.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("text", [text for text in NASTY if "\ud800" not in text])
def test_what_is_not_there_is_named_in_one_line(run, text):
    for arguments in (["inspect", text], ["explain", text], ["check", "x", "--policy", text], ["check", "x", "--baseline", text],
                      ["figures", text], ["analyze", "x", "--style", text]):  # fmt: skip
        code, out, err = run(*arguments)
        assert (code, out) == (2, "")
        assert err.startswith("gti-diag: ") and err.count("\n") == 1
        assert "not foreseen" not in err, err
