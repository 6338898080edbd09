"""Rows written into a copy of a safetensors checkpoint: only the bytes of those rows change.

Files that hold no such row are copied (or hard-linked) as they are; a file that does is copied and then patched in place, so
everything else in it is the same by construction. What is the same is also shown: by SHA-256, of whole files, and of patched
files with the patched bytes left out.
"""

import contextlib
import hashlib
import json
import os
import shutil
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gti_diag.errors import InputError

INDEX = "model.safetensors.index.json"
CHUNK = 1 << 24


@dataclass(frozen=True)
class RowEdit:
    """New values for some rows of one stored tensor, in its own type."""

    tensor: str
    ids: list[int]
    rows: Tensor


def shard_of(folder: Path, tensor: str) -> Path:
    """The safetensors file of `folder` that holds `tensor`.

    Raises:
        InputError: none does.
    """
    index = folder / INDEX
    if index.is_file():
        named = json.loads(index.read_text(encoding="utf-8"))["weight_map"].get(tensor)
        files = [folder / named] if named else []
    else:
        files = sorted(folder.glob("*.safetensors"))
    for file in files:
        if tensor in _header(file)[0]:
            return file
    raise InputError(
        f"{folder}: no safetensors file holds {tensor!r}: repair writes safetensors; convert the checkpoint first"
    )


def write_edited(source: Path, out: Path, edits: list[RowEdit], *, link: bool = False) -> dict[str, dict[str, Any]]:
    """Make `out` a copy of `source` with these rows; for each file its SHA-256, and whether it is as it was.

    Files with an edit also have `sha256_beside`: of all their bytes but those of the edited rows, which source and copy share.

    Raises:
        InputError: a tensor is not there, or the rows do not fit it; the copy differs where it must not.
    """
    patches = _patches(source, edits)
    record = {}
    for file in sorted(path for path in source.rglob("*") if path.is_file()):
        name = file.relative_to(source)
        target = out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        own = patches.get(file, [])
        if file != target:
            _copy(file, target, link=link and not own and file.suffix == ".safetensors")
        if not own:
            record[str(name)] = {"sha256": digest(target), "same": True}
            continue
        before = digest(file, leaving_out=own)
        _patch(target, own)
        beside = digest(target, leaving_out=own)
        if beside != before:
            raise InputError(
                f"{target} differs from {file} outside the repaired rows: the disk failed, or the file was written to"
            )
        record[str(name)] = {"sha256": digest(target), "same": False, "rows": len(own), "sha256_beside": beside}
    return record


@dataclass(frozen=True)
class _Patch:
    start: int
    data: bytes


def _patches(folder: Path, edits: list[RowEdit]) -> dict[Path, list[_Patch]]:
    found: dict[Path, list[_Patch]] = {}
    for edit in edits:
        file = shard_of(folder, edit.tensor)
        header, begin = _header(file)
        entry = header[edit.tensor]
        count, dim = entry["shape"]
        start, stop = entry["data_offsets"]
        width = (stop - start) // count
        rows = edit.rows.contiguous()
        if rows.shape != (len(edit.ids), dim) or rows.dtype.itemsize * dim != width:
            raise InputError(
                f"{file}: rows of shape {tuple(rows.shape)} and {rows.dtype} do not fit {edit.tensor} ({count} × {dim})"
            )
        data = rows.view(torch.uint8).numpy()
        found.setdefault(file, []).extend(
            _Patch(begin + start + id * width, data[place].tobytes()) for place, id in enumerate(edit.ids)
        )
    return {file: sorted(own, key=lambda patch: patch.start) for file, own in found.items()}


def _header(file: Path) -> tuple[dict[str, Any], int]:
    """The entries by tensor, and where their data begin; the file was checked when the checkpoint was opened."""
    with file.open("rb") as handle:
        (length,) = struct.unpack("<Q", handle.read(8))
        return json.loads(handle.read(length)), 8 + length


def _copy(file: Path, target: Path, *, link: bool) -> None:
    if link:
        with contextlib.suppress(OSError):  # another disk: a copy will do
            os.link(file, target)
            return
    shutil.copyfile(file, target)


def _patch(file: Path, patches: list[_Patch]) -> None:
    with file.open("r+b") as handle:
        for patch in patches:
            handle.seek(patch.start)
            handle.write(patch.data)


def digest(file: Path, *, leaving_out: list[_Patch] | None = None) -> str:
    """SHA-256 of a file, without the bytes of the patches."""
    found = hashlib.sha256()
    with file.open("rb") as handle:
        at = 0
        for patch in [*(leaving_out or ()), _Patch(file.stat().st_size, b"")]:
            while at < patch.start:
                part = handle.read(min(CHUNK, patch.start - at))
                if not part:
                    raise InputError(f"{file} ends before byte {patch.start}: it is truncated")
                found.update(part)
                at += len(part)
            at = handle.seek(patch.start + len(patch.data))
    return found.hexdigest()


def edits_of(rows: Mapping[str, tuple[list[int], Tensor]], tensors: Mapping[str, str]) -> list[RowEdit]:
    """Edits by role as edits by tensor: `tensors` names the stored tensor of each role."""
    return [RowEdit(tensors[role], ids, values) for role, (ids, values) in rows.items()]
