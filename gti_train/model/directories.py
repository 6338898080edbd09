"""A checkpoint folder that appears whole or not at all."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from gti_diag.errors import InputError


@contextlib.contextmanager
def atomic_directory(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary directory beside `path`; on success it takes the place of `path`, on failure it goes.

    Raises:
        InputError: as `check_place`.
    """
    target = Path(os.path.abspath(path))
    temporary = _beside(target)
    try:
        yield temporary
        previous = temporary.with_name(temporary.name + "-old")
        if target.exists():
            os.replace(target, previous)
        os.replace(temporary, target)
        shutil.rmtree(previous, ignore_errors=True)
    except OSError as error:
        raise InputError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_place(path: str | os.PathLike[str]) -> None:
    """Refuse now what `atomic_directory` would refuse after hours of work.

    Raises:
        InputError: the place cannot be written, or holds something that is not one of our directories.
    """
    _beside(Path(os.path.abspath(path))).rmdir()


def _beside(target: Path) -> Path:
    ours = target.is_dir() and ((target / "gti.json").is_file() or not any(target.iterdir()))
    if target.exists() and not ours:
        raise InputError(f"{target} is there and no checkpoint of gti-train: name another place, or remove it")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
        temporary.chmod(0o755)
    except OSError as error:
        raise InputError(f"cannot write {target}: {error.strerror or error}") from error
    return temporary
