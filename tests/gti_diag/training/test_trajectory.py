"""Trajectories: which checkpoints, in what order, and what is not read twice."""

import json
import os
import shutil
from pathlib import Path

import pytest

from gti_diag.errors import InputError
from gti_diag.training import trajectory
from tests.gti_diag.gate.gate_cases import analysis

CODES = [f"<a_{code}>" for code in range(6)]


@pytest.fixture
def run(tiny_lm, tmp_path) -> Path:
    """A run with three real checkpoints."""
    folder = tmp_path / "run"
    made = tiny_lm("made", new_tokens=CODES)
    for step in (9, 10, 100):
        shutil.copytree(made, folder / f"checkpoint-{step}")
    return folder


@pytest.fixture
def counted(monkeypatch):
    """Replace the measuring by a quick answer; returns the paths that were measured."""
    import gti_diag.analysis.diagnosis

    measured = []

    def diagnose(opened, **options):
        measured.append(Path(opened.path).name)
        return analysis(step=None, name=Path(opened.path).name)

    monkeypatch.setattr(gti_diag.analysis.diagnosis, "diagnose", diagnose)
    return measured


def lines(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / trajectory.LINES).read_text().splitlines()]


def test_globs_and_run_folders_come_in_natural_order_and_once(run):
    expected = [str(run / f"checkpoint-{step}") for step in (9, 10, 100)]
    assert trajectory.expand([str(run)]) == expected
    assert trajectory.expand([f"{run}/checkpoint-*", expected[0]]) == expected
    assert trajectory.expand(["owner/name@main"]) == ["owner/name@main"]


def test_steps_are_read_from_the_trainer_then_the_name_then_the_sidecar(tmp_path):
    folder = tmp_path / "checkpoint-30"
    folder.mkdir()
    assert trajectory.step_of(str(folder), 5) == 30
    assert trajectory.step_of(str(tmp_path / "final"), 5) == 5
    assert trajectory.step_of(str(tmp_path / "final"), None) is None
    (folder / "trainer_state.json").write_text('{"global_step": 31}')
    assert trajectory.step_of(str(folder), 5) == 31
    (folder / "trainer_state.json").write_text("{")
    with pytest.raises(InputError, match=r"trainer_state\.json: is not usable JSON"):
        trajectory.step_of(str(folder), 5)


def test_only_new_checkpoints_are_measured(run, counted, tmp_path):
    out = tmp_path / "out"
    first = list(trajectory.follow([str(run)], out))
    assert [line["checkpoint"]["step"] for line in first[0]] == [9, 10, 100]
    assert counted == ["checkpoint-9"], "copies share their fingerprint"
    assert [line["checkpoint"]["step"] for line in lines(out)] == [9, 10, 100]

    counted.clear()
    os.utime(run / "checkpoint-9" / "model.safetensors")  # touched, not changed
    assert len(next(trajectory.follow([str(run)], out))) == 3
    assert counted == []

    list(trajectory.follow([str(run)], out, seed=1))
    assert counted == ["checkpoint-9"], "other options, other numbers"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"schema": 1}', b"\xff", b"[" * 50_000])
def test_a_damaged_cache_is_measured_again(run, counted, tmp_path, content):
    pattern, out = [f"{run}/checkpoint-9"], tmp_path / "out"
    list(trajectory.follow(pattern, out))
    counted.clear()
    for file in (out / "cache").iterdir():
        file.write_bytes(content)
    (found,) = trajectory.follow(pattern, out)
    assert (len(found), counted) == (1, ["checkpoint-9"])


def test_watching_picks_up_what_appears_and_waits_for_what_is_half_written(run, counted, tmp_path):
    late, half = run / "checkpoint-200", run / "checkpoint-300"
    events = iter(
        [
            lambda: shutil.copytree(run / "checkpoint-9", late),
            lambda: (half.mkdir(), (half / "model.safetensors").write_bytes(b"\x08\0\0")),
            lambda: (shutil.rmtree(half), shutil.copytree(run / "checkpoint-9", half)),
        ]
    )
    looks = trajectory.follow([str(run)], tmp_path / "out", interval=1.0, sleep=lambda seconds: next(events)())
    seen = [[line["checkpoint"]["step"] for line in next(looks)] for _ in range(3)]
    assert seen == [[9, 10, 100], [200], [300]]


def test_a_checkpoint_that_stays_broken_is_an_error_even_while_watching(run, counted, tmp_path):
    (run / "checkpoint-300").mkdir()
    looks = trajectory.follow([str(run)], tmp_path / "out", interval=1.0, sleep=lambda seconds: None)
    next(looks)
    with pytest.raises(InputError, match="checkpoint-300"):
        next(looks)


def test_nothing_to_measure_is_an_error(tmp_path):
    with pytest.raises(InputError, match=r"no checkpoint matches .*none-\*"):
        list(trajectory.follow([str(tmp_path / "none-*")], tmp_path / "out"))


def test_real_lines_are_slim_drawn_and_the_same_from_several_processes(run, tmp_path):
    shutil.rmtree(run / "checkpoint-10")
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    found = next(trajectory.follow([str(run)], alone))
    next(trajectory.follow([str(run)], shared, jobs=2))
    assert lines(alone) == lines(shared) == found
    assert "singular_values" not in found[0]["matrices"]["input"]["groups"]["new"]
    assert max(map(len, (alone / trajectory.LINES).read_text().splitlines())) < 20_000
    assert [path.name for path in trajectory.draw(alone, formats=("svg",))] == ["trajectory.svg"]
    assert "training step" in (alone / "trajectory.svg").read_text()
    assert trajectory.summary(found[0]).startswith("step 9  checkpoint-9  ")


def test_one_checkpoint_makes_no_figure(run, counted, tmp_path):
    next(trajectory.follow([str(run / "checkpoint-9")], tmp_path / "out"))
    assert trajectory.draw(tmp_path / "out") == []


def test_the_command_prints_a_line_per_checkpoint_and_draws(run, counted, capsys, monkeypatch, tmp_path):
    import sys

    from gti_diag import cli

    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["gti-diag", "trajectory", f"{run}/checkpoint-*", "--out", str(out)])
    with pytest.raises(SystemExit, match="0"):
        cli.main()
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in shown] == ["9", "10", "100"]
    assert sorted(path.name for path in out.iterdir() if path.is_file()) == [
        "trajectory.jsonl", "trajectory.png", "trajectory.svg"
    ]  # fmt: skip
