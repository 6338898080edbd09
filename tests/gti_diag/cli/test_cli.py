"""The command line as a user meets it: files, exit codes, and one clear line when something is wrong."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from gti_diag import cli
from gti_diag.files import parse_bytes

TOKENS = [f"<{letter}_{code}>" for letter in "ab" for code in range(8)]


@pytest.fixture
def run(monkeypatch, capsys):
    """Run `gti-diag …` in this process; returns (exit code, standard output, standard error)."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["gti-diag", *map(str, arguments)])
        capsys.readouterr()  # what making the checkpoint printed
        try:
            cli.main()
            code = 0
        except SystemExit as left:
            code = left.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def everything(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_analyze_writes_the_report_and_prints_the_verdict(run, tiny_lm, tmp_path):
    code, out, _ = run(
        "analyze", tiny_lm("mean", new_tokens=TOKENS), "--out", tmp_path / "out", "--json", tmp_path / "a.json"
    )
    assert code == 0
    analysis = json.loads((tmp_path / "out" / "analysis.json").read_text())
    assert json.loads((tmp_path / "a.json").read_text()) == analysis
    assert analysis["schema"] == 1 and analysis["command"][:2] == ["gti-diag", "analyze"]
    assert "added tokens look like codes" in (tmp_path / "out" / "summary.md").read_text()
    assert "look like codes" in out or "collapsed" in out or "unstructured" in out or "healthy" in out
    drawn = everything(tmp_path / "out" / "figures")
    assert {"cosine-panels.png", "cosine-panels.svg", "spectrum.png", "spectrum.svg"} <= {
        n.replace("_", "-") for n in drawn
    }


@pytest.mark.parametrize("given, name", [("..", "base"), (".", "inner"), ("{}/", "base"), ("hf://a/..", "checkpoint")])
def test_a_report_without_a_place_lies_under_the_name_of_its_checkpoint(tmp_path, monkeypatch, given, name):
    from gti_diag.cli.analyze import _named

    (tmp_path / "base" / "inner").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "base" / "inner")
    assert _named(given.format(tmp_path / "base")) == name


def test_analyze_of_the_folder_above_writes_nothing_beside_the_report(run, tiny_lm, monkeypatch):
    folder = tiny_lm("plain")
    (folder / "here").mkdir()
    monkeypatch.chdir(folder / "here")
    assert run("analyze", "..", "--formats", "json", "--figures", "none")[0] == 0
    assert everything(folder / "here") == ["gti-report", "gti-report/plain", "gti-report/plain/analysis.json"]


def test_no_new_tokens_is_said_plainly_and_passes(run, tiny_lm, tmp_path):
    code, out, _ = run("analyze", tiny_lm("plain"), "--out", tmp_path / "out")
    assert code == 0 and "no new tokens were found" in " ".join(out.split())
    assert json.loads((tmp_path / "out" / "analysis.json").read_text())["matrices"]["input"]["groups"]["text"]["count"]


def test_compare_puts_checkpoints_side_by_side(run, tiny_lm, tmp_path):
    folders = [tiny_lm(name, new_tokens=TOKENS) for name in ("first", "second")]
    code, out, _ = run("compare", *folders, "--out", tmp_path / "out")
    comparison = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert code == 0 and [a["checkpoint"]["name"] for a in comparison["analyses"]] == ["first", "second"]
    assert "first" in out and "second" in out


def test_quiet_prints_nothing(run, tiny_lm, tmp_path):
    code, out, err = run("analyze", tiny_lm("plain"), "--out", tmp_path / "out", "--quiet", "--formats", "json")
    assert (code, out, err) == (0, "", "") and not (tmp_path / "out" / "summary.md").exists()


def test_figures_are_redrawn_from_results_alone(run, tiny_lm, tmp_path):
    run("analyze", tiny_lm("mean", new_tokens=TOKENS), "--out", tmp_path / "study")
    code, out, _ = run("figures", tmp_path / "study", "--out", tmp_path / "again", "--formats", "pdf")
    assert (
        code == 0 and all(name.endswith(".pdf") for name in everything(tmp_path / "again")) and "analysis.json" in out
    )


def test_inspect_reads_no_row(run, tiny_lm, monkeypatch):
    from gti_diag.checkpoint import Matrix

    folder = tiny_lm("plain", new_tokens=TOKENS)
    monkeypatch.setattr(Matrix, "rows", lambda *_: pytest.fail("inspect read a row"))
    code, out, _ = run("inspect", folder)
    assert code == 0 and "16 tokens on 2 levels [8, 8]" in " ".join(out.split())
    code, out, _ = run("inspect", folder, "--json")
    assert json.loads(out)["tokens"]["groups"]["new"]["count"] == 16


