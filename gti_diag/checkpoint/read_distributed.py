"""torch.distributed.checkpoint folders (FSDP, FSDP2): a `.metadata` pickle and .distcp files of torch.save archives.

The metadata is unpickled with the classes it needs and no other, so it cannot run code.
Source: torch/distributed/checkpoint/{metadata,filesystem}.py.
"""

from __future__ import annotations

import functools
import io
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from gti_diag.errors import InputError

from .blocks import Block, joined
from .lazy import kind_of, torch
from .places import Folder, present, whole
from .read_pickle import read_window
from .records import Matrix, bad

ALLOWED = {
    ("torch.distributed.checkpoint.metadata", name)
    for name in (
        "Metadata", "MetadataIndex", "BytesStorageMetadata", "ChunkStorageMetadata", "TensorStorageMetadata",
        "TensorProperties", "StorageMeta", "_MEM_FORMAT_ENCODING",
    )
} | {
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"), ("torch", "Size"), ("collections", "OrderedDict"),
    ("torch.serialization", "_get_layout"), ("pathlib", "PosixPath"), ("pathlib", "PurePosixPath"),
    ("pathlib._local", "PosixPath"),
}  # fmt: skip


# Opcodes that metadata does not need: buffers of any size, and the extension registry.
UNWANTED = {code[0] for code in (pickle.BYTEARRAY8, pickle.NEXT_BUFFER, pickle.EXT1, pickle.EXT2, pickle.EXT4)}


class _Metadata(pickle._Unpickler):  # type: ignore[name-defined,misc]
    """The unpickler written in Python: the one in C can be crashed by damaged input."""

    dispatch = {code: load for code, load in pickle._Unpickler.dispatch.items() if code not in UNWANTED}  # type: ignore[attr-defined] # noqa: RUF012

    def find_class(self, module: str, name: str) -> Any:
        dtype = getattr(torch, name, None) if module == "torch" else None
        if isinstance(dtype, torch.dtype):
            return dtype
        if name == "PosixPath":  # the writer's path; it need not exist here, nor this be such a system
            return PurePosixPath
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name}")
        return super().find_class(module, name)


@dataclass(frozen=True)
class _Chunk:
    """One stored rectangle: where it belongs, how large it is, and which bytes of which file hold it."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    file: str
    start: int
    length: int
    transforms: object


@dataclass(frozen=True)
class _Entry:
    shape: tuple[int, ...]
    dtype: torch.dtype
    chunks: tuple[_Chunk, ...]


def _entries(data: bytes) -> dict[str, _Entry]:
    """The metadata as plain values. Anything that is not as the writer leaves it raises something."""
    import torch.distributed.checkpoint.filesystem

    found = _Metadata(io.BytesIO(data)).load()
    places = {
        (index.fqn, _whole(index.offset)): info
        for index, info in found.storage_data.items()
        if index.offset is not None
    }
    entries = {}
    for name, entry in found.state_dict_metadata.items():
        if not hasattr(entry, "chunks") or name.startswith("optim"):
            continue
        chunks = []
        for chunk in entry.chunks:
            offsets = _whole(chunk.offsets)
            info = places[name, offsets]
            start, length = _whole((info.offset, info.length))
            transforms = getattr(info, "transform_descriptors", None)
            chunks.append(_Chunk(offsets, _whole(chunk.sizes), str(info.relative_path), start, length, transforms))
        if not isinstance(entry.properties.dtype, torch.dtype):
            raise TypeError("dtype")
        entries[str(name)] = _Entry(_whole(entry.size), entry.properties.dtype, tuple(chunks))
    return entries


def _whole(numbers: Any) -> tuple[int, ...]:
    found = tuple(numbers)
    if not all(type(n) is int and 0 <= n < 2**63 for n in found):
        raise ValueError("not a shape")
    return found


class Distributed(Mapping[str, Matrix]):
    """Tensors by name; a shard is looked into when one of its tensors is asked for."""

    def __init__(self, folder: Folder) -> None:
        self.folder, self.where = folder, f"{folder.root}/.metadata"
        try:
            self.entries = _entries(whole(folder, ".metadata"))
        except pickle.UnpicklingError as error:
            raise bad(self.where, f"is a pickle that would run code to load ({error})") from error
        except InputError:
            raise
        except Exception as error:  # a damaged pickle fails in many ways
            raise bad(self.where, f"is not readable metadata ({type(error).__name__})", "copy it again") from error
        self._read = functools.cache(self._matrix)

    def __getitem__(self, name: str) -> Matrix:
        if name not in self.entries:
            raise KeyError(name)
        return self._read(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def _matrix(self, name: str) -> Matrix:
        entry = self.entries[name]
        if len(entry.shape) != 2:  # not an embedding: described, never read
            return Matrix(name=name, shape=entry.shape, kind=kind_of(entry.dtype), fetch=_unread)
        blocks = []
        for chunk in entry.chunks:
            part = self._part(chunk, name)
            if part.shape != chunk.sizes or len(chunk.offsets) != 2:
                raise bad(self.where, f"says {chunk.sizes} for a part of {name!r} that is {part.shape}")
            blocks.append(Block(chunk.offsets[0], chunk.offsets[1], part))
        return joined(name, blocks, shape=(entry.shape[0], entry.shape[1]), dtype=entry.dtype)

    def _part(self, chunk: _Chunk, name: str) -> Matrix:
        file = chunk.file
        if PurePosixPath(file).name != file or file in ("", ".", ".."):
            raise bad(self.where, f"places {name!r} in {file!r}, which is not a plain file name")
        if chunk.transforms:
            raise bad(self.where, f"stores {name!r} through transforms {chunk.transforms}", "save it without them")
        if file not in self.folder.names():
            raise bad(self.where, f"names the shard {file!r}, which is not there", "copy it again")
        size, stop = present(self.folder, file), chunk.start + chunk.length
        if stop > size:
            raise bad(
                f"{self.folder.root}/{file}", f"has {size:,} bytes, fewer than its metadata says", "it is truncated"
            )
        found = read_window(self.folder, file, chunk.start, stop)
        if len(found) != 1:
            raise bad(f"{self.folder.root}/{file}", f"holds no readable part of {name!r} at byte {chunk.start}")
        return next(iter(found.values()))


def _unread(ids: torch.Tensor) -> torch.Tensor:
    raise ValueError("only matrices are read")
