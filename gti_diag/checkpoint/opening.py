"""open_checkpoint: find the weights, find the embedding among them, find the strings."""

from __future__ import annotations

import dataclasses
import functools
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gti_diag.errors import InputError

from . import layouts, sidecar
from .ends import LEFT_OUT, VECTORS, find_ends, tie, vector_names
from .far import FarFolder, place
from .formats import ADAPTER, Weights, first_with, read_weights
from .places import Folder, read_json, whole
from .read_adapter import adapter, merged
from .records import Checkpoint, Matrix, Vocabulary, bad
from .satellites import extended
from .tokenizer_files import TokenizerFiles
from .vocabulary import read_vocabulary

ADDRESS = re.compile(r"[A-Za-z][\w+.-]*:(//|:)")


def open_checkpoint(path: str | Path, *, tensor: str | None = None, base: Checkpoint | None = None) -> Checkpoint:
    """Open a checkpoint; read its descriptions, none of its weights but a few rows of a stored head.

    Args:
        path: a folder, a weights file, an fsspec URL, or a hub id `owner/name[@revision]` or `name`.
        tensor: the name of the input matrix, where the layout is not known.
        base: stands in for the base of an adapter where that cannot be opened.

    Raises:
        InputError: there is no checkpoint, it is damaged, or its embedding cannot be told.
    """
    return _opened(path, tensor, base, adapters=())


def open_base(path: str | Path, *, tensor: str | None = None) -> Checkpoint:
    """Open what a checkpoint was made from: by the same tensor name where it has it, else as its own layout says.

    Raises:
        InputError: as `open_checkpoint`.
    """
    if tensor is None:
        return open_checkpoint(path)
    try:
        return open_checkpoint(path, tensor=tensor)
    except InputError:
        return open_checkpoint(path)


def _opened(
    path: str | Path, tensor: str | None, stand_in: Checkpoint | None, *, adapters: tuple[str, ...]
) -> Checkpoint:
    """The checkpoint; `adapters` are those that wait for this base, by the real paths of their folders."""
    folder, file = place(path)
    weights = read_weights(folder, file)
    if weights.format == ADAPTER:
        return _adapter_checkpoint(path, weights, tensor, stand_in, adapters=adapters)
    config = _config(weights)
    vocabulary, side_notes = (weights.vocabulary, ()) if weights.vocabulary else _vocabulary(weights, file)
    layout, matrices, notes = find_ends(str(path), weights.tensors, config=config, vocabulary=vocabulary, tensor=tensor)
    head_left_out = any(note.startswith(LEFT_OUT) for note in notes)
    tied, tie_notes = (False, ()) if head_left_out else tie(matrices, config, vocabulary)
    packed = {f"rows of {m.name} are stored as {m.packing}, read as float32" for m in matrices.values() if m.packing}
    opened = Checkpoint(
        path=str(path),
        format=weights.format,
        config=config,
        vocabulary=vocabulary,
        matrices=matrices,
        tied=tied,
        sidecar=_sidecar(weights.folders, matrices["input"], vocabulary),
        notes=(*weights.notes, *side_notes, *notes, *tie_notes, *sorted(packed)),
        layout=layout,
        tensors=weights.tensors,
        tokenizer=TokenizerFiles(functools.partial(_nearest, weights.folders), _text(config, "chat_template")),
        identity=_identity(weights),
    )
    return _all_new(opened) if layout == VECTORS else opened


def _all_new(opened: Checkpoint) -> Checkpoint:
    rows = opened.matrices["input"].shape[0]
    vectors = "one vector" if rows == 1 else f"{rows:,} vectors"
    return dataclasses.replace(
        opened,
        vocabulary=vector_names(opened.tensors, rows),
        own=tuple(range(rows)),
        own_because=f"the file holds {vectors} and nothing else",
    )


def _config(weights: Weights) -> Mapping[str, Any] | None:
    if weights.config is not None:
        return weights.config
    home = first_with(weights.folders, "config.json")
    return read_json(home, "config.json") if home is not None else None


def _vocabulary(weights: Weights, file: str | None) -> tuple[Vocabulary | None, tuple[str, ...]]:
    """From the nearest folder that has one; beside a lone array, only a list that fits its rows. And what to tell."""
    array = weights.format in ("npy", "npz")
    stem = Path(file).stem if file is not None else None
    notes: tuple[str, ...] = ()
    for folder in weights.folders:
        found, told = read_vocabulary(folder, stem=stem)
        notes += told
        if found is not None and not (
            array and file and found.size not in {m.shape[0] for m in weights.tensors.values()}
        ):
            return found, notes
    return None, notes


def _nearest(folders: tuple[Folder, ...], name: str) -> bytes | None:
    home = first_with(folders, name)
    return None if home is None else whole(home, name)


def _text(config: Mapping | None, key: str) -> str | None:
    found = (config or {}).get(key)
    return found if isinstance(found, str) else None


def _identity(weights: Weights) -> str | None:
    """What a far store says its files are, in place of a hash of their bytes."""
    here = weights.folders[0]
    if not isinstance(here, FarFolder):
        return None
    return " ".join(str(here.identity(file)) for file in weights.files)


