"""torch.distributed.checkpoint folders (FSDP, FSDP2): a `.metadata` pickle and .distcp files of torch.save archives.

The metadata is read into inert records: no class is imported, so none can be changed.
Source: torch/distributed/checkpoint/{metadata,filesystem}.py.
"""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from gti_diag.errors import InputError
from gti_diag.foreign import inert_pickle
from gti_diag.foreign.inert_pickle import Record, Refused

from .blocks import Block, joined
from .lazy import torch
from .places import Folder, present, whole
from .read_pickle import kind_of_storage, read_window, whole_numbers
from .records import Matrix, bad

CLASSES = "torch.distributed.checkpoint.metadata"
# Names that metadata holds. None of them is imported, so this says what a file is, not what is safe.
ALLOWED = re.compile(
    re.escape(CLASSES)
    + r"\.(Metadata|MetadataIndex|\w*StorageMetadata|TensorProperties|StorageMeta|_MEM_FORMAT_ENCODING)"
    r"|torch\.distributed\.checkpoint\.filesystem\._StorageInfo|torch\.(Size|strided|\w*(float|int|bool|complex|bits)\w*)"
    r"|collections\.OrderedDict|torch\.serialization\._get_layout|pathlib(\._local)?\.(Pure)?PosixPath"
)


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
    kind: str
    chunks: tuple[_Chunk, ...]


def _entries(data: bytes) -> dict[str, _Entry]:
    """The metadata as plain values. Anything that is not as the writer leaves it raises something."""
    found = _fields(inert_pickle.load(io.BytesIO(data), lambda name: ALLOWED.fullmatch(name) is not None), "Metadata")
    places = {}
    for index, info in found["storage_data"].items():
        at = _fields(index, "MetadataIndex")
        if at.get("offset") is not None:  # None is left out: a class default
            places[at["fqn"], whole_numbers(at["offset"])] = _fields(info, "_StorageInfo")
    entries = {}
    for name, entry in found["state_dict_metadata"].items():
        if (
            not isinstance(entry, Record)
            or not entry.name.endswith(".TensorStorageMetadata")
            or name.startswith("optim")
        ):
            continue
        fields = _fields(entry, "TensorStorageMetadata")
        chunks = tuple(_chunk(chunk, name, places) for chunk in fields["chunks"])
        kind = kind_of_storage(_dtype(fields["properties"]))
        if kind is None:
            raise TypeError("dtype")
        entries[str(name)] = _Entry(whole_numbers(fields["size"]), kind, chunks)
    return entries


def _fields(record: Any, kind: str) -> dict[str, Any]:
    """The attributes that a dataclass of this name would have."""
    if not isinstance(record, Record) or record.name.rpartition(".")[2] != kind or not isinstance(record.state, dict):
        raise TypeError(f"no {kind}")
    return record.state


def _dtype(properties: Any) -> Any:
    """TensorProperties keeps its fields in a tuple, the type first; its oldest form as attributes."""
    if not isinstance(properties, Record):
        raise TypeError("properties")
    state = properties.state
    return state["dtype"] if isinstance(state, dict) else state[0]


def _chunk(chunk: Any, name: str, places: Mapping[Any, dict[str, Any]]) -> _Chunk:
    fields = _fields(chunk, "ChunkStorageMetadata")
    offsets = whole_numbers(fields["offsets"])
    info = places[name, offsets]
    start, length = whole_numbers((info["offset"], info["length"]))
    transforms = info.get("transform_descriptors")
    return _Chunk(offsets, whole_numbers(fields["sizes"]), str(info["relative_path"]), start, length, transforms)


class Distributed(Mapping[str, Matrix]):
    """Tensors by name; a shard is looked into when one of its tensors is asked for."""

    def __init__(self, folder: Folder) -> None:
        self.folder, self.where = folder, f"{folder.root}/.metadata"
        try:
            self.entries = _entries(whole(folder, ".metadata"))
        except Refused as error:
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
            return Matrix(name=name, shape=entry.shape, kind=entry.kind, fetch=_unread)
        blocks = []
        for chunk in entry.chunks:
            part = self._part(chunk, name)
            if part.shape != chunk.sizes or len(chunk.offsets) != 2:
                raise bad(self.where, f"says {chunk.sizes} for a part of {name!r} that is {part.shape}")
            blocks.append(Block(chunk.offsets[0], chunk.offsets[1], part))
        return joined(name, blocks, shape=(entry.shape[0], entry.shape[1]), dtype=getattr(torch, entry.kind))

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
