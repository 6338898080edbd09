"""Where the bytes lie. A folder lists names, returns small files whole and large files by byte range."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from .records import bad

SMALL_FILE = 512 * 1024 * 1024  # a tokenizer or an index; anything larger is not one


class Folder(Protocol):
    """A directory of files, near or far."""

    root: str

    def names(self) -> tuple[str, ...]: ...

    def size(self, name: str) -> int: ...

    def spans(self, name: str, spans: Sequence[tuple[int, int]]) -> np.ndarray: ...

    def identity(self, name: str) -> str | None: ...


@dataclass(frozen=True)
class LocalFolder:
    """A directory of this machine. Bytes are read, not mapped: a file cut short under us is an error, not a signal."""

    root: str

    def names(self) -> tuple[str, ...]:
        try:
            found = [entry.name for entry in os.scandir(self.root) if not entry.is_dir(follow_symlinks=False)]
        except OSError as error:
            raise bad(self.root, f"cannot be listed ({error.strerror})") from error
        return tuple(sorted(found))

    def size(self, name: str) -> int:
        path = Path(self.root, name)
        try:
            if not path.is_file():
                raise bad(path, "is not a file")
            return path.stat().st_size
        except OSError as error:
            raise bad(path, f"cannot be read ({error.strerror})") from error

    def spans(self, name: str, spans: Sequence[tuple[int, int]]) -> np.ndarray:
        path = Path(self.root, name)
        out = np.empty(sum(stop - start for start, stop in spans), dtype=np.uint8)
        at = 0
        try:
            with open(path, "rb", buffering=0) as file:
                for start, stop in spans:
                    file.seek(start)
                    part = memoryview(out[at : at + stop - start])
                    while len(part):
                        count = file.readinto(part)
                        if not count:
                            raise bad(path, f"ends before byte {stop}", "it is truncated: copy or download it again")
                        part, at = part[count:], at + count
        except OSError as error:
            raise bad(path, f"cannot be read ({error.strerror})") from error
        return out

    def identity(self, name: str) -> str | None:
        return None


def whole(folder: Folder, name: str) -> bytes:
    """All bytes of a small file."""
    size = folder.size(name)
    if size > SMALL_FILE:
        raise bad(f"{folder.root}/{name}", f"is {size:,} bytes, more than a description file can be")
    return folder.spans(name, [(0, size)]).tobytes()


def parse_json(data: bytes, where: str) -> object:
    """JSON as a file must hold it: UTF-8, no key twice, no absurd nesting.

    Raises:
        InputError: anything else.
    """

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) != len(pairs):
            names = [key for key, _ in pairs]
            double = next(key for key in names if names.count(key) > 1)
            raise ValueError(f"key {double!r} twice")
        return found

    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=unique)
    except RecursionError as error:
        raise bad(where, "is not usable JSON (nested too deeply)") from error
    except ValueError as error:
        raise bad(where, f"is not usable JSON ({error})") from error


def read_json(folder: Folder, name: str) -> dict:
    """The JSON object in a small file."""
    found = parse_json(whole(folder, name), f"{folder.root}/{name}")
    if not isinstance(found, dict):
        raise bad(f"{folder.root}/{name}", "must hold a JSON object")
    return found
