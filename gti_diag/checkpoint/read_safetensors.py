"""safetensors: 8 bytes of header length, a JSON header, then row-major tensors.

Source: https://github.com/huggingface/safetensors (README, "Format"). The header is read here rather than by the
library because rows must also come from far stores by byte range, which the library cannot do.
"""

import itertools
import struct

import torch

from .places import Folder, parse_json
from .ranges import stored_rows
from .records import Matrix, bad

HEADER_LIMIT = 100_000_000  # the library's own limit

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz, "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


def read_safetensors(folder: Folder, file: str) -> dict[str, Matrix]:
    """Every tensor of one file, none of its data.

    Raises:
        InputError: the header is truncated, is not the JSON it must be, or describes bytes that cannot be there.
    """
    where, size = f"{folder.root}/{file}", folder.size(file)
    again = "it is truncated or damaged: copy or download it again"
    if size < 8:
        raise bad(where, f"has {size} bytes, too few for a safetensors file", again)
    (length,) = struct.unpack("<Q", folder.spans(file, [(0, 8)]).tobytes())
    if length > HEADER_LIMIT:
        raise bad(
            where, f"claims a header of {length:,} bytes (limit {HEADER_LIMIT:,})", "it is not a safetensors file"
        )
    if 8 + length > size:
        raise bad(where, f"claims a header of {length:,} bytes but has {size:,} in all", again)
    header = parse_json(folder.spans(file, [(8, 8 + length)]).tobytes(), f"{where} (header)")
    if not isinstance(header, dict):
        raise bad(where, "has a header that is not a JSON object", again)
    header.pop("__metadata__", None)
    tensors, spans = {}, []
    for name, entry in header.items():
        start, stop, shape, dtype = _entry(entry, name, where)
        if 8 + length + stop > size:
            raise bad(where, f"tensor {name!r} ends at byte {8 + length + stop:,} but the file has {size:,}", again)
        spans.append((start, stop, name))
        if dtype is not None:
            tensors[name] = stored_rows(folder, file, name=name, offset=8 + length + start, shape=shape, dtype=dtype)
    spans.sort()
    for (_, stop, first), (start, _, second) in itertools.pairwise(spans):
        if start < stop:
            raise bad(where, f"tensors {first!r} and {second!r} overlap", again)
    return tensors


def _entry(entry: object, name: str, where: str) -> tuple[int, int, tuple[int, ...], torch.dtype | None]:
    """Byte span, shape and dtype (None if torch has no such type) of one header entry, checked against each other."""

    def counts(value: object) -> bool:
        return isinstance(value, list) and all(type(n) is int and 0 <= n < 2**63 for n in value)

    if not (
        isinstance(entry, dict)
        and isinstance(entry.get("dtype"), str)
        and counts(entry.get("shape"))
        and counts(entry.get("data_offsets"))
        and len(entry["data_offsets"]) == 2
    ):
        raise bad(where, f"tensor {name!r} lacks a usable dtype, shape or data_offsets", "the header is damaged")
    start, stop = entry["data_offsets"]
    shape, dtype = tuple(entry["shape"]), DTYPES.get(entry["dtype"])
    need = dtype.itemsize if dtype is not None else 0
    for n in shape:
        need *= n
    if stop < start or (dtype is not None and stop - start != need):
        raise bad(where, f"tensor {name!r} of shape {shape} and type {entry['dtype']} cannot lie in bytes {start}..{stop}",
                  "the header is damaged")  # fmt: skip
    return start, stop, shape, dtype
