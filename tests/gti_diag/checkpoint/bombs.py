"""Checkpoints that claim far more than they hold: each maker writes one into a folder."""

import json
import struct
import zipfile
from pathlib import Path

NAME = "model.embed_tokens.weight"


def _safetensors(folder: Path, rows: int, *, kept: int | None = None) -> None:
    """A float16 matrix of `rows` × 8; sparse, so that it takes no room on disk."""
    size = rows * 16
    header = json.dumps({NAME: {"dtype": "F16", "shape": [rows, 8], "data_offsets": [0, size]}}).encode()
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + (size if kept is None else kept))


def _archive(folder: Path, pickled: bytes, **zipped: int) -> None:
    with zipfile.ZipFile(folder / "pytorch_model.bin", "w", **zipped) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", "3")


def bytearray_of_3_gib(folder: Path) -> None:
    _archive(folder, b"\x80\x02c__builtin__\nbytearray\n\x8a\x05" + (3 << 30).to_bytes(5, "little") + b"\x85R.")


def pickle_that_inflates(folder: Path) -> None:
    with zipfile.ZipFile(folder / "pytorch_model.bin", "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("archive/data.pkl", "w", force_zip64=True) as member:
            for _ in range(256):
                member.write(b"]" * (1 << 20))
        archive.writestr("archive/version", "3")


def pickle_of_lists(folder: Path) -> None:
    _archive(folder, b"]" * 50_000_000 + b".")


def npz_that_inflates(folder: Path) -> None:
    header = str({"descr": "<f4", "fortran_order": False, "shape": (1 << 27, 2)}).encode()
    header = header + b" " * (117 - len(header)) + b"\n"
    with (
        zipfile.ZipFile(folder / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("a.npy", "w", force_zip64=True) as member,
    ):
        member.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
        for _ in range(1024):
            member.write(bytes(1 << 20))


def json_of_lists(folder: Path) -> None:
    _safetensors(folder, 8)
    (folder / "config.json").write_bytes(b'{"a": [' + b"[]," * 30_000_000 + b"0]}")


def tokenizer_of_lists(folder: Path) -> None:
    _safetensors(folder, 8)
    (folder / "tokenizer.json").write_bytes(b'{"model": {"vocab": [' + b'["a",0],' * 10_000_000 + b'["b",0]]}}')


def sparse_description(folder: Path) -> None:
    _safetensors(folder, 8)
    with open(folder / "tokenizer.json", "wb") as file:
        file.truncate(1 << 40)


def sparse_rows(folder: Path) -> None:
    _safetensors(folder, 50_000_000)


def long_header(folder: Path) -> None:
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", 99_000_000) + b"{" + b'"":{},' * 16_000_000)
        file.truncate(1 << 30)


def gguf_of_numbers(folder: Path) -> None:
    """An array of 2³⁰ numbers in the header of a sparse file."""
    key = b"general.x"
    with open(folder / "m.gguf", "wb") as file:
        file.write(
            b"GGUF"
            + struct.pack("<IQQ", 3, 0, 1)
            + struct.pack("<Q", len(key))
            + key
            + struct.pack("<IIQ", 9, 0, 1 << 30)
        )
        file.truncate(1 << 31)


MAKERS = (bytearray_of_3_gib, pickle_that_inflates, pickle_of_lists, npz_that_inflates, json_of_lists, tokenizer_of_lists,
          sparse_description, sparse_rows, long_header, gguf_of_numbers)  # fmt: skip
