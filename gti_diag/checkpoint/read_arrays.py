"""Plain arrays: .npy and .npz, read by rows. Which token a row is must be told by a list beside it."""

from __future__ import annotations

import contextlib
import functools
import io
import math
import re
import warnings
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.lib import format as npy

from gti_diag.errors import InputError
from gti_diag.foreign.limits import DESCRIPTION

from .lazy import torch
from .places import Folder, Window, present
from .ranges import stored_rows
from .records import Matrix, Vocabulary, bad
from .vocabulary import build

AGAIN = "copy or save it again"


def read_npy(folder: Folder, file: str) -> dict[str, Matrix]:
    """The array of one .npy file, under the file's stem.

    Raises:
        InputError: it is damaged, holds Python objects, or lies in column order.
    """
    present(folder, file)
    window = Window(folder, file)
    return {file.removesuffix(".npy"): _array(folder, file, window, name=file.removesuffix(".npy"), start=0)}


def read_npz(folder: Folder, file: str) -> dict[str, Matrix]:
    """The arrays of one .npz file. Stored members are read by rows, compressed ones whole.

    Raises:
        InputError: as `read_npy`, or a compressed member is too large to inflate.
    """
    where, found = f"{folder.root}/{file}", {}
    with _archive(folder, file) as archive:
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            if name == member.filename:
                continue
            if _is_text(archive, member):
                continue
            if member.compress_type == zipfile.ZIP_STORED:
                start = member.header_offset + _local_header(folder, file, member.header_offset)
                window = Window(folder, file, start, start + member.file_size)
                found[name] = _array(folder, file, window, name=name, start=start)
            else:
                found[name] = _inflated(archive, member, where, name)
    return found


@contextlib.contextmanager
def _archive(folder: Folder, file: str) -> Iterator[zipfile.ZipFile]:
    """The zip archive, whose damage is told in one line."""
    present(folder, file)
    try:
        with zipfile.ZipFile(Window(folder, file)) as archive:  # type: ignore[arg-type]
            yield archive
    except InputError:
        raise
    except Exception as error:  # zlib, zipfile and the header parser, with all their errors
        raise bad(f"{folder.root}/{file}", f"is not a readable .npz file ({error})", AGAIN) from error


def npz_tokens(folder: Folder, file: str) -> Vocabulary | None:
    """The token strings, if the archive has a one-dimensional array of strings."""
    with _archive(folder, file) as archive:
        for member in archive.infolist():
            if _is_text(archive, member):
                with archive.open(member) as opened:
                    shape, _, dtype = _header(opened, f"{folder.root}/{file}")
                # Once as an array, once as strings of Python's.
                if (
                    2 * member.file_size + 90 * math.prod(shape) > DESCRIPTION
                    or dtype.itemsize * math.prod(shape) > member.file_size
                ):
                    raise bad(
                        f"{folder.root}/{file}", f"{member.filename!r} claims {math.prod(shape):,} token strings", AGAIN
                    )
                array = npy.read_array(io.BytesIO(archive.read(member)), allow_pickle=False)
                if array.ndim == 1:
                    found = dict(enumerate(array.astype(str).tolist()))
                    return build(found, added={}, special=frozenset(), source=file, where=folder.root)
    return None


def _is_text(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bool:
    with archive.open(member) as opened:
        return re.search(rb"'descr': '[<>|=][US]\d+'", opened.read(256)) is not None


LARGEST_INFLATED = 8 << 30


def _inflated(archive: zipfile.ZipFile, member: zipfile.ZipInfo, where: str, name: str) -> Matrix:
    """A compressed array: its header now, all of it when a row is first asked for."""
    if member.file_size > LARGEST_INFLATED:
        raise bad(where, f"member {name!r} inflates to {member.file_size:,} bytes", "save it with numpy.savez")
    with archive.open(member) as opened:
        shape, _, dtype = _header(opened, where)
    if dtype.type not in KINDS:
        raise bad(where, f"holds an array of type {dtype}", "numbers are needed")
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize > member.file_size:
        raise bad(
            where, f"claims shape {shape} but inflates to {member.file_size:,} bytes", f"it is truncated: {AGAIN}"
        )
    file = archive.fp

    @functools.cache
    def tensor() -> torch.Tensor:
        try:
            with zipfile.ZipFile(file) as again:  # type: ignore[arg-type]
                array = npy.read_array(io.BytesIO(again.read(member)), allow_pickle=False)
        except Exception as error:  # zlib, zipfile and the header parser, with all their errors
            raise bad(where, f"member {name!r} is not a readable array ({error})", AGAIN) from error
        return torch.from_numpy(np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="))))

    return Matrix(name=name, shape=shape, kind=KINDS[dtype.type], fetch=lambda ids: tensor()[ids])


def _local_header(folder: Folder, file: str, offset: int) -> int:
    """Length of a zip member's local header: 30 bytes, then a name and an extra field."""
    head = folder.spans(file, [(offset, offset + 30)]).tobytes()
    return 30 + int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")


KINDS = {
    np.float64: "float64", np.float32: "float32", np.float16: "float16",
    np.int64: "int64", np.int32: "int32", np.int16: "int16", np.int8: "int8", np.uint8: "uint8",
}  # fmt: skip


def _header(opened: Any, where: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, order and type of an array, from its beginning."""
    try:
        version = npy.read_magic(opened)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python 2 wrote its numbers with an L, which is no reason for a line
            return read(opened)
    except InputError:
        raise
    except Exception as error:  # the header is a Python literal, read by tokenizer and parser, with all their errors
        raise bad(where, f"is not a readable array ({str(error)[:100] or type(error).__name__})", AGAIN) from error


def _array(folder: Folder, file: str, window: Window, *, name: str, start: int) -> Matrix:
    where = f"{folder.root}/{file}"
    shape, columns_first, dtype = _header(window, where)
    if dtype.type not in KINDS or not dtype.isnative:
        raise bad(where, f"holds an array of type {dtype}", "save it as native float32 or float64")
    if columns_first and len(shape) > 1:
        raise bad(where, "lies in column (Fortran) order, so its rows cannot be read", "save it in row order")
    count = 1
    for n in shape:
        count *= n
    if min(shape, default=0) < 0 or window.at + count * dtype.itemsize > window.length:
        raise bad(where, f"claims shape {shape} but has {window.length:,} bytes", f"it is truncated: {AGAIN}")
    return stored_rows(folder, file, name=name, offset=start + window.at, shape=shape, kind=KINDS[dtype.type])
