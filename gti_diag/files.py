"""Files that appear whole or not at all, one by one or together; and sizes as people write them."""

import contextlib
import functools
import os
import re
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from .errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LEFT_BEHIND = 24 * 3600  # seconds after which what is not whole never will be
UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def shipped_toml(package: str, name: str) -> dict[str, Any]:
    """A TOML file that lies in one of our packages."""
    return tomllib.loads(resources.files(package).joinpath(name).read_text(encoding="utf-8"))


@contextlib.contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; move it there on success, remove it on any failure.

    The temporary name is unique, so two writers of one path never mix: the last whole file wins. A link stays, its
    target is replaced. A device or a pipe cannot be replaced: `path` itself is yielded.

    Raises:
        InputError: the folder cannot be made or written, or the disk is full.
    """
    target = Path(path)
    if target.exists() and not (target.is_file() or target.is_dir()):
        with told(target):
            yield target
        return
    target = Path(os.path.realpath(target))
    with told(target):
        temporary = _beside(target)
    try:
        with told(target):
            yield temporary
            os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _beside(target: Path) -> Path:
    """A new empty file in the folder of `target`, which is made if need be."""
    target.parent.mkdir(parents=True, exist_ok=True)
    _sweep(target.parent)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=_mark(), suffix=target.suffix)
    os.close(handle)
    umask = os.umask(0)
    os.umask(umask)
    os.chmod(name, 0o666 & ~umask)  # mkstemp makes private files; a report is an ordinary one
    return Path(name)


def part_folder(home: Path) -> Path:
    """A new private folder in `home`, which is made if need be, for what is not whole yet.

    Raises:
        OSError: it cannot be made.
    """
    home.mkdir(parents=True, exist_ok=True)
    _sweep(home)
    return Path(tempfile.mkdtemp(dir=home, prefix=_mark()))


def _mark() -> str:
    """How names of what is not whole yet begin: with who writes it."""
    host = re.sub(r"\W", "", socket.gethostname())[:20]
    return f".part-{host}-{os.getpid()}-"


@functools.cache
def _sweep(folder: Path) -> None:
    """Remove what killed runs left in `folder`: ours by user, and a day old or of a process of this machine that is gone."""
    here = _mark().split("-")[1]
    for path in folder.glob(".part-*-*-*"):
        _, host, process, _ = path.name.split("-", 3)
        with contextlib.suppress(OSError):  # another run may sweep too
            found = path.lstat()
            gone = host == here and process.isdigit() and not _runs(int(process))
            old = gone or time.time() - found.st_mtime > LEFT_BEHIND
            if (
                found.st_uid != os.getuid() or not old or path.name.endswith("-old")
            ):  # -old: what was about to be replaced
                continue
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


@contextlib.contextmanager
def all_or_none(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary folder in `folder`; move its files there on success, remove them on any failure.

    Raises:
        InputError: the folder cannot be made or written.
    """
    home = Path(folder)
    with told(home):
        stage = part_folder(home)
    try:
        with told(home):
            yield stage
            for file in sorted(path for path in stage.rglob("*") if path.is_file()):
                target = home / file.relative_to(stage)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(file, os.path.realpath(target))
    finally:
        shutil.rmtree(stage, ignore_errors=True)


@contextlib.contextmanager
def told(target: Path) -> Iterator[None]:
    """Say in one line why `target` cannot be written, whichever library was writing it.

    Raises:
        InputError: the place cannot be written, or the disk is full.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if why := _disk(error):
            raise InputError(f"cannot write {target}: {why}") from error
        raise


def _disk(error: Exception) -> str | None:
    """What is wrong with the place that was written to; None where the error is another."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if isinstance(error, RuntimeError) and "inline_container" in str(error):  # torch.save does not say more
        return "no more can be written; make room"
    # safetensors and tokenizers, and safetensors as it was in 0.5
    rust = re.search(r"""([^:]+) \(os error \d+\)|Os \{ code: \d+, kind: \w+, message: "([^"]+)\"""", str(error))
    return rust and (rust[1] or rust[2]).strip()


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Write `text` as UTF-8 to `path` atomically.

    Raises:
        InputError: as `atomic`.
    """
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
    return Path(path)


def parse_bytes(text: str, option: str = "--max-memory") -> int:
    """`2GB`, `512 MiB`, `1e9` as a number of bytes (decimal units of 1000, binary of 1024).

    Raises:
        InputError: not a size, or under 64 MB.
    """
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:e[0-9]+)?)\s*([kmgt]i?)?b?\s*", text.lower())
    if not match:
        raise InputError(f"{option} {text!r} is not a size: write it like 2GB or 512MiB")
    size = float(match[1]) * UNITS[match[2] or ""]
    if not size < 2**63:
        raise InputError(f"{option} {text!r} is more than any machine has: write it like 2GB or 512MiB")
    if size < 64 * 10**6 and option == "--max-memory":
        raise InputError(f"{option} {text!r} is under 64MB, too little to hold a tile of rows")
    return int(size)
