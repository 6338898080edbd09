"""open_checkpoint: find the weights, find the embedding among them, find the strings."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gti_diag.errors import InputError

from . import layouts, sidecar
from .far import FarFolder, place
from .formats import ADAPTER, Weights, first_with, read_weights
from .lazy import torch
from .places import Folder, read_json, whole
from .read_adapter import COPY, adapted, adapter, replaced_rows
from .records import SIZES, Checkpoint, Matrix, Vocabulary, bad
from .tokenizer_files import TokenizerFiles
from .vocabulary import read_vocabulary

COMPARED_ROWS = 256  # rows read to see whether a stored head equals the input matrix
MOST_ADDED_COMPARED = 1024
LEFT_OUT = "left out the head"


def open_checkpoint(path: str | Path, *, tensor: str | None = None) -> Checkpoint:
    """Open a checkpoint; read its descriptions, none of its weights but a few rows of a stored head.

    Args:
        path: a folder, a weights file, an fsspec URL, or a hub id `owner/name[@revision]`.
        tensor: the name of the input matrix, where the layout is not known.

    Raises:
        InputError: there is no checkpoint, it is damaged, or its embedding cannot be told.
    """
    return _opened(path, tensor, adapters=())


def _opened(path: str | Path, tensor: str | None, *, adapters: tuple[str, ...]) -> Checkpoint:
    """The checkpoint; `adapters` are those that wait for this base, by the real paths of their folders."""
    folder, file = place(path)
    weights = read_weights(folder, file)
    if weights.format == ADAPTER:
        return _adapter_checkpoint(path, weights, tensor, adapters=adapters)
    config = _config(weights)
    vocabulary = weights.vocabulary or _vocabulary(weights, file)
    layout, matrices, notes = _matrices(str(path), weights.tensors, config=config, vocabulary=vocabulary, tensor=tensor)
    head_left_out = any(note.startswith(LEFT_OUT) for note in notes)
    tied, tie_notes = (False, ()) if head_left_out else _tied(matrices, config, vocabulary)
    packed = {f"rows of {m.name} are stored as {m.packing}, read as float32" for m in matrices.values() if m.packing}
    return Checkpoint(
        path=str(path),
        format=weights.format,
        config=config,
        vocabulary=vocabulary,
        matrices=matrices,
        tied=tied,
        sidecar=_sidecar(weights.folders, matrices["input"], vocabulary),
        notes=(*weights.notes, *notes, *tie_notes, *sorted(packed)),
        layout=layout,
        tensors=weights.tensors,
        tokenizer=TokenizerFiles(functools.partial(_nearest, weights.folders), _text(config, "chat_template")),
        identity=_identity(weights),
    )


def _config(weights: Weights) -> Mapping[str, Any] | None:
    if weights.config is not None:
        return weights.config
    home = first_with(weights.folders, "config.json")
    return read_json(home, "config.json") if home is not None else None


def _vocabulary(weights: Weights, file: str | None) -> Vocabulary | None:
    """From the nearest folder that has one; beside a lone array, only a list that fits its rows."""
    array = weights.format in ("npy", "npz")
    stem = Path(file).stem if file is not None else None
    for folder in weights.folders:
        found = read_vocabulary(folder, stem=stem)
        if found is not None and not (
            array and file and found.size not in {m.shape[0] for m in weights.tensors.values()}
        ):
            return found
    return None


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


def text_config(config: Mapping | None) -> Mapping:
    """The part of a config that speaks of the language model (multimodal configs nest it)."""
    config = config or {}
    nested = next((config[key] for key in ("text_config", "llm_config", "language_config") if key in config), None)
    return {**config, **nested} if isinstance(nested, Mapping) else config


def _sizes(config: Mapping | None, vocabulary: Vocabulary | None) -> tuple[int, ...]:
    """Row counts that an embedding of this checkpoint may have."""
    declared = [text_config(config).get("vocab_size"), vocabulary.size if vocabulary else None]
    return tuple(size for size in declared if isinstance(size, int))


def _matrices(
    path: str,
    tensors: Mapping[str, Matrix],
    *,
    config: Mapping | None,
    vocabulary: Vocabulary | None,
    tensor: str | None,
) -> tuple[str, dict[str, Matrix], tuple[str, ...]]:
    """The layout's family, the matrices by role, and what to tell about the choice."""
    quantised = layouts.quantised(tensors)
    found = layouts.find([*tensors, *quantised])
    notes: tuple[str, ...] = ()
    if tensor is not None and tensor not in tensors:
        near = ", ".join(m.name for m in layouts.candidates(tensors, _sizes(config, vocabulary))[:4])
        raise bad(path, f"has no tensor {tensor!r}", f"candidates: {near}" if near else "")
    chosen = tensor if tensor is not None or found is None else found.input
    if chosen in quantised:
        raise bad(path, f"stores {chosen!r} quantised (by {quantised[chosen]!r} beside it), which is not read",
                  "save the embedding dequantised")  # fmt: skip
    if found is not None and tensor in (None, found.input):
        layout, matrices = found.layout.family, {"input": tensors[found.input]}
        if found.output in quantised:
            notes += (f"{LEFT_OUT} {found.output!r}, which is stored quantised",)
        elif found.output is not None:
            matrices["output"] = tensors[found.output]
        if found.others:
            notes += (f"took {found.input!r}; {', '.join(found.others)} would fit too (choose with --tensor)",)
    elif tensor is not None:
        layout, matrices = "chosen by name", {"input": tensors[tensor]}
    else:
        layout, matrices, notes = _ranked(path, tensors, _sizes(config, vocabulary))
    for matrix in matrices.values():
        if len(matrix.shape) != 2 or not all(matrix.shape) or not matrix.floating:
            raise bad(path, f"tensor {matrix.name!r} has shape {matrix.shape} and type {matrix.kind}",
                      "an embedding is a floating-point matrix with rows: choose one with --tensor")  # fmt: skip
    return layout, matrices, notes


