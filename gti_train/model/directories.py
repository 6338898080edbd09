"""A checkpoint folder that appears whole or not at all, and replaces nothing but such folders."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from gti_diag.errors import InputError
from gti_diag.files import part_folder, told

MANIFEST = ".gti-train.json"  # which files of a folder we wrote, and their sizes: they may be replaced, others may not


@contextlib.contextmanager
def atomic_directory(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary directory beside `path`; on success it takes the place of `path`, on failure it goes.

    Raises:
        InputError: as `check_place`.
    """
    target = Path(os.path.realpath(path))
    temporary = _beside(target)
    try:
        with told(target):
            yield temporary
            _list_files(temporary)
            _refuse_foreign(target)  # hours may have passed
            previous = temporary.with_name(temporary.name + "-old")
            if target.exists():
                os.replace(target, previous)
            os.replace(temporary, target)
            shutil.rmtree(previous, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_place(path: str | os.PathLike[str]) -> None:
    """Refuse now what `atomic_directory` would refuse after hours of work.

    Raises:
        InputError: the place cannot be written, or holds something that we did not write.
    """
    _beside(Path(os.path.realpath(path))).rmdir()


def _beside(target: Path) -> Path:
    _refuse_foreign(target)
    with told(target):
        temporary = part_folder(target.parent)
        temporary.chmod(0o755)
    return temporary


def _list_files(folder: Path) -> None:
    sizes = {str(file.relative_to(folder)): file.stat().st_size for file in sorted(folder.rglob("*")) if file.is_file()}
    (folder / MANIFEST).write_text(json.dumps({"schema": 1, "files": sizes}, indent=1) + "\n", encoding="utf-8")


def _refuse_foreign(target: Path) -> None:
    """Raises InputError where something in `target` is not as we wrote it."""
    from gti_diag.foreign import schemas

    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not target.is_dir() or not (target / MANIFEST).is_file():
        raise InputError(f"{target} is there and no checkpoint of gti-train: name another place, or remove it")
    written = schemas.read_formed(schemas.Written, target / MANIFEST, "name another place").files
    for path in sorted(target.rglob("*")):
        name = str(path.relative_to(target))
        above = path.is_dir() and any(file.startswith(name + os.sep) for file in written)
        as_written = path.is_file() and path.stat().st_size == written.get(name)
        if path.is_symlink() or not (above or as_written or name == MANIFEST):
            raise InputError(f"{path} was not written by gti-train or changed since: move it, or name another place")
