"""A killed run resumes from its last complete state and ends, bit for bit, where it would have ended."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gti_diag.errors import InputError
from gti_train.grounding import GroundingConfig, ground_checkpoint
from gti_train.state import State, load_state, save_state
from gti_train.vocabulary import extend_checkpoint

from .grounding_cases import CODES, EXAMPLES

# Small kept prefixes: some are kept, some run again; evaluations and a patience that never runs out.
CONFIG = GroundingConfig(steps=14, batch=4, warmup=4, schedule="cosine", every=4, patience=9, cache_bytes=30_000)
RUN = """
import sys, time
from gti_train.grounding import ground_checkpoint
from tests.gti_train.test_state import CONFIG, EXAMPLES
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
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000009.pt", "step-00000010.pt"]
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
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000003.pt"]


def test_sigkill_and_resume_is_bitwise_invisible(tiny_lm, tmp_path):
    source = tmp_path / "mean"
    extend_checkpoint(tiny_lm(), source, tokens=CODES, codebooks=torch.randn(8, 3), dtype="float32")
    given = {"examples": EXAMPLES[:8], "held_out": EXAMPLES[8:], "config": CONFIG, "compute": "float32"}
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, str(source), str(tmp_path / "killed"), "8"],
        stdout=subprocess.PIPE, cwd=Path(__file__).parents[2], env=environment, text=True,
    )  # fmt: skip
    assert any(line.strip() == "8" for line in process.stdout)  # state of step 6 is the newest now
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not (tmp_path / "killed").exists()
    assert sorted(p.stem for p in (tmp_path / "killed.state").glob("*.pt")) == ["step-00000003", "step-00000006"]

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
    import json

    return {key: value for key, value in json.loads(line).items() if key != "seconds"}
