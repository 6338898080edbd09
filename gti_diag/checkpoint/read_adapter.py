"""PEFT adapters: the rows of the base, with what the adapter adds or replaces.

Storage as PEFT 0.21 writes it (peft/utils/save_and_load.py): whole copies (`modules_to_save`, `base_layer`), LoRA on an
embedding (A is r × vocabulary, B is dim × r), LoRA on the head, and replaced rows (`trainable_token_indices`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .layouts import bare
from .lazy import Tensor, kind_of, torch
from .records import Matrix, bad

COPY = (".weight", ".modules_to_save.weight", ".modules_to_save.default.weight")
WHOLE = (*COPY, ".base_layer.weight")
DELTA = (".token_adapter.trainable_tokens_delta", ".trainable_tokens_delta")
READ = {*WHOLE, *DELTA, ".lora_embedding_A", ".lora_embedding_B", ".lora_A.weight", ".lora_B.weight"}
MERGE = "merge the adapter into its base first"


@dataclass(frozen=True)
class Adapter:
    """The adapter's tensors under bare names, and its configuration."""

    where: str
    config: Mapping[str, Any]
    tensors: Mapping[str, Matrix]

    def of(self, module: str, *endings: str) -> Matrix | None:
        """The tensor of `module` (a full name or its last part) with one of the endings."""
        for ending in endings:
            for start in (module, module.rsplit(".", 1)[-1]):
                hits = [
                    m for n, m in self.tensors.items() if n == f"{start}{ending}" or n.endswith(f".{start}{ending}")
                ]
                if len(hits) == 1:
                    return hits[0]
        return None

    def unread(self, module: str) -> Iterator[str]:
        """Names of tensors that change the rows of `module` in a way that is not read; biases change no row."""
        tail = re.compile(rf"(?:.*\.)?{re.escape(module.rsplit('.', 1)[-1])}(\.\w+(?:\.\w+)?)")
        for name in self.tensors:
            hit = tail.fullmatch(name)
            if hit is not None and hit[1] not in READ and not name.endswith(".bias"):
                yield name

    def scale(self, module: str, rank: int) -> float:
        """α/r, or α/√r for rank-stabilised LoRA; the first pattern that fits gives α.

        Source: peft/tuners/lora/layer.py; get_pattern_key in peft/utils/other.py.
        """
        alpha = self.config.get("lora_alpha")
        patterns = self.config.get("alpha_pattern")
        for pattern, value in patterns.items() if isinstance(patterns, Mapping) else ():
            try:
                if re.match(rf"(.*\.)?({pattern})$", module):
                    alpha = value
                    break
            except re.error as error:
                raise bad(self.where, f"has alpha_pattern {pattern!r}, no regular expression ({error})") from error
        if not isinstance(alpha, (int, float)) or rank < 1:
            raise bad(self.where, f"has lora_alpha {alpha!r} and rank {rank}")
        return alpha / (rank**0.5 if self.config.get("use_rslora") else rank)


def adapter(where: str, config: Mapping[str, Any], tensors: Mapping[str, Matrix]) -> Adapter:
    return Adapter(where, config, {bare(name): tensor for name, tensor in tensors.items()})


def adapted(found: Adapter, matrix: Matrix | None, module: str) -> Matrix | None:
    """`matrix` (the base's, if it has one) as the adapter leaves it; None if neither knows the module.

    Raises:
        InputError: the adapter's tensors do not fit the base, or use a method that is not read (DoRA, LoHa, …).
    """
    strange = next(found.unread(module), None)
    if strange is not None:
        method = "DoRA" if "lora_magnitude_vector" in strange else found.config.get("peft_type")
        raise bad(found.where, f"uses {method} on {module} ({strange}), which is not read", MERGE)
    whole = found.of(module, *WHOLE)
    matrix = whole if whole is not None else matrix
    if matrix is None:
        return None
    a, b = found.of(module, ".lora_embedding_A"), found.of(module, ".lora_embedding_B")
    if a is not None and b is not None:
        return _plus(found, matrix, a.rows().T, b.rows().T, bare(a.name).partition(".lora_")[0])
    a, b = found.of(module, ".lora_A.weight"), found.of(module, ".lora_B.weight")
    if a is not None and b is not None:
        return _plus(found, matrix, b.rows(), a.rows(), bare(a.name).partition(".lora_")[0])
    rows = found.of(module, *DELTA)
    return matrix if rows is None else _replaced(found, matrix, rows, module)


def _plus(found: Adapter, matrix: Matrix, left: Tensor, right: Tensor, module: str) -> Matrix:
    """matrix + left · right · scale, in float32, a row at a time."""
    if (left.shape[0], right.shape[1]) != matrix.shape or left.shape[1] != right.shape[0]:
        raise bad(found.where, f"its LoRA matrices of {module} make {left.shape[0]}×{right.shape[1]}, the base has "
                  f"{matrix.shape[0]}×{matrix.shape[1]}", "give the base that it was trained on")  # fmt: skip
    wide, scale = right.float(), found.scale(module, left.shape[1])

    def fetch(ids: Tensor) -> Tensor:
        return matrix.fetch(ids).float() + left[ids].float() @ wide * scale

    return Matrix(name=matrix.name, shape=matrix.shape, kind="float32", fetch=fetch)


def replaced_rows(found: Adapter, matrix: Matrix, module: str) -> tuple[int, ...]:
    """The rows of `module` that the adapter replaces, in its order; none if it replaces none.

    Raises:
        InputError: their number or the ids do not fit.
    """
    rows = found.of(module, *DELTA)
    if rows is None:
        return ()
    listed = found.config.get("trainable_token_indices")
    if listed is None:  # the TrainableTokens method itself
        listed = found.config.get("token_indices")
    if isinstance(listed, Mapping):
        listed = next((ids for name, ids in listed.items() if module == name or module.endswith("." + name)), None)
    if not isinstance(listed, list) or len(listed) != rows.shape[0] or rows.shape[1:] != matrix.shape[1:]:
        raise bad(found.where, f"replaces {rows.shape[0]} rows of {module} but lists other ids in adapter_config.json")
    if not all(type(id) is int and 0 <= id < matrix.shape[0] for id in listed) or len(set(listed)) < len(listed):
        raise bad(found.where, f"lists ids that are no rows of {module} ({matrix.shape[0]:,} rows), or one twice")
    return tuple(listed)


def _replaced(found: Adapter, matrix: Matrix, rows: Matrix, module: str) -> Matrix:
    """matrix with the rows `trainable_token_indices` replaced."""
    listed = replaced_rows(found, matrix, module)
    dtype = torch.promote_types(matrix.dtype, rows.dtype)
    place = torch.full((matrix.shape[0],), -1)
    place[torch.tensor(listed, dtype=torch.long)] = torch.arange(len(listed))

    def fetch(ids: Tensor) -> Tensor:
        out = matrix.fetch(ids).to(dtype)
        new = (place[ids] >= 0).nonzero()[:, 0]
        if len(new):
            out[new] = rows.rows(place[ids[new]]).to(dtype)
        return out

    return Matrix(name=matrix.name, shape=matrix.shape, kind=kind_of(dtype), fetch=fetch)
