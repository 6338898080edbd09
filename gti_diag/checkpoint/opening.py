"""open_checkpoint: find the weights, find the embedding among them, find the strings."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

import torch

from . import layouts
from .places import Folder, LocalFolder, read_json
from .read_safetensors import read_safetensors
from .records import Checkpoint, Matrix, Vocabulary, bad
from .vocabulary import read_vocabulary

COMPARED_ROWS = 256  # rows read to see whether a stored head equals the input matrix


def open_checkpoint(path: str | Path, *, tensor: str | None = None) -> Checkpoint:
    """Open a checkpoint folder or file; read its descriptions, none of its weights but a few rows of a stored head.

    Args:
        path: what the user has.
        tensor: the name of the input matrix, where the layout is not known.

    Raises:
        InputError: there is no checkpoint, it is damaged, or its embedding cannot be told.
    """
    folder, file = _place(path)
    format, tensors = _weights(folder, file)
    config = read_json(folder, "config.json") if "config.json" in folder.names() else None
    vocabulary = read_vocabulary(folder)
    layout, matrices, notes = _matrices(str(path), tensors, config=config, vocabulary=vocabulary, tensor=tensor)
    tied, tie_notes = _tied(matrices, config)
    return Checkpoint(
        path=str(path),
        format=format,
        config=config,
        vocabulary=vocabulary,
        matrices=matrices,
        tied=tied,
        sidecar=_sidecar(folder, matrices["input"]),
        notes=(*notes, *tie_notes),
        layout=layout,
        tensors=tensors,
    )


def _place(path: str | Path) -> tuple[Folder, str | None]:
    """The folder, and the file in it if one was named."""
    local = Path(path).expanduser()
    try:
        if local.is_dir():
            return LocalFolder(str(local)), None
        if local.is_file():
            return LocalFolder(str(local.parent)), local.name
    except OSError as error:
        raise bad(path, f"cannot be read ({error.strerror})") from error
    raise bad(path, "does not exist", "give a checkpoint folder or file")


class Shards(Mapping[str, Matrix]):
    """Tensors spread over files: a file's header is read when one of its tensors is asked for."""

    def __init__(self, folder: Folder, files: Mapping[str, str]) -> None:
        self.folder, self.files = folder, files
        self.opened: dict[str, dict[str, Matrix]] = {}

    def __getitem__(self, name: str) -> Matrix:
        file = self.files[name]
        if file not in self.opened:
            self.opened[file] = read_safetensors(self.folder, file)
        if name not in self.opened[file]:
            raise bad(f"{self.folder.root}/{file}", f"lacks tensor {name!r} that the index places there")
        return self.opened[file][name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)


def _weights(folder: Folder, file: str | None) -> tuple[str, Mapping[str, Matrix]]:
    names = folder.names() if file is None else (file,)
    indexes = [name for name in names if name.endswith(".safetensors.index.json")]
    if indexes:
        return "safetensors-sharded", _indexed(folder, indexes[0])
    plain = [
        n
        for n in names
        if n.endswith(".safetensors") and n not in ("codebooks.safetensors", "adapter_model.safetensors")
    ]
    if "model.safetensors" in plain:
        plain = ["model.safetensors"]
    if plain:
        _complete(folder, plain)
        tensors: dict[str, Matrix] = {}
        for name in plain:
            tensors |= read_safetensors(folder, name)
        return "safetensors" if len(plain) == 1 else "safetensors-sharded", tensors
    raise bad(folder.root, "holds no weights (no .safetensors file)", "give the folder that holds the checkpoint")


def _indexed(folder: Folder, index: str) -> Shards:
    where = f"{folder.root}/{index}"
    files = read_json(folder, index).get("weight_map")
    if not (isinstance(files, dict) and files and all(isinstance(file, str) for file in files.values())):
        raise bad(where, "has no usable weight_map", "copy or download it again")
    present = set(folder.names())
    for file in sorted(set(files.values())):
        if PurePosixPath(file).name != file or "\\" in file or file in ("", ".", ".."):
            raise bad(where, f"names the shard {file!r}, which is not a plain file name", "the index is damaged")
        if file not in present:
            raise bad(where, f"names the shard {file!r}, which is not there", "copy or download it again")
    return Shards(folder, files)


def _complete(folder: Folder, names: list[str]) -> None:
    """Shards without an index must at least be all there."""
    for name in names:
        part = re.fullmatch(r"(.*)-(\d{5})-of-(\d{5})(\..*)", name)
        for number in range(1, int(part[3]) + 1) if part else ():
            if f"{part[1]}-{number:05}-of-{part[3]}{part[4]}" not in names:
                raise bad(
                    folder.root, f"lacks part {number} of {int(part[3])} of {part[1]}", "copy or download it again"
                )


def _sizes(config: Mapping | None, vocabulary: Vocabulary | None) -> tuple[int, ...]:
    """Row counts that an embedding of this checkpoint may have."""
    text = text_config(config)
    declared = [text.get("vocab_size"), vocabulary.size if vocabulary else None]
    return tuple(size for size in declared if isinstance(size, int))


