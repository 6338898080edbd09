"""Two processes fine-tune as one does with the same global batch: every weight, and adapters."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file

from gti_train.recommend.config import FineTuningConfig
from gti_train.recommend.stage import fine_tune_checkpoint

from .fine_tuning_cases import extended, lessons, shop

# Batches of 3 over 7 families end in a batch of one: a process without a share.
CONFIG = FineTuningConfig(steps=4, batch=3, warmup=1, every=2, learning_rate=1e-3, watch="recall@5")
RUN = """
import sys
from tests.gti_train.recommend.test_two_processes import RANKS, run

for rank in RANKS:
    run(sys.argv[1], f"{sys.argv[2]}-{rank}", rank=rank)
"""
RANKS = (0, 2)


def run(source, out, *, rank):
    options = {"lessons": lessons(count=7), "sids": shop()[1], "compute": "float32"}
    fine_tune_checkpoint(source, out, config=replace(CONFIG, rank=rank), **options)


def test_two_gloo_processes_equal_one(tiny_lm, tmp_path):
    start = extended(tiny_lm(), tmp_path / "start")
    (tmp_path / "run.py").write_text(RUN)
    launch = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "0", "--standalone"]
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, *launch, str(tmp_path / "run.py"), str(start), str(tmp_path / "two")],
        cwd=root, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    for rank in RANKS:
        folders = tmp_path / "one", tmp_path / f"two-{rank}"
        run(start, folders[0], rank=rank)
        curves = [[json.loads(line) for line in (f / "metrics.jsonl").read_text().splitlines()] for f in folders]
        assert len(curves[1]) == 4
        for one, two in zip(*curves, strict=True):
            for name in set(one) - {"seconds"}:
                assert abs(one[name] - two[name]) <= 1e-5 * max(1, abs(one[name])), name
        weights = [load_file(f / "model.safetensors") for f in folders]
        for name, value in weights[0].items():
            torch.testing.assert_close(weights[1][name], value, rtol=0, atol=2e-5)
