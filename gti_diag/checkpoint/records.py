"""What an opened checkpoint is: matrices whose rows can be read, and the strings that name them."""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from gti_diag.errors import bad as bad

from .lazy import Tensor, torch
from .tokenizer_files import TokenizerFiles

TILE = 8192
FLOATS = {
    "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2,
    "float8_e4m3fn": 1, "float8_e5m2": 1, "float8_e4m3fnuz": 1, "float8_e5m2fnuz": 1,
}  # fmt: skip
INTEGERS = {
    "int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint64": 8, "uint32": 4, "uint16": 2, "uint8": 1, "bool": 1,
}  # fmt: skip
SIZES = {**FLOATS, **INTEGERS, "complex64": 8, "complex128": 16}  # bytes, by torch's name


@dataclass(frozen=True)
class Matrix:
    """A stored tensor of which only the rows asked for are read.

    `fetch(ids)` returns those rows, in that order, in storage precision (dequantised where the format is quantised).
    """

    name: str
    shape: tuple[int, ...]
    kind: str  # torch's name of the storage type
    fetch: Callable[[Tensor], Tensor] = field(repr=False, compare=False)
    stored: Callable[[np.ndarray], np.ndarray] | None = field(default=None, repr=False, compare=False)  # rows as bytes
    packing: str | None = None  # the block format that rows are dequantised from
    packed_row: int | None = None  # bytes of a row in that format

    @property
    def dtype(self) -> torch.dtype:
        return getattr(torch, self.kind)

    @property
    def floating(self) -> bool:
        return self.kind in FLOATS

    @property
    def stored_bytes(self) -> int:
        """Bytes that all rows take where they are stored."""
        row = self.packed_row if self.packed_row is not None else math.prod(self.shape[1:]) * SIZES[self.kind]
        return self.shape[0] * row

    def rows(self, ids: Tensor | None = None) -> Tensor:
        """The rows `ids` (all rows if None) as one (len(ids), dim) tensor.

        Raises:
            ValueError: an id is not a row of the matrix.
        """
        wanted = torch.arange(self.shape[0]) if ids is None else ids.to("cpu", torch.long)
        if wanted.numel() and not 0 <= int(wanted.min()) <= int(wanted.max()) < self.shape[0]:
            raise ValueError(
                f"row ids of {self.name} must lie in 0..{self.shape[0] - 1}, got {wanted.min()}..{wanted.max()}"
            )
        return self.fetch(wanted)

    def tiles(self, ids: Tensor | None = None, size: int = TILE) -> Iterator[Tensor]:
        """The same rows, at most `size` at a time: no more than one tile is in memory."""
        wanted = torch.arange(self.shape[0]) if ids is None else ids
        for part in wanted.split(size):
            yield self.rows(part)


@dataclass(frozen=True)
class Vocabulary:
    """Token strings by id as the tokenizer stores them; None where no token has the id."""

    tokens: tuple[str | None, ...]
    added: Mapping[int, str]
    special: frozenset[int]
    source: str

    @property
    def size(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as its files describe it.

    `tied` is True when one matrix serves both ends, False when a separate head is stored and differs, None when the
    files do not say or the architecture has no head. `notes` are things the reader of a report must know (a silently untied head, …).
    """

    path: str
    format: str
    config: Mapping | None
    vocabulary: Vocabulary | None
    matrices: Mapping[str, Matrix]
    tied: bool | None
    sidecar: Mapping | None
    notes: tuple[str, ...] = ()
    layout: str | None = None
    own: tuple[int, ...] = ()  # rows that are new by what the files are: those that an adapter replaces, lone vectors
    own_because: str = ""
    tensors: Mapping[str, Matrix] = field(default_factory=dict, repr=False, compare=False)
    tokenizer: TokenizerFiles = field(default_factory=TokenizerFiles, repr=False, compare=False)
    identity: str | None = field(default=None, repr=False)  # a remote store's own content id, in place of the bytes

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the matrices (name, shape, dtype, all rows) and of the token strings."""
        digest = Fingerprint(self)
        for role, matrix in sorted(self.matrices.items()):
            digest.begin(role)
            for tile in matrix.tiles() if self.identity is None else ():
                digest.update(tile)
        return digest.hex


class Fingerprint:
    """`Checkpoint.fingerprint` made along the way by whoever reads every row of every matrix, in order of their names."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint, self.digest = checkpoint, hashlib.sha256()
        if checkpoint.vocabulary is not None:
            self.digest.update(json.dumps(checkpoint.vocabulary.tokens).encode())

    def begin(self, role: str) -> None:
        """The next tiles are those of this matrix."""
        matrix = self.checkpoint.matrices[role]
        self.digest.update(f"{role} {matrix.name} {matrix.shape} {matrix.dtype}".encode())
        if self.checkpoint.identity is not None:
            self.digest.update(self.checkpoint.identity.encode())

    def update(self, tile: Tensor) -> None:
        if self.checkpoint.identity is None:
            self.digest.update(tile.contiguous().view(torch.uint8).numpy().data)

    @property
    def hex(self) -> str:
        return self.digest.hexdigest()
