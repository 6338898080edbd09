"""Rows that an adapter keeps beside its own tensors: they follow the last row of the base.

`new_embeddings.safetensors` holds rows of added tokens (vLLM reads it so: `input_embeddings`, `output_embeddings`);
prompt tuning holds `prompt_embeddings`, vectors that stand before every input and have no token.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from .blocks import Block, joined
from .layouts import bare
from .lazy import torch
from .places import Folder
from .read_pickle import read_pickle
from .read_safetensors import read_safetensors
from .records import Checkpoint, Matrix, Vocabulary, bad

NEW = {"new_embeddings.safetensors": read_safetensors, "new_embeddings.bin": read_pickle}
ROLES = {"input": ("input_embeddings", "embed_tokens.weight"), "output": ("output_embeddings", "lm_head.weight")}
PROMPT = "prompt_embeddings"


def extended(base: Checkpoint, folder: Folder, tensors: Mapping[str, Matrix], where: str) -> tuple[Checkpoint, str]:
    """The base with the rows that the adapter's folder or its tensors add, and what they are ("" if there are none).

    Raises:
        InputError: they are no rows of this base.
    """
    prompt = next((tensors[name] for name in tensors if bare(name).split(".")[-1] == PROMPT), None)
    if prompt is not None:
        count = prompt.shape[0]
        longer = {"input": _longer(base.matrices["input"], prompt, where)}
        names = [f"prompt {number}" for number in range(1, count + 1)]
        vocabulary = _named(base.vocabulary, base.matrices["input"].shape[0], names)
        return _with(base, longer, vocabulary=vocabulary), f"holds {count:,} prompt vectors"
    for file, read in NEW.items():
        if file in folder.names():
            found = {bare(name): matrix for name, matrix in read(folder, file).items()}
            added = {role: found[name] for role, names in ROLES.items() for name in names if name in found}
            if "input" not in added:
                raise bad(
                    f"{folder.root}/{file}", f"holds no {ROLES['input'][0]!r}, only {', '.join(found) or 'nothing'}"
                )
            longer = {
                role: _longer(base.matrices[role], rows, f"{folder.root}/{file}")
                for role, rows in added.items()
                if role in base.matrices
            }
            return _with(base, longer), f"adds {added['input'].shape[0]:,} rows of {file}"
    return base, ""


def _with(base: Checkpoint, longer: dict[str, Matrix], **changes: object) -> Checkpoint:
    return dataclasses.replace(base, matrices={**base.matrices, **longer}, **changes)  # type: ignore[arg-type]


def _longer(matrix: Matrix, rows: Matrix, where: str) -> Matrix:
    """The rows after the matrix's own."""
    if len(rows.shape) != 2 or rows.shape[1] != matrix.shape[1] or not rows.floating:
        raise bad(where, f"tensor {rows.name!r} has shape {rows.shape}, no rows of {matrix.shape[1]} numbers as the base's",
                  "prefix tuning's keys and values are no embeddings; another base may be meant (--base)")  # fmt: skip
    shape = (matrix.shape[0] + rows.shape[0], matrix.shape[1])
    blocks = [Block(0, 0, matrix), Block(matrix.shape[0], 0, rows)]
    return joined(matrix.name, blocks, shape=shape, dtype=torch.promote_types(matrix.dtype, rows.dtype))


def _named(vocabulary: Vocabulary | None, rows: int, names: list[str]) -> Vocabulary | None:
    """The vocabulary with names for the rows after the last."""
    if vocabulary is None:
        return None
    tokens = (*vocabulary.tokens[:rows], *[None] * (rows - vocabulary.size), *names)
    return dataclasses.replace(vocabulary, tokens=tokens)
