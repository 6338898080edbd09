"""What damaged rows do to training, and what repair gives back: gradient norms of 20 steps on SmolLM2-135M.

    python reports/verdicts/repair.py          (four minutes on two quiet cores)

The head is stored apart, so that `--rule head` has a direction to take. In the input matrix the two chat-template tokens and eight words of
the training text are planted as zero or at 1e-17 of their norm. Writes repair.json, and the table in repair.md.
"""

import json
import math
import shutil
import sys
from pathlib import Path

import torch
from planted import EMBEDDING, HEAD
from safetensors.torch import load_file, save_file
from scan import smollm2

import gti_diag
from gti_train.grounding.repair import repair
from gti_train.model.loading import load_language_model

HERE = Path(__file__).parent
STEPS = 20
TEXTS = (
    "What is a kettle for?",
    "Name three things in a kitchen.",
    "Which lamp is good for reading?",
    "How long does tea take?",
)
ANSWERS = (
    "A kettle boils water for tea.",
    "A table, a kettle and a lamp.",
    "A warm lamp on the desk.",
    "Tea takes three minutes.",
)


def untied(source: Path, folder: Path) -> Path:
    """The model with its head stored apart."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder)
    tensors = load_file(folder / "model.safetensors")
    tensors[HEAD] = tensors[EMBEDDING].clone()
    tensors[HEAD][0] *= 1.001  # no longer equal
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    return folder


def damage(folder: Path, out: Path, ids: list[int]) -> Path:
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(folder, out)
    tensors = load_file(out / "model.safetensors")
    tensors[EMBEDDING][ids[::2]] = 0
    tensors[EMBEDDING][ids[1::2]] *= 1e-17
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    return out


def gradients(folder: Path) -> list[dict[str, float]]:
    """Norm of the gradient (before clipping at 1) and loss of each step."""
    model, tokenizer = load_language_model(folder, dtype=torch.float32)
    model.train().requires_grad_(True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    turns = [
        [{"role": "user", "content": q}, {"role": "assistant", "content": a}]
        for q, a in zip(TEXTS, ANSWERS, strict=True)
    ]
    encoded = [
        tokenizer.apply_chat_template(turn, return_tensors="pt", return_dict=True)["input_ids"] for turn in turns
    ]
    found = []
    for step in range(STEPS):
        ids = encoded[step % len(encoded)]
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        found.append({"gradient": _finite(norm), "loss": _finite(loss.detach())})
    return found


def _finite(value: torch.Tensor) -> float | None:
    return float(value) if math.isfinite(value) else None


def _number(value: float | None, digits: int) -> str:
    return "not a number" if value is None else f"{value:.{digits}g}"


def main() -> None:
    work = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("runs/scan")
    sound = untied(smollm2(work), work / "untied")
    tokenizer = json.loads((sound / "tokenizer.json").read_text())["model"]["vocab"]
    ids = [
        1,
        2,
        *(tokenizer[f"Ġ{word}"] for word in ("kettle", "water", "tea", "table", "lamp", "desk", "minutes", "reading")),
    ]
    broken = damage(sound, work / "broken", ids)
    meant = {"<|im_start|>": "start of a message", "<|im_end|>": "end of a message"}
    file = HERE / "repair.json"
    results = json.loads(file.read_text()) if file.is_file() else {}

    def folder(name: str) -> Path:
        if name in ("sound", "damaged"):
            return sound if name == "sound" else broken
        out = work / name.replace(", ", "-")
        shutil.rmtree(out, ignore_errors=True)
        repair(broken, out, rule=name.removeprefix("repaired, "), descriptions=meant)
        left = [f["kind"] for f in gti_diag.scan(out)["matrices"]["input"]["findings"]]
        print(name, "scan:", left, flush=True)
        return out

    for name in ("sound", "damaged", "repaired, head", "repaired, mean", "repaired, description"):
        if name not in results:  # what is there already is not run again
            results[name] = gradients(folder(name))
            file.write_text(json.dumps(results, indent=1, allow_nan=False) + "\n")
            print(name, results[name][0], flush=True)
    lines = ["# Gradient norms of damaged and repaired rows", "", "`python reports/verdicts/repair.py` makes this page.", "",
             "| checkpoint | gradient norm, step 1 | step 2 | step 20 | loss, step 1 | step 20 |", "| --- | ---: | ---: | ---: | ---: | ---: |"]  # fmt: skip
    for name, steps in results.items():
        cells = [_number(steps[at]["gradient"], 3) for at in (0, 1, -1)] + [
            _number(steps[at]["loss"], 3) for at in (0, -1)
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    (HERE / "repair.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
