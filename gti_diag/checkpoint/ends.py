"""The two ends of a model among its tensors: the input matrix, the head, and whether they are one."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from . import layouts
from .lazy import Tensor, kind_of, torch
from .records import SIZES, Matrix, Vocabulary, bad

COMPARED_ROWS = 256  # rows read to see whether a stored head equals the input matrix
MOST_ADDED_COMPARED = 1024
LEFT_OUT = "left out the head"
# Architectures that have a head over the vocabulary, by what transformers calls them.
HEADED = ("LM", "Generation", "PreTraining")


def text_config(config: Mapping | None) -> Mapping:
    """The part of a config that speaks of the language model (multimodal configs nest it)."""
    config = config or {}
    nested = next((config[key] for key in ("text_config", "llm_config", "language_config") if key in config), None)
    return {**config, **nested} if isinstance(nested, Mapping) else config


def _sizes(config: Mapping | None, vocabulary: Vocabulary | None) -> tuple[int, ...]:
    """Row counts that an embedding of this checkpoint may have."""
    declared = [text_config(config).get("vocab_size"), vocabulary.size if vocabulary else None]
    return tuple(size for size in declared if isinstance(size, int))


def find_ends(
    path: str,
    tensors: Mapping[str, Matrix],
    *,
    config: Mapping | None,
    vocabulary: Vocabulary | None,
    tensor: str | None,
) -> tuple[str, dict[str, Matrix], tuple[str, ...]]:
    """The layout's family, the matrices by role, and what to tell about the choice.

    Raises:
        InputError: no tensor, or no one tensor, can be the embedding.
    """
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
        layout, matrices = found.layout.family, {"input": _of_tokens(tensors, found.input)}
        if found.output in quantised:
            notes += (f"{LEFT_OUT} {found.output!r}, which is stored quantised",)
        elif found.output is not None:
            matrices["output"] = tensors[found.output]
        if found.others:
            notes += (f"took {found.input!r}; {', '.join(found.others)} would fit too (choose with --tensor)",)
    elif tensor is not None:
        layout, matrices = "chosen by name", {"input": as_row(tensors[tensor])}
    elif (vectors := lone_vectors(tensors)) is not None:
        layout, matrices = VECTORS, {"input": vectors}
    else:
        layout, matrices, notes = _ranked(path, tensors, _sizes(config, vocabulary))
    for matrix in matrices.values():
        if len(matrix.shape) != 2 or not all(matrix.shape) or not matrix.floating:
            raise bad(path, f"tensor {matrix.name!r} has shape {matrix.shape} and type {matrix.kind}",
                      "an embedding is a floating-point matrix with rows: choose one with --tensor")  # fmt: skip
    return layout, matrices, notes


def _of_tokens(tensors: Mapping[str, Matrix], name: str) -> Matrix:
    """The rows by token: model2vec may keep fewer vectors than tokens, and a weight for each token.

    The row of token i is weights[i] · embeddings[mapping[i]]. Source: StaticModel in model2vec/model.py.

    Raises:
        InputError: the mapping names vectors that are not there.
    """
    stored, mapping, weights = tensors[name], tensors.get("mapping"), tensors.get("weights")
    if name != "embeddings" or (mapping is None and weights is None):
        return stored
    count = (mapping or weights or stored).shape[0]
    places = torch.arange(count) if mapping is None else mapping.rows().long()
    scale = torch.ones(count) if weights is None else weights.rows()
    if len(scale) != count or not 0 <= int(places.min()) <= int(places.max()) < stored.shape[0]:
        raise bad(name, f"has {stored.shape[0]:,} vectors, which its mapping or its weights do not fit",
                  "it is damaged: copy or download it again")  # fmt: skip
    kind = torch.promote_types(stored.dtype, scale.dtype)

    def fetch(ids: Tensor) -> Tensor:
        return stored.fetch(places[ids]).to(kind) * scale[ids][:, None].to(kind)

    return Matrix(name, shape=(count, stored.shape[1]), kind=kind_of(kind), fetch=fetch)


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


def tie(
    matrices: Mapping[str, Matrix], config: Mapping | None, vocabulary: Vocabulary | None
) -> tuple[bool | None, tuple[str, ...]]:
    """Whether one matrix serves both ends, by what is stored; a note where the config says otherwise.

    None where nothing says so, or where the architecture has no head.
    """
    said = text_config(config).get("tie_word_embeddings")
    said = said if isinstance(said, bool) else None
    entry, head = matrices["input"], matrices.get("output")
    if head is None:
        names = (config or {}).get("architectures")
        names = [str(name) for name in names] if isinstance(names, list) else []
        if names and not any(part in name for name in names for part in HEADED):
            return None, ()  # an encoder: whatever the config says of tying, there is no second end
        if said is False and names:
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


# --- vectors of their own -------------------------------------------------------------------------------------------

VECTORS = "vectors of new tokens"
# What textual inversion calls the vectors of its one token, where there are several; diffusers by the token itself.
INVERSION = re.compile(r"string_to_param\..+|emb_params|<[^<>.]+>")


def as_row(matrix: Matrix) -> Matrix:
    """A vector as a matrix of one row; anything else as it is."""
    if len(matrix.shape) != 1 or not matrix.shape[0]:
        return matrix

    def fetch(ids: Tensor) -> Tensor:
        return matrix.fetch(torch.arange(matrix.shape[0]))[None].expand(len(ids), -1)

    return Matrix(name=matrix.name, shape=(1, *matrix.shape), kind=matrix.kind, fetch=fetch)


def lone_vectors(tensors: Mapping[str, Matrix]) -> Matrix | None:
    """The rows of a file that holds nothing but vectors of one width (1-D or 1 × d) or one token's vectors; else None.

    So textual inversion stores the embeddings of its tokens, each under the token's own string.
    """
    parts = [as_row(matrix) for matrix in tensors.values() if matrix.floating and matrix.shape]
    if len(parts) == 1 and (parts[0].shape[0] == 1 or INVERSION.fullmatch(parts[0].name)):
        return parts[0]
    if not parts or {(part.shape, part.kind) for part in parts} != {((1, parts[0].shape[-1]), parts[0].kind)}:
        return None

    def fetch(ids: Tensor) -> Tensor:
        zero = torch.zeros(1, dtype=torch.long)
        return torch.cat([parts[id].fetch(zero) for id in ids.tolist()])

    return Matrix(f"{len(parts)} vectors", shape=(len(parts), parts[0].shape[1]), kind=parts[0].kind, fetch=fetch)


def vector_names(tensors: Mapping[str, Matrix], rows: int) -> Vocabulary:
    """The strings of `lone_vectors`: what the tensors are called."""
    names = [
        name.removeprefix("string_to_param.") for name, matrix in tensors.items() if matrix.floating and matrix.shape
    ]
    if rows > len(names):
        names = [f"{names[0]} {number}" for number in range(1, rows + 1)]
    return Vocabulary(tuple(names), added=dict(enumerate(names)), special=frozenset(), source="names of the tensors")
