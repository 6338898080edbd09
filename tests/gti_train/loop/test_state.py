"""A killed run resumes from its last complete state and ends, bit for bit, where it would have ended."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gti_diag.errors import InputError
from gti_train.grounding.ground import GroundingConfig
from gti_train.grounding.stage import ground_checkpoint
from gti_train.loop.state import State, _checksum, check_folder, clear_folder, load_state, newest_step, save_state
from gti_train.loop.training import LoopConfig
from gti_train.model.vocabulary import extend_checkpoint
from tests.gti_train.grounding.grounding_cases import CODES, EXAMPLES

# Small kept prefixes: some are kept, some run again; evaluations and a patience that never runs out.
CONFIG = GroundingConfig(steps=14, batch=4, warmup=4, schedule="cosine", every=4, patience=9, cache_bytes=30_000)
RUN = """
import sys, time
from gti_train.grounding.stage import ground_checkpoint
from tests.gti_train.loop.test_state import CONFIG, EXAMPLES
def progress(record):
    print(record.step, flush=True)
    if record.step == int(sys.argv[3]):
        time.sleep(60)
ground_checkpoint(sys.argv[1], sys.argv[2], examples=EXAMPLES[:8], held_out=EXAMPLES[8:], config=CONFIG,
                  compute="float32", progress=progress, save_every=3, keep=2)