# --- adapters -------------------------------------------------------------------------------------------------------


def _adapter_checkpoint(
    path: str | Path,
    weights: Weights,
    tensor: str | None,
    stand_in: Checkpoint | None,
    *,
    adapters: tuple[str, ...],
) -> Checkpoint:
    """A PEFT adapter on its base: the rows that the model would use with the adapter active."""
    config, here = weights.config or {}, weights.folders[0]
    found = adapter(str(path), config, weights.tensors)
    base, base_notes = _base(path, weights, tensor, stand_in, adapters=adapters)
    longer, added = extended(base, here, weights.tensors, f"{here.root}/{weights.files[0]}")
    entry = longer.matrices["input"]
    head_name = _module(base.matrices["output"]) if "output" in base.matrices else _head_name(base)
    tied = "output" not in base.matrices and base.tied is not False and bool(base.tied or found.has(head_name))
    now = merged(found, longer.matrices, (_module(entry), head_name), tied=tied)
    matrices = {"input": now.entry} | ({"output": now.head} if now.head is not None else {})
    own, side_notes = _vocabulary(weights, None)
    vocabulary = longer.vocabulary if added and longer.vocabulary is not base.vocabulary else own or base.vocabulary
    own_tie, notes = tie(matrices, base.config, vocabulary) if now.head is not None else (base.tied, ())
    if now.left_behind and not own_tie:
        notes = ("silently untied: the adapter has an input matrix of its own, the head keeps the base's rows",)
    before = {"output": entry, **longer.matrices}
    changed = [role for role, matrix in matrices.items() if matrix.fetch is not before[role].fetch]
    does = [added] if added else []
    does += [f"changes the {' and '.join(changed)} matrix"] if changed else []
    told = f"{config.get('peft_type', 'PEFT')} adapter on {base.path}: {' and '.join(does) or 'leaves the embedding as it is'}"
    beyond = range(base.matrices["input"].shape[0], entry.shape[0])
    return dataclasses.replace(
        longer,
        path=str(path),
        format=ADAPTER,
        matrices=matrices,
        vocabulary=vocabulary,
        tied=own_tie,
        sidecar=_sidecar(weights.folders, matrices["input"], vocabulary) or base.sidecar,
        tokenizer=TokenizerFiles(
            lambda name: _nearest(weights.folders, name) or base.tokenizer.read(name), base.tokenizer.template
        ),
        own=now.replaced or tuple(beyond),
        own_because=f"the adapter trains {len(now.replaced):,} rows of its own"
        if now.replaced
        else f"the adapter {added}",
        notes=(*weights.notes, told, *side_notes, *base_notes, *base.notes, *now.notes, *notes),
    )


def _module(matrix: Matrix) -> str:
    return layouts.bare(matrix.name).removesuffix(".weight")


def _head_name(base: Checkpoint) -> str:
    family = next((layout for layout in layouts.LAYOUTS if layout.family == base.layout and layout.output), None)
    return family.output[0].removesuffix(".weight") if family is not None else "lm_head"


def _base(
    path: str | Path,
    weights: Weights,
    tensor: str | None,
    stand_in: Checkpoint | None,
    *,
    adapters: tuple[str, ...],
) -> tuple[Checkpoint, tuple[str, ...]]:
    """What adapter_config.json names, else what the user gave in its place; and a note if that was needed."""
    config, home = weights.config or {}, weights.folders[0].root
    name = config.get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        if stand_in is not None:
            return stand_in, (f"adapter_config.json names no base: read on {stand_in.path}",)
        raise bad(path, "does not say in adapter_config.json which base it belongs to",
                  "set base_model_name_or_path, or give the base with --base")  # fmt: skip
    here = os.path.realpath(home)
    if here in adapters:
        raise bad(
            path, f"is an adapter whose base {name!r} leads back to it", "set base_model_name_or_path to the model"
        )
    if ADDRESS.search(name):  # a checkpoint may not say where this machine asks
        if stand_in is not None:
            return stand_in, (
                f"the adapter's base is the address {name}, which is not followed: read on {stand_in.path}",
            )
        raise bad(path, f"names its base by the address {name!r}, which is not followed from inside a checkpoint",
                  "give the base yourself with --base")  # fmt: skip
    beside = Path(home, name)
    revision = config.get("revision")
    named = f"{name}@{revision}" if revision and not Path(name).exists() else name
    try:
        return _opened(beside if beside.is_dir() else named, tensor, None, adapters=(*adapters, here)), ()
    except InputError as error:
        if stand_in is not None:
            return stand_in, (f"the adapter's base {name} cannot be opened: read on {stand_in.path} in its place",)
        raise bad(path, f"is an adapter whose base cannot be opened ({error})", "give it with --base") from error


def _sidecar(folders: tuple[Folder, ...], matrix: Matrix, vocabulary: Vocabulary | None) -> dict | None:
    """The sidecar of the nearest folder that has one."""
    home = first_with(folders, sidecar.NAME)
    return None if home is None else sidecar.read_sidecar(home, vocabulary=vocabulary, rows=matrix.shape[0])
