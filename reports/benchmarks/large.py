"""A checkpoint of Llama-3-70B's shape: how long `inspect` takes, and `analyze` under --max-memory 2GB.

    python reports/benchmarks/large.py                    writes reports/benchmarks/large.md; needs 5 GB of disk

Names, shapes and shards are those of the real model, 141 GB by their headers. The embedding and the head (128,256 × 8,192
bfloat16 each) are random numbers; all other tensors are holes in sparse files. 768 rows are codes on three levels.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

DIM, ROWS, LAYERS, CODES = 8192, 128_256, 80, 768
SHARD = 4_900_000_000
HERE = Path(__file__).parent
VECTORS = {"model.embed_tokens.weight": 0, "lm_head.weight": 1}


def shapes() -> dict[str, tuple[int, ...]]:
    """Every tensor of the model, in the order in which it is saved."""
    layer = {
        "self_attn.q_proj": (DIM, DIM), "self_attn.k_proj": (1024, DIM), "self_attn.v_proj": (1024, DIM),
        "self_attn.o_proj": (DIM, DIM), "mlp.gate_proj": (28_672, DIM), "mlp.up_proj": (28_672, DIM),
        "mlp.down_proj": (DIM, 28_672), "input_layernorm": (DIM,), "post_attention_layernorm": (DIM,),
    }  # fmt: skip
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (ROWS, DIM)}
    for number in range(LAYERS):
        found |= {f"model.layers.{number}.{name}.weight": shape for name, shape in layer.items()}
    return found | {"model.norm.weight": (DIM,), "lm_head.weight": (ROWS, DIM)}


def make(folder: Path) -> None:
    folder.mkdir(parents=True)
    shards, room = [[]], SHARD
    for name, shape in shapes().items():
        size = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        if size > room:
            shards.append([])
            room = SHARD
        shards[-1].append((name, shape, size))
        room -= size
    index = {}
    for number, tensors in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        index |= {name: file for name, _, _ in tensors}
        write_shard(folder / file, tensors)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    config = {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": ROWS, "hidden_size": DIM,
        "num_hidden_layers": LAYERS, "tie_word_embeddings": False,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    words = ROWS - 256 - CODES
    added = [f"<|reserved_special_token_{i}|>" for i in range(256)]
    added += [f"<{'abc'[i * 3 // CODES]}_{i % (CODES // 3)}>" for i in range(CODES)]
    entries = [{"id": words + i, "content": text, "special": i < 256} for i, text in enumerate(added)]
    model = {"type": "BPE", "vocab": {f"Ġword{i}": i for i in range(words)}, "merges": []}
    (folder / "tokenizer.json").write_text(json.dumps({"version": "1.0", "added_tokens": entries, "model": model}))


def write_shard(path: Path, tensors: list) -> None:
    import torch

    header, at = {}, 0
    for name, shape, size in tensors:
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    with path.open("wb") as out:
        out.write(len(encoded).to_bytes(8, "little") + encoded)
        for name, _, size in tensors:
            if name not in VECTORS:
                out.seek(size, os.SEEK_CUR)
                continue
            generator = torch.Generator().manual_seed(VECTORS[name])
            scales = 0.02 * torch.arange(1, DIM + 1).float().pow(-0.2)
            for start in range(0, ROWS, 4096):
                rows = torch.randn(min(4096, ROWS - start), DIM, generator=generator) * scales + 0.002
                out.write(rows.bfloat16().view(torch.uint8).numpy().tobytes())
        out.truncate(8 + len(encoded) + at)


def timed(*arguments: str) -> tuple[float, float]:
    """Wall seconds and peak resident megabytes of one command."""
    command = [sys.executable, "-m", "gti_diag", *arguments]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, f"{' '.join(command)} failed"
    return time.perf_counter() - start, usage.ru_maxrss * 1024 / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/benchmark"))
    options = parser.parse_args()
    folder, out = options.work / "llama-70b-shape", str(options.work / "out")
    if not folder.is_dir():
        make(folder)
    size = sum(file.stat().st_size for file in folder.iterdir())
    lines = [
        "# A checkpoint of a 70B model's shape",
        f"`python reports/benchmarks/large.py`: {len(list(folder.glob('*.safetensors')))} shards, {size / 1e9:.0f} GB by their headers, "
        f"vocabulary {ROWS:,} × {DIM:,} bfloat16 and a head of its own; {os.cpu_count()} cores ({platform.machine()}). "
        "Whole process, start included.",
        "| command | seconds | peak memory (MB) |\n|---|---:|---:|",
    ]
    for arguments in (
        ["inspect", str(folder)],
        ["analyze", str(folder), "--matrix", "input", "--max-memory", "2GB", "--out", out, "--quiet"],
    ):
        seconds, memory = min(timed(*arguments) for _ in range(3 if arguments[0] == "inspect" else 1))
        shown = " ".join(["gti-diag", *arguments]).replace(str(folder), "CKPT").replace(f" --out {out} --quiet", "")
        lines[-1] += f"\n| `{shown}` | {seconds:.2f} | {memory:,.0f} |"
        print(lines[-1].splitlines()[-1], flush=True)
        (HERE / "large.md").write_text("\n\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
