"""What EmbeddingGeometryCallback costs: SmolLM2-135M with 1,024 code tokens in a real Trainer run.

    python reports/regressions/callback.py [--work runs/regressions] [--steps 12]

Every step is measured (every=1), so that the cost of one measurement stands beside that of one step; the share at the default
(every=100) follows. Writes callback.json beside itself.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))

from gti_diag.training.callback import EmbeddingGeometryCallback  # noqa: E402
from gti_diag.training.watch import Watch  # noqa: E402
from gti_train.model.loading import (  # noqa: E402
    installed_model,
    load_language_model,
)

CODES = 1024
TOKENS = (8, 128)  # batch and length: a small step, so the share is an upper bound


class Clock(TrainerCallback):
    """Seconds of each step, from its beginning to just before the callbacks that follow."""

    def __init__(self):
        self.steps: list[float] = []

    def on_step_begin(self, *args, **kwargs):
        self.began = time.perf_counter()

    def on_step_end(self, *args, **kwargs):
        self.steps.append(time.perf_counter() - self.began)


class Timed(Watch):
    """The same, with the seconds of each look."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.seconds: list[float] = []

    def look(self, *args, **settings):
        began = time.perf_counter()
        found = super().look(*args, **settings)
        self.seconds.append(time.perf_counter() - began)
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/regressions"))
    parser.add_argument("--steps", type=int, default=12)
    options = parser.parse_args()
    model, tokenizer = load_language_model(installed_model(), dtype=torch.bfloat16)
    tokenizer.add_tokens([f"<{level}_{code}>" for level in "abcd" for code in range(CODES // 4)])
    torch.manual_seed(0)
    model.resize_token_embeddings(len(tokenizer))
    model.requires_grad_(False)
    model.get_input_embeddings().weight.requires_grad_(True)
    batch, length = TOKENS
    ids = torch.randint(len(tokenizer), (batch * options.steps, length)).tolist()
    data = [{"input_ids": row, "labels": row} for row in ids]
    clock, callback = Clock(), EmbeddingGeometryCallback()
    callback.watch = timed = Timed(every=1)
    arguments = TrainingArguments(
        str(options.work / "trainer"), max_steps=options.steps, per_device_train_batch_size=batch, report_to=[],
        save_strategy="no", logging_steps=1000, disable_tqdm=True, use_cpu=not torch.cuda.is_available(), learning_rate=1e-3,
    )  # fmt: skip
    run = Trainer(model, arguments, train_dataset=data, processing_class=tokenizer, callbacks=[clock, callback])
    run.train()
    step, measurement = statistics.median(clock.steps[2:]), statistics.median(timed.seconds[1:])
    logged = [line for line in run.state.log_history if "geometry/dispersion_ratio" in line]
    results = {
        "model": "SmolLM2-135M-Instruct, bfloat16",
        "new_tokens": CODES,
        "tokens_per_step": batch * length,
        "step_seconds": round(step, 3),
        "measurement_seconds": round(measurement, 4),
        "share_at_default": round(measurement / (100 * step), 6),
        "first": logged[0],
        "last": logged[-1],
    }
    (HERE / "callback.json").write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
