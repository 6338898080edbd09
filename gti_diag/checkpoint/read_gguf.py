"""GGUF: a typed header, then tensors, some in blocks of a few bits. Only the rows wanted are dequantised.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The header is read here because the gguf package
maps whole files and trusts their counts; the block formats are the package's.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from gti_diag.foreign.limits import DESCRIPTION

from .lazy import Tensor, torch
from .places import Folder, present
from .ranges import stored_rows
from .records import Matrix, Vocabulary, bad
from .vocabulary import build

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
PLAIN = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
         "I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64"}  # fmt: skip
WINDOW = 1 << 20
CONTROL, USER_DEFINED, UNUSED, UNKNOWN = 3, 4, 5, 2


class Cursor:
    """Reads forward through a file in windows; never past its end."""

    def __init__(self, folder: Folder, file: str) -> None:
        self.folder, self.file = folder, file
        self.where, self.size = f"{folder.root}/{file}", present(folder, file)
        self.at, self.start, self.data = 0, 0, b""
        self.left = DESCRIPTION  # bytes that its values may take in memory

    def need(self, count: int) -> None:
        if count > self.size - self.at:
            raise bad(self.where, f"its header claims {count:,} bytes at {self.at:,} of {self.size:,}",
                      "it is truncated or damaged: copy or download it again")  # fmt: skip

    def take(self, count: int) -> bytes:
        self.need(count)
        self.left -= 80 + 2 * count
        if self.left < 0:
            raise bad(self.where, f"its header takes more than {DESCRIPTION:,} bytes of memory", "it is no model")
        if self.at + count > self.start + len(self.data):
            self.start = self.at
            stop = min(self.size, self.at + max(count, WINDOW))
            self.data = self.folder.spans(self.file, [(self.at, stop)]).tobytes()
        first = self.at - self.start
        self.at += count
        return self.data[first : first + count]

    def number(self, code: str) -> Any:
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0]

    def string(self) -> str:
        return self.take(self.number("Q")).decode("utf-8", "replace")

    def value(self, kind: int, depth: int = 0) -> Any:
        if kind in SCALARS:
            return self.number(SCALARS[kind])
        if kind == STRING:
            return self.string()
        if kind != ARRAY or depth > 4:
            raise bad(self.where, f"its header has a value of unknown type {kind}", "the file is damaged")
        inner, count = self.number("I"), self.number("Q")
        if inner in SCALARS:
            code = SCALARS[inner]
            self.left -= 40 * count
            return list(struct.unpack(f"<{count}{code}", self.take(count * struct.calcsize("<" + code))))
        self.need(count * 8)  # every string and array begins with a length
        return [self.value(inner, depth + 1) for _ in range(count)]


def read_gguf_header(folder: Folder, file: str) -> tuple[dict[str, Any], dict[str, Matrix]]:
    """The key-value pairs and the tensors (name as in the file, shape as rows × dim) of one file.

    Raises:
        InputError: it is no GGUF file, or its header is damaged.
    """
    try:
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
    except ImportError:
        raise bad(f"{folder.root}/{file}", "needs the gguf package", "pip install 'gti-diag[train]'") from None
    cursor = Cursor(folder, file)
    if cursor.take(4) != b"GGUF" or cursor.number("I") not in (2, 3):
        raise bad(cursor.where, "is not a GGUF file of version 2 or 3")
    tensor_count, pair_count = cursor.number("Q"), cursor.number("Q")
    cursor.need(13 * pair_count + 24 * tensor_count)
    pairs: dict[str, Any] = {}
    for _ in range(pair_count):
        key = cursor.string()
        if key in pairs:
            raise bad(cursor.where, f"has the key {key!r} twice", "the file is damaged")
        pairs[key] = cursor.value(cursor.number("I"))
    listed = []
    for _ in range(tensor_count):
        name, axes = cursor.string(), cursor.number("I")
        cursor.need(8 * axes)
        shape = tuple(cursor.number("Q") for _ in range(axes))[::-1]
        listed.append((name, shape, cursor.number("I"), cursor.number("Q")))
    step = pairs.get("general.alignment", 32)
    if not isinstance(step, int) or step <= 0:
        raise bad(cursor.where, f"has general.alignment {step!r}", "the file is damaged")
    begin = -(-cursor.at // step) * step
    tensors: dict[str, Matrix] = {}
    for name, shape, kind, offset in listed:
        if name in tensors:
            raise bad(cursor.where, f"has the tensor {name!r} twice", "the file is damaged")
        if kind not in GGMLQuantizationType.__members__.values():
            continue  # a block format newer than the package; told if it is the embedding
        block, width = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
        count = 1
        for n in shape:
            count *= n
        if not shape or shape[-1] % block or begin + offset + count // block * width > cursor.size:
            raise bad(cursor.where, f"tensor {name!r} of shape {shape} does not lie in the file",
                      "it is truncated or damaged: copy or download it again")  # fmt: skip
        tensors[name] = _tensor(
            folder, file, name=name, offset=begin + offset, shape=shape, kind=GGMLQuantizationType(kind)
        )
    return pairs, tensors


def _tensor(folder: Folder, file: str, *, name: str, offset: int, shape: tuple[int, ...], kind: Any) -> Matrix:
    from gguf import GGML_QUANT_SIZES
    from gguf.quants import dequantize

    if kind.name in PLAIN:
        return stored_rows(folder, file, name=name, offset=offset, shape=shape, kind=PLAIN[kind.name])
    block, width = GGML_QUANT_SIZES[kind]
    packed = stored_rows(
        folder, file, name=name, offset=offset, shape=(*shape[:-1], shape[-1] // block * width), kind="uint8"
    )

    def fetch(ids: Tensor) -> Tensor:
        rows = packed.fetch(ids).numpy()
        if not len(rows):
            return torch.empty((0, *shape[1:]))
        with np.errstate(
            invalid="ignore", over="ignore"
        ):  # a scale that is not finite makes its block so: a scan tells that
            return torch.from_numpy(np.ascontiguousarray(dequantize(rows, kind)))

    return Matrix(name=name, shape=shape, kind="float32", fetch=fetch, packing=kind.name,
                  packed_row=shape[-1] // block * width)  # fmt: skip


def gguf_config(pairs: dict[str, Any]) -> dict[str, Any]:
    """What a config.json would have said, as far as the header does."""
    family = pairs.get("general.architecture")
    tokens = pairs.get("tokenizer.ggml.tokens")
    size = pairs.get(f"{family}.vocab_size") or (len(tokens) if isinstance(tokens, list) else None)
    template = pairs.get("tokenizer.chat_template")
    return {"model_type": family, "hidden_size": pairs.get(f"{family}.embedding_length"), "vocab_size": size,
            "chat_template": template if isinstance(template, str) else None}  # fmt: skip


def gguf_vocabulary(pairs: dict[str, Any], where: str) -> Vocabulary | None:
    """Token strings and kinds from the header."""
    tokens, kinds = pairs.get("tokenizer.ggml.tokens"), pairs.get("tokenizer.ggml.token_type")
    kinds = kinds if isinstance(kinds, list) else []
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        return None

    def of(*wanted: int) -> dict[int, str]:
        return {id: token for id, (token, kind) in enumerate(zip(tokens, kinds, strict=False)) if kind in wanted}

    return build(dict(enumerate(tokens)), added=of(CONTROL, USER_DEFINED), special=frozenset(of(CONTROL, UNUSED, UNKNOWN)),
                 source="GGUF header", where=where)  # fmt: skip


def gguf_reader(keep: dict[str, Any]) -> Callable[[Folder, str], dict[str, Matrix]]:
    """A reader of tensors that also puts the key-value pairs into `keep`."""

    def read(folder: Folder, file: str) -> dict[str, Matrix]:
        pairs, tensors = read_gguf_header(folder, file)
        keep.update({key: value for key, value in pairs.items() if key not in keep})
        return tensors

    return read
