"""Semantic IDs on disk."""

import json
import os
from pathlib import Path

import torch

from gti_diag.errors import InputError
from gti_diag.files import atomic, write_text
from gti_diag.foreign.json_text import writable

from .ids import SemanticIds
from .uniqueness import collisions

AGAIN = "make it again with `gti-train sids`"


def save_sids(sids: SemanticIds, folder: str | os.PathLike[str]) -> Path:
    """Write `sids.json` (codes), `codebooks.safetensors` and, where known, `item_means.safetensors`.

    Each of the latter holds one matrix, rows in the order of `tokens`.

    Raises:
        InputError: the folder cannot be written.
    """
    from safetensors.torch import save_file

    for name, vectors in sids.references.items():
        with atomic(Path(folder) / f"{name}.safetensors") as path:
            save_file({name: vectors.float().contiguous()}, path)
    if sids.item_means is None:  # those of an earlier run mean other codes
        (Path(folder) / "item_means.safetensors").unlink(missing_ok=True)
    found = collisions(sids)
    record = {
        "schema": 1,
        "encoder": sids.encoder,
        "seed": sids.seed,
        **sids.made,
        "codes": [len(book) for book in sids.codebooks],
        "collisions": {"items": found.items, "distinct": found.distinct, "largest": found.largest},
        "items": dict(zip(sids.item_ids, sids.codes.tolist(), strict=True)),
    }
    return write_text(Path(folder) / "sids.json", writable(json.dumps(record, ensure_ascii=False)) + "\n")


def load_sids(path: str | os.PathLike[str]) -> SemanticIds:
    """Read what `save_sids` wrote; `path` is the folder or its `sids.json`.

    Raises:
        InputError: a file is missing, is not ours, or the files disagree.
    """
    from gti_diag.foreign import schemas

    file = Path(path) / "sids.json" if Path(path).is_dir() else Path(path)
    if not file.exists():
        raise InputError(f"{file}: no such file; make semantic IDs with `gti-train sids ITEMS --out DIR`")
    record = schemas.read_formed(schemas.SemanticIds, file, AGAIN)
    sizes, items = record.codes, record.items
    codes = torch.tensor(list(items.values()), dtype=torch.long)
    if (codes >= torch.tensor(sizes)).any():
        raise InputError(f"{file}: a code lies outside its level; {AGAIN}")
    books, means = (
        _vectors(file.with_name(f"{name}.safetensors"), name, sum(sizes)) for name in ("codebooks", "item_means")
    )
    if books is None:
        raise InputError(
            f"{file.with_name('codebooks.safetensors')}: no such file; make it again with `gti-train sids`"
        )
    return SemanticIds(
        tuple(items),
        codes,
        tuple(books.split(sizes)),
        means,
        record.encoder,
        record.seed,
        {name: value for name, value in (record.model_extra or {}).items() if name in ("quantiser", "unique", "moves")},
    )


def _vectors(file: Path, name: str, tokens: int) -> torch.Tensor | None:
    """The matrix `name` of a file, a row a token; None if there is no such file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not file.is_file():
        return None
    try:
        matrix = load_file(file)[name]
    except (OSError, SafetensorError, KeyError) as error:
        raise InputError(f"{file}: no readable {name} ({error}); make them again with `gti-train sids`") from error
    if matrix.ndim != 2 or not bool(torch.isfinite(matrix).all()):
        raise InputError(f"{file}: {name} is no matrix of finite numbers; {AGAIN}")
    if len(matrix) != tokens:
        raise InputError(f"{file}: {len(matrix)} rows, but sids.json lists {tokens} codes")
    return matrix