def text_config(config: Mapping | None) -> Mapping:
    """The part of a config that speaks of the language model (multimodal configs nest it)."""
    config = config or {}
    nested = next((config[key] for key in ("text_config", "llm_config", "language_config") if key in config), None)
    return {**config, **nested} if isinstance(nested, Mapping) else config


def _matrices(
    path: str,
    tensors: Mapping[str, Matrix],
    *,
    config: Mapping | None,
    vocabulary: Vocabulary | None,
    tensor: str | None,
) -> tuple[str, dict[str, Matrix], tuple[str, ...]]:
    found = layouts.find(tensors)
    if tensor is not None:
        if tensor not in tensors:
            near = ", ".join(m.name for m in layouts.candidates(tensors, _sizes(config, vocabulary))[:4])
            raise bad(path, f"has no tensor {tensor!r}", f"candidates: {near}" if near else "")
        matrices = {"input": tensors[tensor]}
        if found is not None and found[1] == tensor and found[2] is not None:
            matrices["output"] = tensors[found[2]]
        layout, notes = "chosen by name", ()
    elif found is not None:
        layout, notes = found[0].family, ()
        matrices = {"input": tensors[found[1]]}
        if found[2] is not None:
            matrices["output"] = tensors[found[2]]
    else:
        layout, matrices, notes = _ranked(path, tensors, _sizes(config, vocabulary))
    for matrix in matrices.values():
        if len(matrix.shape) != 2 or not all(matrix.shape) or not matrix.dtype.is_floating_point:
            raise bad(path, f"tensor {matrix.name!r} has shape {matrix.shape} and type {matrix.dtype}",
                      "an embedding is a floating-point matrix with rows: choose one with --tensor")  # fmt: skip
    return layout, matrices, notes


def _ranked(
    path: str, tensors: Mapping[str, Matrix], sizes: tuple[int, ...]
) -> tuple[str, dict[str, Matrix], tuple[str, ...]]:
    """No known layout: the one matrix that fits the vocabulary, or an error that names the candidates."""
    ranked = layouts.candidates(tensors, sizes)
    fitting = [matrix for matrix in ranked if matrix.shape[0] in sizes]
    if len(fitting) == 1 or len(ranked) == 1:
        note = f"unknown layout: took {ranked[0].name!r}, the only matrix that fits the vocabulary"
        return "guessed from shapes", {"input": ranked[0]}, (note,)
    if not ranked:
        raise bad(path, "holds no floating-point matrix", "this is not a model with an embedding")
    shown = ", ".join(f"{m.name} {m.shape[0]}×{m.shape[1]}" for m in ranked[:5])
    raise bad(path, "has a layout that is not known", f"choose the embedding with --tensor NAME; candidates: {shown}")


def _tied(matrices: Mapping[str, Matrix], config: Mapping | None) -> tuple[bool | None, tuple[str, ...]]:
    """Whether one matrix serves both ends, by what is stored; a note where the config says otherwise."""
    said = text_config(config).get("tie_word_embeddings")
    entry, head = matrices["input"], matrices.get("output")
    if head is None:
        if said is False and any(
            "LM" in str(a) or "Generation" in str(a) for a in (config or {}).get("architectures") or ()
        ):
            return True, ("retied: the config says untied, but no head is stored",)
        return said, ()
    if head.shape != entry.shape:
        return False, (f"the head has shape {head.shape}, the input matrix {entry.shape}",)
    step = max(1, entry.shape[0] // COMPARED_ROWS)
    probe = torch.cat(
        [torch.arange(0, entry.shape[0], step), torch.arange(max(0, entry.shape[0] - 32), entry.shape[0])]
    )
    same = bool(torch.equal(entry.rows(probe).double(), head.rows(probe).double()))
    if said and not same:
        return False, ("silently untied: the config says tied, but a head with other rows is stored "
                       "(loading will overwrite it by the input matrix)",)  # fmt: skip
    if said is False and same:
        return True, (f"silently tied: the config says untied, but the stored head equals the input matrix "
                      f"in all {len(probe)} rows compared",)  # fmt: skip
    return same, ()


def _sidecar(folder: Folder, matrix: Matrix) -> dict | None:
    """gti.json, checked: tokens, ids and levels of one length, ids that are rows."""
    if "gti.json" not in folder.names():
        return None
    where, found = f"{folder.root}/gti.json", read_json(folder, "gti.json")
    tokens, ids, levels = found.get("new_tokens"), found.get("ids"), found.get("levels")
    if found.get("schema") != 1:
        raise bad(where, f"has schema {found.get('schema')!r}, this version reads 1")
    if not (isinstance(tokens, list) and isinstance(ids, list) and len(tokens) == len(ids) > 0):
        raise bad(where, "must list new_tokens and ids of one length")
    if levels is not None and not (isinstance(levels, list) and len(levels) == len(ids)):
        raise bad(where, f"lists {len(ids)} ids but its levels differ in number")
    for value in (*ids, *(levels or ())):
        if type(value) is not int:
            raise bad(where, f"holds {value!r} where a whole number belongs")
    wrong = next((id for id in ids if not 0 <= id < matrix.shape[0]), None)
    if wrong is not None or len(set(ids)) != len(ids):
        raise bad(where, f"id {wrong} is not a row of {matrix.name}" if wrong is not None else "lists an id twice")
    return found