def test_inspect_does_not_wait_for_torch(tiny_lm):
    folder = tiny_lm("untied", new_tokens=TOKENS, tied=False)
    code = (
        "import sys, gti_diag.cli as cli\n"
        f"sys.argv = ['gti-diag', 'inspect', {str(folder)!r}]\n"
        "try: cli.main()\n"
        "finally: print([m for m in ('torch', 'scipy', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "output" in done.stdout and done.stdout.splitlines()[-1] == "[]"


def test_explain_one_and_all(run):
    code, out, _ = run("explain", "effective_rank")
    assert code == 0 and "Roy & Vetterli" in out and "exp(−Σ" in out
    code, out, _ = run("explain")
    assert code == 0 and "collapsed" in out and "dispersion_ratio" in out


def no_weights(folder):
    (folder / "model.safetensors").unlink()


def truncated(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def missing_shard(folder):
    (folder / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": {"model.embed_tokens.weight": "model-00001-of-00001.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def nan_rows(folder):
    file = folder / "model.safetensors"
    tensors = load_file(file)
    tensors["model.embed_tokens.weight"][3] = torch.nan
    save_file(tensors, file, metadata={"format": "pt"})


@pytest.mark.parametrize(
    "damage,words",
    [
        (no_weights, "plain"),
        (truncated, "model.safetensors"),
        (missing_shard, "model-00001-of-00001.safetensors"),
        (nan_rows, "NaN or infinity"),
    ],
)
def test_a_damaged_checkpoint_is_one_line_and_exit_2(run, tiny_lm, tmp_path, damage, words):
    folder = tiny_lm("plain")
    damage(folder)
    refused(run("analyze", folder, "--out", tmp_path / "out"), words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "options,words",
    [
        (["--new", "<nothing_"], "matches none"),
        (["--max-memory", "lots"], "is not a size"),
        (["--max-memory", "1MB"], "under 64MB"),
        (["--formats", "json,xml"], "unknown format 'xml'"),
        (["--device", "tpu"], "choose auto, cpu or cuda"),
        (["--style", "loud"], "loud"),
    ],
)
def test_bad_options_are_one_line_and_exit_2(run, tiny_lm, tmp_path, options, words):
    refused(run("analyze", tiny_lm("plain"), "--out", tmp_path / "out", *options), words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("seed", ["-1", str(2**70), "1.5"])
def test_a_seed_is_a_small_whole_number(run, seed):
    code, _, err = run("analyze", "x", "--seed", seed)
    assert code == 2
    assert "--seed" in err and "Traceback" not in err


def test_a_reference_of_the_wrong_length_is_refused(run, tiny_lm, tmp_path):
    np.save(tmp_path / "r.npy", np.ones((3, 2)))
    found = run(
        "analyze", tiny_lm("n", new_tokens=TOKENS), "--reference", tmp_path / "r.npy", "--out", tmp_path / "out"
    )
    refused(found, "has 3 rows, but there are 16 new tokens")
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_cannot_be_written_is_told_first(run, tiny_lm, tmp_path):
    (tmp_path / "file").write_text("kept")
    refused(run("analyze", tiny_lm("plain"), "--out", tmp_path / "file"), "choose another --out")
    assert (tmp_path / "file").read_text() == "kept"


def refused(found, words):
    code, out, err = found
    assert code == 2 and out == "", err
    assert err.startswith("gti-diag: ") and err.count("\n") == 1 and words in err, err


def test_unknown_options_and_commands_are_usage_errors(run):
    assert run("analyze")[0] == 2
    assert run("dance")[0] == 2


def test_interrupt_leaves_nothing_and_exits_130(run, tiny_lm, tmp_path, monkeypatch):
    from gti_diag.analysis import diagnosis

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(diagnosis, "partition", interrupted)
    code, _, err = run("analyze", tiny_lm("plain"), "--out", tmp_path / "out")
    assert code == 130 and not (tmp_path / "out").exists()
    assert err.endswith("gti-diag: interrupted\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_full_disk_behind_the_output_is_one_line(tiny_lm, options):
    command = [sys.executable, "-m", "gti_diag", "inspect", str(tiny_lm("plain")), *options]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr == "gti-diag: standard output: No space left on device\n"


def test_the_command_is_installed_and_helps_at_once():
    done = subprocess.run([sys.executable, "-m", "gti_diag", "--help"], capture_output=True, text=True, check=True)
    assert "analyze" in done.stdout and "compare" in done.stdout
    assert os.path.exists(os.path.join(os.path.dirname(sys.executable), "gti-diag"))


@pytest.mark.parametrize("text,size", [("2GB", 2 * 10**9), ("512 MiB", 2**29), ("1e9", 10**9), ("1.5g", 15 * 10**8)])
def test_sizes(text, size):
    assert parse_bytes(text) == size
