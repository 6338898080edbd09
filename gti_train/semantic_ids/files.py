"""Semantic IDs on disk."""

import json
import os
from pathlib import Path
from typing import Any

import torch

from gti_diag.errors import InputError
from gti_diag.files import atomic, write_text

from .ids import SemanticIds
from .uniqueness import collisions


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
    return write_text(Path(folder) / "sids.json", json.dumps(record, ensure_ascii=False) + "\n")


def load_sids(path: str | os.PathLike[str]) -> SemanticIds:
    """Read what `save_sids` wrote; `path` is the folder or its `sids.json`.

    Raises:
        InputError: a file is missing, is not ours, or the files disagree.
    """
    file = Path(path) / "sids.json" if Path(path).is_dir() else Path(path)
    record = _read_json(file)
    try:
        sizes, items = [int(size) for size in record["codes"]], dict(record["items"])
        codes = torch.tensor(list(items.values()), dtype=torch.long).reshape(len(items), len(sizes))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{file}: not semantic IDs ({error}); make them with `gti-train sids`") from error
    if not items or (codes < 0).any() or (codes >= torch.tensor(sizes)).any():
        raise InputError(f"{file}: no items, or a code outside its level; make it again with `gti-train sids`")
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
        str(record.get("encoder", "")),
        int(record.get("seed", 0)),
        {name: record[name] for name in ("quantiser", "unique", "moves") if name in record},
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
    if len(matrix) != tokens:
        raise InputError(f"{file}: {len(matrix)} rows, but sids.json lists {tokens} codes")
    return matrix


def _read_json(file: Path) -> dict[str, Any]:
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{file}: no such file; make semantic IDs with `gti-train sids ITEMS --out DIR`") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{file}: not readable JSON ({error})") from error
    if not isinstance(record, dict):
        raise InputError(f"{file}: a JSON {type(record).__name__}, not the object that `gti-train sids` writes")
    return record
