"""SmolLM2-135M's vocabulary with damage planted in it, as files of every storage type: what a scan must find, and where."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
TOKENIZER = ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
STORAGE = ("float32", "float16", "bfloat16", "Q8_0", "Q4_0")
PADDING = 64  # rows beyond the tokenizer: known to be unused


@dataclass(frozen=True)
class Case:
    """`plant(rows, generator)` writes the damage into a copy of the rows and returns the ids that must be told as `kind`."""

    name: str
    kind: str
    plant: Callable[[Tensor, torch.Generator], list[int]]


def _ids(rows: Tensor, generator: torch.Generator, count: int) -> list[int]:
    """Ids of text tokens: behind the special ones, before the padding."""
    return sorted((torch.randperm(len(rows) - PADDING - 1000, generator=generator)[:count] + 1000).tolist())


def _one(change: Callable[[Tensor], Tensor]) -> Callable[[Tensor, torch.Generator], list[int]]:
    def plant(rows: Tensor, generator: torch.Generator) -> list[int]:
        ids = _ids(rows, generator, 1)
        rows[ids] = change(rows[ids])
        return ids

    return plant


def _copy(rows: Tensor, generator: torch.Generator) -> list[int]:
    first, second = _ids(rows, generator, 2)
    rows[second] = rows[first]
    return [first, second]


def _cluster(size: int) -> Callable[[Tensor, torch.Generator], list[int]]:
    def plant(rows: Tensor, generator: torch.Generator) -> list[int]:
        ids = _ids(rows, generator, size)
        noise = torch.randn(size, rows.shape[1], generator=generator)
        rows[ids] = rows[ids[0]] * (1 + 1e-3 * noise)
        return ids

    return plant


def _untrained(rows: Tensor, generator: torch.Generator) -> list[int]:
    """One text row, and all padding, near one direction, as a softmax pushes rows that never occur."""
    ids = _ids(rows, generator, 1)
    common = rows.mean(0) - 1.5 * rows.std()
    for id in [*ids, *range(len(rows) - PADDING, len(rows))]:
        rows[id] = common + 0.1 * rows.std() * torch.randn(rows.shape[1], generator=generator)
    return ids


CASES = (
    Case("one NaN", "not_finite", _one(lambda row: torch.where(torch.arange(row.shape[1]) == 7, torch.nan, row))),
    Case("one zero row", "zero", _one(torch.zeros_like)),
    Case("one row × 0.05", "near_zero", _one(lambda row: 0.05 * row)),
    Case("one row × 1e-4", "near_zero", _one(lambda row: 1e-4 * row)),
    Case("one row × 20", "giant", _one(lambda row: 20 * row)),
    Case("one copy", "copies", _copy),
    Case("cluster of 2", "cluster", _cluster(2)),
    Case("cluster of 20", "cluster", _cluster(20)),
    Case("cluster of 200", "cluster", _cluster(200)),
    Case("one untrained row", "untrained", _untrained),
)


def padded(rows: Tensor) -> Tensor:
    """The rows, and padding of the vocabulary's own mean and spread."""
    generator = torch.Generator().manual_seed(0)
    extra = rows.mean(0) + rows.std(0) * torch.randn(PADDING, rows.shape[1], generator=generator)
    return torch.cat([rows, extra])


def write(folder: Path, source: Path, tensors: dict[str, Tensor], storage: str) -> Path:
    """A checkpoint of these matrices with the tokenizer of `source`; the file to open."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in TOKENIZER:
        if (source / name).is_file():
            shutil.copy(source / name, folder)
    if storage in ("float32", "float16", "bfloat16"):
        stored = {name: rows.to(getattr(torch, storage)) for name, rows in tensors.items()}
        save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
        return folder
    return _gguf(folder / "model.gguf", tensors[EMBEDDING], storage, source)


def _gguf(path: Path, rows: Tensor, storage: str, source: Path) -> Path:
    from gguf import GGMLQuantizationType, GGUFWriter
    from gguf.quants import quantize

    from gti_diag.checkpoint import open_checkpoint

    vocabulary = open_checkpoint(source).vocabulary
    assert vocabulary is not None
    names = [token or f"[PAD{id}]" for id, token in enumerate(vocabulary.tokens)]
    names += [f"[PAD{id}]" for id in range(len(names), len(rows))]
    writer = GGUFWriter(str(path), "llama")
    writer.add_token_list(names)
    writer.add_token_types([3 if id in vocabulary.special else 1 for id in range(len(names))])
    kind = GGMLQuantizationType[storage]
    writer.add_tensor("token_embd.weight", quantize(rows.numpy().astype(np.float32), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
