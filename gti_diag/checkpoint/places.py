"""Where the bytes lie. A folder lists names, returns small files whole and large files by byte range."""

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from gti_diag.foreign.json_text import parse_json as parse_json

from .records import bad

SMALL_FILE = 512 * 1024 * 1024  # a tokenizer or an index; anything larger is not one


class Folder(Protocol):
    """A directory of files, near or far."""

    @property
    def root(self) -> str: ...

    def names(self) -> tuple[str, ...]: ...

    def folders(self) -> tuple[str, ...]: ...

    def into(self, name: str) -> "Folder": ...

    def size(self, name: str) -> int: ...

    def spans(self, name: str, spans: Sequence[tuple[int, int]]) -> np.ndarray: ...

    def identity(self, name: str) -> str | None: ...


@dataclass(frozen=True)
class LocalFolder:
    """A directory of this machine. Bytes are read, not mapped: a file cut short under us is an error, not a signal."""

    root: str

    def _entries(self) -> list[os.DirEntry]:
        try:
            return sorted(os.scandir(self.root), key=lambda entry: entry.name)
        except OSError as error:
            raise bad(self.root, f"cannot be listed ({error.strerror})") from error

    def names(self) -> tuple[str, ...]:
        return tuple(entry.name for entry in self._entries() if not entry.is_dir(follow_symlinks=False))

    def folders(self) -> tuple[str, ...]:
        return tuple(entry.name for entry in self._entries() if Path(entry.path).is_dir())

    def into(self, name: str) -> "LocalFolder":
        return LocalFolder(str(Path(self.root, name)))

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
                    part = out[at : at + stop - start].data
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


class Window(io.RawIOBase):
    """A read-only file object over bytes `start` to `stop` of a folder's file, for libraries that want one."""

    def __init__(self, folder: Folder, name: str, start: int = 0, stop: int | None = None) -> None:
        self.folder, self.name, self.start = folder, name, start
        self.length = (folder.size(name) if stop is None else stop) - start
        self.at = 0
        self.most = SMALL_FILE  # bytes of one read: libraries believe what a file claims of itself

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.at = max(0, offset + (0, self.at, self.length)[whence])
        return self.at

    def read(self, count: int = -1) -> bytes:
        stop = self.length if count is None or count < 0 else min(self.length, self.at + count)
        if stop <= self.at:
            return b""
        if stop - self.at > self.most:
            raise bad(
                f"{self.folder.root}/{self.name}",
                f"has a part of {stop - self.at:,} bytes where at most {self.most:,} are read",
            )
        data = self.folder.spans(self.name, [(self.start + self.at, self.start + stop)]).tobytes()
        self.at = stop
        return data

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


LFS = b"version https://git-lfs.github.com/spec/"
LARGEST_POINTER = 1024


def present(folder: Folder, name: str) -> int:
    """The size of a file whose bytes are here.

    Raises:
        InputError: it is what git leaves in place of a large file that was not fetched.
    """
    size = folder.size(name)
    if len(LFS) <= size <= LARGEST_POINTER and folder.spans(name, [(0, len(LFS))]).tobytes() == LFS:
        raise bad(f"{folder.root}/{name}", "is a Git LFS pointer, not the file", "run git lfs pull in its folder")
    return size


def whole(folder: Folder, name: str) -> bytes:
    """All bytes of a small file."""
    size = present(folder, name)
    if size > SMALL_FILE:
        raise bad(f"{folder.root}/{name}", f"is {size:,} bytes, more than a description file can be")
    return folder.spans(name, [(0, size)]).tobytes()


def read_json(folder: Folder, name: str) -> dict:
    """The JSON object in a small file."""
    found = parse_json(whole(folder, name), f"{folder.root}/{name}")
    if not isinstance(found, dict):
        raise bad(f"{folder.root}/{name}", "must hold a JSON object")
    return found