def _ranked(
    path: str, tensors: Mapping[str, Matrix], sizes: tuple[int, ...]
) -> tuple[str, dict[str, Matrix], tuple[str, ...]]:
    """No known layout: the one matrix that fits the vocabulary, or an error that names the candidates."""
    ranked = layouts.candidates(tensors, sizes)
    fitting = [matrix for matrix in ranked if matrix.shape[0] in sizes]
    if len(fitting) == 1 or len(ranked) == 1:
        why = "the only matrix that fits the vocabulary" if fitting else "the only matrix"
        return "guessed from shapes", {"input": ranked[0]}, (f"unknown layout: took {ranked[0].name!r}, {why}",)
    if not ranked:
        raise bad(path, "holds no floating-point matrix", "this is not a model with an embedding")
    shown = ", ".join(f"{m.name} {m.shape[0]}×{m.shape[1]}" for m in ranked[:5])
    raise bad(path, "has a layout that is not known", f"choose the embedding with --tensor NAME; candidates: {shown}")


def _tied(
    matrices: Mapping[str, Matrix], config: Mapping | None, vocabulary: Vocabulary | None
) -> tuple[bool | None, tuple[str, ...]]:
    """Whether one matrix serves both ends, by what is stored; a note where the config says otherwise."""
    said = text_config(config).get("tie_word_embeddings")
    said = said if isinstance(said, bool) else None
    entry, head = matrices["input"], matrices.get("output")
    if head is None:
        names = (config or {}).get("architectures")
        names = names if isinstance(names, list) else []
        if said is False and any("LM" in str(name) or "Generation" in str(name) for name in names):
            return True, ("retied: the config says untied, but no head is stored",)
        return said, ()
    if head.shape != entry.shape:
        return False, (f"the head has shape {head.shape}, the input matrix {entry.shape}",)
    rows = entry.shape[0]
    added = [id for id in (vocabulary.added if vocabulary is not None else ()) if id < rows][-MOST_ADDED_COMPARED:]
    spread = range(0, rows, max(1, rows // COMPARED_ROWS))
    probe = sorted({*spread, *range(max(0, rows - 32), rows), *added})
    same = _equal_rows(entry, head, probe)
    if said and not same:
        return False, ("silently untied: the config says tied, but a head with other rows is stored "
                       "(loading will overwrite it by the input matrix)",)  # fmt: skip
    if said is False and same:
        return True, (f"silently tied: the config says untied, but the stored head equals the input matrix "
                      f"in all {len(probe)} rows compared",)  # fmt: skip
    return same, ()


def _equal_rows(first: Matrix, second: Matrix, ids: list[int]) -> bool:
    """Whether the rows hold the same values; where both are plain bytes of one type, without torch."""
    if first.stored is None or second.stored is None or first.kind != second.kind:
        both = (matrix.rows(torch.tensor(ids, dtype=torch.long)).double() for matrix in (first, second))
        return bool(torch.equal(*both))
    width = SIZES[first.kind]
    a, b = (matrix.stored(np.array(ids)).view(f"u{width}") for matrix in (first, second) if matrix.stored)
    differ = a != b
    sign = a.dtype.type(1 << (8 * width - 1))
    return not bool(((a | b)[differ] & ~sign).any())  # +0 and −0 are one value


# --- adapters -------------------------------------------------------------------------------------------------------


def _adapter_checkpoint(
    path: str | Path, weights: Weights, tensor: str | None, *, adapters: tuple[str, ...]
) -> Checkpoint:
    """A PEFT adapter on its base: the rows that the model would use with the adapter active."""
    config = weights.config or {}
    found = adapter(str(path), config, weights.tensors)
    base = _base(path, weights, tensor, adapters=adapters)
    entry = base.matrices["input"]
    head_name = _module(base.matrices["output"]) if "output" in base.matrices else _head_name(base)
    given = adapted(found, entry, _module(entry))
    assert given is not None
    matrices = {"input": given}
    # A tied head that the adapter touches starts from the input matrix and leaves it.
    touched = found.of(
        head_name, ".weight", ".lora_A.weight", ".base_layer.weight", ".token_adapter.trainable_tokens_delta"
    )
    # So does an untouched one whose input matrix is replaced by a copy: it keeps the base's rows.
    left = bool(base.tied) and touched is None and found.of(_module(entry), *COPY) is not None
    before = base.matrices.get("output", entry if left or touched is not None else None)
    head = adapted(found, before, head_name)
    if head is not None:
        matrices["output"] = dataclasses.replace(head, name=f"{head_name}.weight") if before is entry else head
    vocabulary = _vocabulary(weights, None) or base.vocabulary
    tied, notes = _tied(matrices, base.config, vocabulary) if head is not None else (base.tied, ())
    if left and not tied:
        notes = ("silently untied: the adapter has an input matrix of its own, the head keeps the base's rows",)
    changed = [role for role, now, was in (("input", given, entry), ("output", head, before)) if now is not was]
    kind = f"{config.get('peft_type', 'PEFT')} adapter on {base.path}"
    told = (
        f"{kind}: changes the {' and '.join(changed)} matrix" if changed else f"{kind}: leaves the embedding as it is"
    )
    return dataclasses.replace(
        base,
        path=str(path),
        format=ADAPTER,
        matrices=matrices,
        vocabulary=vocabulary,
        tied=tied,
        sidecar=_sidecar(weights.folders, matrices["input"], vocabulary) or base.sidecar,
        tokenizer=TokenizerFiles(
            lambda name: _nearest(weights.folders, name) or base.tokenizer.read(name), base.tokenizer.template
        ),
        replaced=replaced_rows(found, entry, _module(entry)),
        notes=(*weights.notes, told, *base.notes, *notes),
    )


def _module(matrix: Matrix) -> str:
    return layouts.bare(matrix.name).removesuffix(".weight")


def _head_name(base: Checkpoint) -> str:
    family = next((layout for layout in layouts.LAYOUTS if layout.family == base.layout and layout.output), None)
    return family.output[0].removesuffix(".weight") if family is not None else "lm_head"


def _base(path: str | Path, weights: Weights, tensor: str | None, *, adapters: tuple[str, ...]) -> Checkpoint:
    config, home = weights.config or {}, weights.folders[0].root
    name = config.get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        raise bad(path, "does not say in adapter_config.json which base it belongs to", "set base_model_name_or_path")
    here = os.path.realpath(home)
    if here in adapters:
        raise bad(
            path, f"is an adapter whose base {name!r} leads back to it", "set base_model_name_or_path to the model"
        )
    beside = Path(home, name)
    revision = config.get("revision")
    named = f"{name}@{revision}" if revision and not Path(name).exists() else name
    try:
        return _opened(beside if beside.is_dir() else named, tensor, adapters=(*adapters, here))
    except InputError as error:
        raise bad(path, f"is an adapter whose base cannot be opened ({error})") from error


def _sidecar(folders: tuple[Folder, ...], matrix: Matrix, vocabulary: Vocabulary | None) -> dict | None:
    """The sidecar of the nearest folder that has one."""
    home = first_with(folders, sidecar.NAME)
    return None if home is None else sidecar.read_sidecar(home, vocabulary=vocabulary, rows=matrix.shape[0])
