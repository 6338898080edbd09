"""safetensors: 8 bytes of header length, a JSON header, then row-major tensors.

Source: https://github.com/huggingface/safetensors (README, "Format"). The header is read here rather than by the
library because rows must also come from far stores by byte range, which the library cannot do.
"""

import struct

from .places import Folder, parse_json, present
from .ranges import stored_rows
from .records import SIZES, Matrix, bad

HEADER_LIMIT = 100_000_000  # the library's own limit

KINDS = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
    "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip


def read_safetensors(folder: Folder, file: str) -> dict[str, Matrix]:
    """Every tensor of one file, none of its data.

    Raises:
        InputError: the header is truncated, is not the JSON it must be, or describes bytes that cannot be there.
    """
    where, size = f"{folder.root}/{file}", present(folder, file)
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
        start, stop, shape, kind = _entry(entry, name, where)
        if 8 + length + stop > size:
            raise bad(where, f"tensor {name!r} ends at byte {8 + length + stop:,} but the file has {size:,}", again)
        spans.append((start, stop, name))
        if kind is not None:
            tensors[name] = stored_rows(folder, file, name=name, offset=8 + length + start, shape=shape, kind=kind)
    at = 0
    for start, stop, name in sorted(spans):
        if start != at:
            raise bad(where, f"tensor {name!r} begins at byte {start:,} of the data but the one before ends at {at:,}: "
                      "they overlap or leave a hole", again)  # fmt: skip
        at = stop
    if 8 + length + at != size:
        raise bad(where, f"has {size - 8 - length - at:,} bytes after its last tensor", again)
    return tensors


def _entry(entry: object, name: str, where: str) -> tuple[int, int, tuple[int, ...], str | None]:
    """Byte span, shape and type (None if torch has no such type) of one header entry, checked against each other."""

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
    shape, kind = tuple(entry["shape"]), KINDS.get(entry["dtype"])
    need = SIZES[kind] if kind is not None else 0
    for n in shape:
        need *= n
    if stop < start or (kind is not None and stop - start != need):
        raise bad(where, f"tensor {name!r} of shape {shape} and type {entry['dtype']} cannot lie in bytes {start}..{stop}",
                  "the header is damaged")  # fmt: skip
    return start, stop, shape, kind
