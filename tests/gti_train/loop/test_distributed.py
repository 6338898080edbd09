"""Two processes are one process with the same global batch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from gti_train.grounding.ground import GroundingConfig
from gti_train.grounding.stage import ground_checkpoint
from gti_train.model.loading import load_language_model
from gti_train.model.matrices import matrices
from gti_train.model.vocabulary import extend_checkpoint
from tests.gti_train.grounding.grounding_cases import CODES, EXAMPLES

# Batches of 4 over 9 examples end in a batch of one: a process without a share.
CONFIG = GroundingConfig(steps=9, batch=4, warmup=2, every=3, learning_rate=3e-3)
RUN = """
import sys
from accelerate.tracking import GeneralTracker
from gti_train.grounding.stage import ground_checkpoint
from tests.gti_train.loop.test_distributed import CONFIG, EXAMPLES

class Kept(GeneralTracker):
    name, requires_logging_directory, tracker = "kept", False, None

    def store_init_configuration(self, values):
        pass

    def log(self, values, step=None, **_):
        print("tracked", step)

    def finish(self):
        print("finished")

ground_checkpoint(sys.argv[1], sys.argv[2], examples=EXAMPLES[:9], held_out=EXAMPLES[9:], config=CONFIG,
                  compute="float32", dtype="float32", track=[Kept()])
"""


def test_two_gloo_processes_equal_one(tiny_lm, tmp_path):
    source = tmp_path / "mean"
    extend_checkpoint(tiny_lm(), source, tokens=CODES, dtype="float32")
    (tmp_path / "run.py").write_text(RUN)
    launch = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "0", "--standalone"]
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, *launch, str(tmp_path / "run.py"), str(source), str(tmp_path / "two")],
        cwd=root, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split("\n")[-4:] == ["tracked 8", "tracked 9", "finished", ""]
    ground_checkpoint(
        source, tmp_path / "one", examples=EXAMPLES[:9], held_out=EXAMPLES[9:], config=CONFIG,
        compute="float32", dtype="float32",
    )  # fmt: skip
    curves = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    ]
    assert len(curves[1]) == 9
    for one, two in zip(*curves, strict=True):
        for name in set(one) - {"seconds"}:
            assert abs(one[name] - two[name]) <= 1e-5 * max(1, abs(one[name])), name
    rows = [matrices(load_language_model(tmp_path / n, dtype="float32")[0])["input"].data for n in ("one", "two")]
    torch.testing.assert_close(rows[1], rows[0], rtol=0, atol=1e-5)