"""


def state(step):
    return State(step, [torch.full((2,), float(step))], {"state": {}, "param_groups": [{"lr": 0.5}]}, {"value": 1.0})


def test_newest_is_loaded_and_few_are_kept(tmp_path):
    assert load_state(tmp_path / "none", run="r") is None
    for step in (3, 9, 10):
        save_state(state(step), tmp_path, run="r", keep=2)
    assert [p.name[:13] for p in sorted(tmp_path.iterdir())] == ["step-00000009", "step-00000010"]
    found = load_state(tmp_path, run="r")
    assert (found.step, found.best, found.optimizer) == (10, {"value": 1.0}, state(10).optimizer)
    assert torch.equal(found.parameters[0], torch.full((2,), 10.0))


def test_a_state_of_another_run_is_refused(tmp_path):
    save_state(state(3), tmp_path, run="r", keep=2)
    with pytest.raises(InputError, match="of a run with other settings or data"):
        load_state(tmp_path, run="s")


def test_an_interrupted_save_leaves_the_previous_state(tmp_path, monkeypatch):
    save_state(state(3), tmp_path, run="r", keep=2)

    def broken(content, path):
        Path(path).write_bytes(b"half a state")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", broken)
    with pytest.raises(KeyboardInterrupt):
        save_state(state(6), tmp_path, run="r", keep=2)
    assert load_state(tmp_path, run="r").step == 3
    assert [p.name[:13] for p in tmp_path.iterdir()] == ["step-00000003"]


def newest(folder):
    return max(folder.glob("step-*"))


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def misname(path):
    path.rename(path.with_name(path.name.replace("step-00000009", "step-00000012")))


def foreign(path):
    torch.save([1, 2], path)
    path.rename(path.with_name(f"step-00000009-{_checksum(path)}.pt"))


@pytest.mark.parametrize(
    "damage",
    [flip, misname, foreign, lambda path: path.write_bytes(b""), lambda path: path.write_bytes(path.read_bytes()[:-1])],
)
def test_a_damaged_state_is_passed_over_for_the_one_before(tmp_path, caplog, damage):
    for step in (3, 9):
        save_state(state(step), tmp_path, run="r", keep=2)
    damage(newest(tmp_path))
    assert load_state(tmp_path, run="r").step == 3
    (line,) = caplog.messages
    assert line.endswith("is damaged: passed over")


def test_the_newest_step_is_that_of_a_whole_state(tmp_path):
    for step in (3, 9):
        save_state(state(step), tmp_path, run="r", keep=2)
    flip(newest(tmp_path))
    assert newest_step(tmp_path) == 3
    save_state(state(9), tmp_path, run="r", keep=2)
    assert (newest_step(tmp_path), len(list(tmp_path.iterdir()))) == (9, 2)


def test_sigkill_and_resume_is_bitwise_invisible(tiny_lm, tmp_path):
    source = tmp_path / "mean"
    extend_checkpoint(tiny_lm(), source, tokens=CODES, codebooks=torch.randn(8, 3), dtype="float32")
    given = {"examples": EXAMPLES[:8], "held_out": EXAMPLES[8:], "config": CONFIG, "compute": "float32"}
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, str(source), str(tmp_path / "killed"), "8"],
        stdout=subprocess.PIPE, cwd=Path(__file__).parents[3], env=environment, text=True,
    )  # fmt: skip
    assert any(line.strip() == "8" for line in process.stdout)  # state of step 6 is the newest now
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base", "killed.state", "mean"]
    assert sorted(p.stem[:13] for p in (tmp_path / "killed.state").glob("*.pt")) == ["step-00000003", "step-00000006"]

    resumed: list[int] = []
    ground_checkpoint(source, tmp_path / "killed", **given, save_every=3, progress=lambda r: resumed.append(r.step))
    assert resumed == list(range(7, 15))
    ground_checkpoint(source, tmp_path / "whole", **given)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("killed", "whole")]
    assert weights[0] == weights[1]
    assert not (tmp_path / "killed.state").exists()
    lines = [(tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("killed", "whole")]
    assert [_timeless(x) for x in lines[0]] == [_timeless(x) for x in lines[1]]


def _timeless(line):
    return {key: value for key, value in json.loads(line).items() if key != "seconds"}


def test_what_is_not_of_a_run_is_neither_taken_over_nor_removed(tmp_path):
    folder = tmp_path / "out.state"
    check_folder(folder)
    save_state(state(3), folder, run="r", keep=2)
    save_state(state(4), folder / "unfrozen", run="r", keep=2)
    (folder / ".part-host-1-x").mkdir()  # of a save that was killed
    (folder / ".part-host-1-x" / "state.pt").touch()
    check_folder(folder)
    assert newest_step(folder) == 3
    (folder / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match=r"thesis.tex is no state of gti-train: move it"):
        check_folder(folder)
    clear_folder(folder)
    assert [p.name for p in folder.iterdir()] == ["thesis.tex"]
    (folder / "thesis.tex").unlink()
    clear_folder(folder)
    assert not folder.exists()


class Killed(BaseException):
    pass


@pytest.fixture
def run(tiny_lm, tmp_path):
    """Ground to a folder, or until a step after which nothing more happens; gives its steps and its weights."""
    source = tmp_path / "mean"
    extend_checkpoint(tiny_lm(), source, tokens=CODES, init="gaussian")

    def go(name, *, kill=None, **changes):
        def progress(record):
            if record.step == kill:
                raise Killed

        given = {"examples": EXAMPLES[:8], "held_out": EXAMPLES[8:], "compute": "float32", **changes}
        sidecar = ground_checkpoint(source, tmp_path / name, progress=progress, **given)
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        return sidecar, [json.loads(x)["step"] for x in lines], (tmp_path / name / "model.safetensors").read_bytes()

    def killed_and_whole(kill, **changes):
        with pytest.raises(Killed):
            go("killed", kill=kill, **changes)
        return go("killed", **changes), go("whole", **changes)

    return killed_and_whole


def test_a_run_killed_after_its_last_state_is_a_grounded_one(run):
    (sidecar, steps, weights), whole = run(6, config=GroundingConfig(steps=6, batch=4), save_every=3)
    assert (sidecar.init, sidecar.stage, sidecar.step) == ("gti", "ground", 6)
    assert (steps, weights) == whole[1:]


def test_a_run_killed_in_its_second_phase_keeps_all_metrics(run):
    then = LoopConfig(steps=5, batch=4)
    resumed, whole = run(11, config=GroundingConfig(steps=7, batch=4), then=then, save_every=3)
    assert resumed[1] == list(range(1, 13))
    assert resumed[1:] == whole[1:]
    assert resumed[0].step == 12


def test_a_run_killed_right_after_its_early_stop_trains_no_further(run):
    config = GroundingConfig(steps=40, batch=4, every=1, patience=1, learning_rate=5e-2)
    stop = 2
    resumed, whole = run(stop, config=config, save_every=1)
    assert whole[1][-1] == stop  # what this test is about
    assert resumed[1:] == whole[1:]


@pytest.mark.parametrize("most, kept", [(2_000, []), (60_000, [2])])
def test_a_full_disk_is_one_line_and_the_run_goes_on_afterwards(tiny_lm, tmp_path, most, kept):
    """Where a state fits, it is kept; where not even that, nothing is half there."""
    source, options = (
        tmp_path / "mean",
        {"examples": EXAMPLES, "config": GroundingConfig(steps=2), "compute": "float32"},
    )
    extend_checkpoint(tiny_lm(), source, tokens=CODES)
    ground_checkpoint(source, tmp_path / "whole", **options)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        with pytest.raises(
            InputError, match=r"cannot write .*/gti.*: (File too large|no more can be written; make room)$"
        ):
            ground_checkpoint(source, tmp_path / "gti", **options, save_every=50)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not (tmp_path / "gti").exists() and not list(tmp_path.rglob(".part-*"))
    assert [int(path.stem.split("-")[1]) for path in tmp_path.glob("gti.state/step-*.pt")] == kept
    ground_checkpoint(source, tmp_path / "gti", **options, save_every=50)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "gti")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize("steps, told", [(9, "loss is"), (1, "loss after the update is")])
def test_a_diverged_run_leaves_what_is_there(tiny_lm, tmp_path, steps, told):
    source = tmp_path / "mean"
    extend_checkpoint(tiny_lm(), source, tokens=CODES)
    ground_checkpoint(source, tmp_path / "gti", examples=EXAMPLES, config=GroundingConfig(steps=1))
    before = (tmp_path / "gti" / "model.safetensors").read_bytes()
    wild = GroundingConfig(steps=steps, learning_rate=1e9, warmup=0)
    with pytest.raises(
        InputError, match=rf"{told} \S+ at step {min(steps, 2)}, the run has diverged: lower the learning rate"
    ):
        ground_checkpoint(source, tmp_path / "gti", examples=EXAMPLES, config=wild)
    assert (tmp_path / "gti" / "model.safetensors").read_bytes() == before
