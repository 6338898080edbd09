"""The command line: each stage alone, plain refusals with exit code 2, and help that is instant and teaches."""

import json
import os
import subprocess
import sys

import pytest
from safetensors.torch import load_file

from gti_diag.errors import InputError

COMMANDS = ("demo", "catalogue", "world", "sids", "extend", "ground", "sft", "eval", "curves")


@pytest.fixture
def shop(command, tmp_path):
    """A small catalogue and its semantic IDs, made by the commands themselves."""
    assert command("world", "--out", tmp_path / "shop", "--items", 90, "--users", 4)[0] == 0
    items = tmp_path / "shop" / "items.jsonl"
    code, out, _ = command(
        "sids", items, "--out", tmp_path / "sids", "--codes", "6,5", "--dimensions", 8, "--unique", "no"
    )
    assert code == 0
    assert "90 items, 11 code tokens" in out
    return items, tmp_path / "sids"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_an_example(command, name):
    code, out, _ = command(name, "--help")
    assert code == 0
    assert f"Example: gti-train {name}" in " ".join(out.split())


def test_help_imports_nothing_heavy():
    program = (
        "import sys; from gti_train import cli; sys.argv = ['gti-train', '--help']\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'matplotlib', 'sklearn', 'scipy', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert "gti-train demo" in " ".join(done.stdout.split())


def test_sids_extend_and_ground_make_a_grounded_checkpoint(command, shop, tiny_lm, tmp_path):
    items, sids = shop
    assert command("extend", tiny_lm(), "--sids", sids, "--init", "mean", "--out", tmp_path / "mean")[0] == 0
    code, out, err = command(
        "ground", tmp_path / "mean", "--items", items, "--sids", sids, "--out", tmp_path / "gti",
        "--steps", 2, "--batch-size", 3, "--kinds", "title-to-code", "--dtype", "float32",
    )  # fmt: skip
    assert code == 0, err
    assert "11 tokens grounded in 90 items" in out
    sidecar = json.loads((tmp_path / "gti" / "gti.json").read_text())
    assert (sidecar["init"], sidecar["stage"], sidecar["step"]) == ("gti", "ground", 2)
    assert sidecar["new_tokens"][:2] == ["<a_0>", "<a_1>"]
    levels = [sum(sidecar["counts"][i] for i, of in enumerate(sidecar["levels"]) if of == level) for level in (1, 2)]
    assert levels == [90, 90]  # each item carries one code of each level
    for name in ("codebooks", "item_means"):
        assert (tmp_path / "gti" / f"{name}.safetensors").read_bytes() == (sids / f"{name}.safetensors").read_bytes()
        assert sidecar[name] == f"{name}.safetensors"


def test_ground_watches_held_out_items_and_runs_the_second_phase(command, shop, tiny_lm, tmp_path):
    items, sids = shop
    assert command("extend", tiny_lm(), "--sids", sids, "--init", "mean", "--out", tmp_path / "mean")[0] == 0
    code, out, err = command(
        "ground", tmp_path / "mean", "--items", items, "--sids", sids, "--out", tmp_path / "gti",
        "--steps", 6, "--batch-size", 3, "--kinds", "title-to-code", "--dtype", "float32", "--every", 1, "--warmup", 1,
        "--hold-out", 0.1, "--watch", "held_out_loss", "--patience", 50, "--schedule", "cosine", "--cache", "10MB",
        "--then-steps", 2, "--save-every", 2, "--keep", 1,
    )  # fmt: skip
    assert code == 0, err
    assert "grounded in 81 items" in out
    records = [json.loads(line) for line in (tmp_path / "gti" / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == list(range(1, 9))
    assert all("held_out_loss" in record for record in records[:6])
    assert records[5]["learning_rate"] < records[1]["learning_rate"] and records[7]["learning_rate"] <= 2e-5


def test_a_random_start_has_the_spread_asked_for(command, tiny_lm, tmp_path):
    base, tokens = tiny_lm(), ",".join(f"<x_{i}>" for i in range(64))
    arguments = ("extend", base, "--tokens", tokens, "--out", tmp_path / "a", "--dtype", "float32")
    assert command(*arguments, "--init", "random", "--sigma", 0.5)[0] == 0
    rows = load_file(tmp_path / "a" / "model.safetensors")["model.embed_tokens.weight"][-64:]
    assert rows.std().item() == pytest.approx(0.5, rel=0.05)
    code, _, err = command(*arguments, "--init", "mean", "--sigma", 0.5)
    assert code == 2 and "--sigma is for --init random" in err
    code, _, err = command(*arguments, "--init", "random", "--share", 0.5)
    assert code == 2 and "--share is for --init gaussian" in err


def test_extend_takes_tokens_from_the_line_or_a_file(command, tiny_lm, tmp_path):
    base = tiny_lm()
    assert command("extend", base, "--tokens", "<x_0>, <x_1>", "--init", "random", "--out", tmp_path / "a")[0] == 0
    (tmp_path / "list.txt").write_text("<x_0>\n<x_1>\n\n")
    arguments = ("--tokens", f"@{tmp_path / 'list.txt'}", "--init", "random", "--out", tmp_path / "b")
    assert command("extend", base, *arguments)[0] == 0
    one, other = (json.loads((tmp_path / name / "gti.json").read_text()) for name in "ab")
    assert one["new_tokens"] == other["new_tokens"] == ["<x_0>", "<x_1>"]


def test_description_start_needs_the_items(command, shop, tiny_lm, tmp_path):
    items, sids = shop
    arguments = ("extend", tiny_lm(), "--sids", sids, "--init", "description", "--out", tmp_path / "described")
    code, _, err = command(*arguments)
    assert code == 2
    assert "needs descriptions" in err
    assert command(*arguments, "--items", items)[0] == 0
    assert json.loads((tmp_path / "described" / "gti.json").read_text())["init"] == "description"


def test_ground_refuses_semantic_ids_of_another_checkpoint(command, shop, tiny_lm, tmp_path):
    items, sids = shop
    assert command("extend", tiny_lm(), "--tokens", "<a_0>,<zz_1>", "--out", tmp_path / "mean")[0] == 0
    arguments = ("ground", tmp_path / "mean", "--items", items, "--sids", sids, "--out", tmp_path / "gti")
    code, _, err = command(*arguments)
    assert code == 2
    assert "'<a_1>' of" in err and "(10 are not)" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("extend", "{tmp}/none", "--tokens", "<x>", "--items", "{items}", "--out", "{tmp}/new"), "are for --sids"),
        (
            ("extend", "{tmp}/none", "--tokens", "<x>", "--init", "description", "--out", "{tmp}/new"),
            "a catalogue does not describe --tokens",
        ),
        (
            ("ground", "{tmp}", "--items", "{items}", "--sids", "{sids}", "--out", "{tmp}/new", "--lr", "-1"),
            "learning rate is -1",
        ),
        (
            ("ground", "{tmp}", "--items", "{items}", "--sids", "{sids}", "--out", "{tmp}/new", "--watch", "poem"),
            "'poem' cannot be watched",
        ),
        (("sids", "{tmp}/none.jsonl", "--out", "{tmp}/new"), "no such file"),
        (("sids", "{items}", "--out", "{tmp}/new", "--codes", "six"), "--codes 'six'"),
        (("sids", "{items}", "--out", "{tmp}/new", "--codes", "6,500"), "distinct vectors for 500 codes"),
        (("sids", "{items}", "--out", "{tmp}/new", "--encoder", "{tmp}/none"), "cannot be loaded"),
        (("extend", "{tmp}/none", "--sids", "{sids}", "--out", "{tmp}/new"), "cannot load"),
        (("extend", "{tmp}/none", "--out", "{tmp}/new"), "either --sids DIR or --tokens LIST"),
        (("extend", "{tmp}/none", "--tokens", "@{tmp}/none", "--out", "{tmp}/new"), "cannot be read"),
        (
            ("ground", "{tmp}", "--items", "{items}", "--sids", "{sids}", "--out", "{tmp}/new", "--cache", "big"),
            "--cache",
        ),
        (("ground", "{tmp}", "--items", "{items}", "--sids", "{sids}", "--out", "{tmp}/new"), "gti.json"),
        (
            ("ground", "{tmp}", "--items", "{items}", "--sids", "{sids}", "--out", "{tmp}/new", "--kinds", "poem"),
            "choose one or more of",
        ),
        (("demo", "--model", "{tmp}/none", "--out", "{tmp}/new"), "cannot load"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(command, shop, tmp_path, arguments, message):
    items, sids = shop
    places = {"tmp": tmp_path, "items": items, "sids": sids}
    code, _, err = command(*(part.format(**places) for part in arguments))
    assert code == 2
    last = err.strip().splitlines()[-1]
    assert last.startswith("gti-train: ")
    assert message in last
    assert not (tmp_path / "new" / "gti.json").exists()


def test_usage_errors_are_exit_2(command):
    assert command("ground", "--steps", "many")[0] == 2
    assert command("poem")[0] == 2


def test_demo_passes_its_options_on_and_says_where_the_report_is(command, monkeypatch, tmp_path):
    seen = []

    def run(stages, out, *, progress):
        seen.extend(stages)
        for stage in stages:
            progress(stage, 0.0, "")
            progress(stage, 1.0, "")
        (out / "report").mkdir(parents=True)
        (out / "report" / "summary.md").write_text("# Summary")

    monkeypatch.setattr("gti_train.study.stages.run_stages", run)
    monkeypatch.setattr("gti_diag.document.read", lambda path: [])
    monkeypatch.setattr("gti_diag.render.terminal.summary", lambda analyses: "the table")
    code, out, _ = command("demo", "--out", tmp_path / "run", "--steps", 7, "--codes", "8,9", "--seed", 3)
    assert code == 0
    settings = {stage.output: stage.settings for stage in seen}
    assert settings["seed-3/sids"]["sizes"] == [8, 9]
    assert settings["seed-3/gti"] | {"steps": 7, "seed": 3} == settings["seed-3/gti"]
    assert "the table" in out
    assert str(tmp_path / "run" / "report" / "summary.md") in out.splitlines()[-1]


def test_interruption_is_exit_130(command, monkeypatch, tmp_path):
    def run(stages, out, *, progress):
        raise KeyboardInterrupt

    monkeypatch.setattr("gti_train.study.stages.run_stages", run)
    assert command("demo", "--out", tmp_path)[0] == 130


def test_missing_default_model_names_the_command(command, monkeypatch, tmp_path):
    def missing():
        raise InputError("SmolLM2-135M is not installed: use `make demo`")

    monkeypatch.setattr("gti_train.model.loading.installed_model", missing)
    code, _, err = command("demo", "--out", tmp_path / "run", "--quiet")
    assert code == 2
    assert "make demo" in err


def test_listed_tokens_keep_their_blanks(tmp_path):
    from gti_train.cli.options import listed_tokens

    (tmp_path / "new.txt").write_bytes("[Q] \r\n\n [D]\na\u2028b\n".encode())
    assert listed_tokens(f"@{tmp_path / 'new.txt'}") == ["[Q] ", " [D]", "a\u2028b"]
    assert listed_tokens("a, b") == ["a", "b"]
