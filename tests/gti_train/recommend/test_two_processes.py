"""Two processes fine-tune as one does with the same global batch: every weight, sharded or not, and adapters."""

import json
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from safetensors.torch import load_file

from gti_diag.errors import InputError
from gti_train.loop import shards, watched
from gti_train.loop.processes import together
from gti_train.loop.state import newest_step
from gti_train.recommend.config import FineTuningConfig
from gti_train.recommend.stage import fine_tune_checkpoint

from .fine_tuning_cases import extended, lessons, shop

# Batches of 3 over 7 families end in a batch of one: a process without a share.
CONFIG = FineTuningConfig(
    steps=4, batch=3, warmup=1, every=2, learning_rate=1e-3, watch="recall@5", patience=3, micro_tokens=64
)  # several passes, of which the two have different numbers
RUN = """
import sys
from tests.gti_train.recommend.test_two_processes import WAYS, killed, run

for name, options in WAYS.items():
    out, options = f"{sys.argv[2]}-{name}", {**options, "save_every": 1}
    if options.get("shard"):
        killed(sys.argv[1], out, **options)
    if name != "crossed":
        run(sys.argv[1], out, **options)
"""
WAYS = {
    "every": {},
    "adapters": {"rank": 2},
    "sharded": {"shard": True, "checkpointing": True},
    "crossed": {"shard": True},
}


def run(source, out, *, rank=0, checkpointing=False, **options):
    given = {"lessons": lessons(count=7), "sids": shop()[1], "compute": "float32", **options}
    fine_tune_checkpoint(source, out, config=replace(CONFIG, rank=rank, checkpointing=checkpointing), **given)


def killed(source, out, **options):
    """A run that ends when the state of its third step is gathered: that of the second is there."""

    def gathered(state):
        if state.step == 3:
            raise KeyboardInterrupt
        return shards.gathered(state)

    with patch.object(watched, "gathered", gathered), suppress(KeyboardInterrupt):
        run(source, out, **options)
    together()
    assert newest_step(f"{out}.state") == 2
    together()


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
    run(start, tmp_path / "two-crossed", save_every=1)  # two sharded processes began it, one that is whole ends it
    for name, options in WAYS.items():
        folders = tmp_path / f"one-{name}", tmp_path / f"two-{name}"
        run(start, folders[0], rank=options.get("rank", 0))
        curves = [[json.loads(line) for line in (f / "metrics.jsonl").read_text().splitlines()] for f in folders]
        assert len(curves[1]) == 4
        for one, two in zip(*curves, strict=True):
            for key in set(one) - {"seconds"}:
                assert abs(one[key] - two[key]) <= 1e-5 * max(1, abs(one[key])), (name, key)
        weights = [load_file(f / "model.safetensors") for f in folders]
        for key, value in weights[0].items():
            torch.testing.assert_close(weights[1][key], value, rtol=0, atol=2e-5)


def test_one_process_is_not_sharded(tiny_lm, tmp_path):
    start = extended(tiny_lm(), tmp_path / "start")
    with pytest.raises(InputError, match="start several"):
        run(start, tmp_path / "out", shard=True)
    with pytest.raises(InputError, match="adapters are small"):
        run(start, tmp_path / "out", shard=True, rank=2)
