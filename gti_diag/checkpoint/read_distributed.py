"""torch.distributed.checkpoint folders (FSDP, FSDP2): a `.metadata` pickle and .distcp files of torch.save archives.

The metadata is unpickled with the classes it needs and no other, so it cannot run code.
Source: torch/distributed/checkpoint/{metadata,filesystem}.py.
"""

import functools
import io
import pickle
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

import torch

from .blocks import Block, joined
from .places import Folder, whole
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


class _Metadata(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        dtype = getattr(torch, name, None) if module == "torch" else None
        if isinstance(dtype, torch.dtype):
            return dtype
        if name == "PosixPath":  # the writer's path; it need not exist here, nor this be such a system
            return PurePosixPath
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name}")
        return super().find_class(module, name)


class Distributed(Mapping[str, Matrix]):
    """Tensors by name; a shard is looked into when one of its tensors is asked for."""

    def __init__(self, folder: Folder) -> None:
        import torch.distributed.checkpoint.filesystem  # noqa: F401  (the classes of the metadata)

        self.folder, self.where = folder, f"{folder.root}/.metadata"
        try:
            found = _Metadata(io.BytesIO(whole(folder, ".metadata"))).load()
            tensors = {n: m for n, m in found.state_dict_metadata.items() if hasattr(m, "chunks")}
            places = {(index.fqn, tuple(index.offset or ())): info for index, info in found.storage_data.items()}
        except pickle.UnpicklingError as error:
            raise bad(self.where, f"is a pickle that would run code to load ({error})") from error
        except Exception as error:  # a damaged pickle fails in many ways
            raise bad(self.where, f"is not readable metadata ({type(error).__name__})", "copy it again") from error
        self.tensors = {n: m for n, m in tensors.items() if not n.startswith("optim")}
        self.places = places
        self._read = functools.cache(self._matrix)

    def __getitem__(self, name: str) -> Matrix:
        if name not in self.tensors:
            raise KeyError(name)
        return self._read(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def _matrix(self, name: str) -> Matrix:
        entry = self.tensors[name]
        shape, dtype = tuple(entry.size), entry.properties.dtype
        if len(shape) != 2:  # not an embedding: described, never read
            return Matrix(name=name, shape=shape, dtype=dtype, fetch=_unread)
        blocks = []
        for chunk in entry.chunks:
            place = self.places.get((name, tuple(chunk.offsets)))
            if place is None:
                raise bad(self.where, f"does not say where part {tuple(chunk.offsets)} of {name!r} is stored")
            part = self._part(place, name)
            if part.shape != tuple(chunk.sizes):
                raise bad(self.where, f"says {tuple(chunk.sizes)} for a part of {name!r} that is {part.shape}")
            blocks.append(Block(chunk.offsets[0], chunk.offsets[1], part))
        return joined(name, blocks, shape=shape, dtype=dtype)  # type: ignore[arg-type]

    def _part(self, place: Any, name: str) -> Matrix:
        file = str(place.relative_path)
        if PurePosixPath(file).name != file or file in ("", ".", ".."):
            raise bad(self.where, f"places {name!r} in {file!r}, which is not a plain file name")
        if getattr(place, "transform_descriptors", None):
            raise bad(self.where, f"stores {name!r} through transforms {place.transform_descriptors}",
                      "save the checkpoint without them")  # fmt: skip
        if file not in self.folder.names():
            raise bad(self.where, f"names the shard {file!r}, which is not there", "copy it again")
        start, size = int(place.offset), self.folder.size(file)
        if not 0 <= start <= start + int(place.length) <= size:
            raise bad(
                f"{self.folder.root}/{file}", f"has {size:,} bytes, fewer than its metadata says", "it is truncated"
            )
        found = read_window(self.folder, file, start, start + int(place.length))
        if len(found) != 1:
            raise bad(f"{self.folder.root}/{file}", f"holds no readable part of {name!r} at byte {start}")
        return next(iter(found.values()))


def _unread(ids: torch.Tensor) -> torch.Tensor:
    raise ValueError("only matrices are read")
