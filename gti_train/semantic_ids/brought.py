"""Codes that somebody else made: read, checked, and given codebooks that fit the vectors at hand."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gti_diag.errors import InputError
from gti_train.catalogue.reading import open_catalogue

from .quantiser import Fitted, Quantiser

TOKEN = re.compile(r"<\|?([a-z])_(\d+)\|?>")


def read_codes(path: Path) -> dict[str, tuple[int, ...]]:
    """Codes by item: JSON of id → tokens or numbers, `sids.json` (or its folder), or any catalogue that brings codes.

    Raises:
        InputError: it cannot be read, holds no codes, or codes of different lengths.
    """
    file = path / "sids.json" if path.is_dir() and (path / "sids.json").is_file() else path
    listed = _json(file)
    codes = {item: _numbers(code, f"{path}, item {item!r}") for item, code in listed.items()}
    lengths = {len(code) for code in codes.values()}
    if len(lengths) != 1:
        raise InputError(
            f"{path}: {'codes of ' + str(sorted(lengths)) + ' levels' if lengths else 'no codes'}; every item needs as many"
        )
    return codes


def fitted_to(vectors: Float[Tensor, "items dim"], codes: Int[Tensor, "items levels"]) -> Fitted:
    """Codebooks for given codes: q_k^(l) is the mean of what the levels before leave of the items with code k.

    Codes that no item carries are zero. This is how residual k-means would place its means, were the codes its own.
    """
    residual, books = vectors.double(), []
    for column in codes.T:
        size = max(int(column.max()) + 1, 2)
        sums = torch.zeros(size, vectors.shape[1], dtype=torch.float64).index_add_(0, column, residual)
        books.append(sums / torch.bincount(column, minlength=size).clamp(min=1)[:, None])
        residual = residual - books[-1][column]
    return Fitted(Quantiser("brought", tuple(books)), codes)


def in_order(codes: Mapping[str, Sequence[int]], item_ids: Sequence[str], path: Path) -> Int[Tensor, "items levels"]:
    """The codes of `item_ids`.

    Raises:
        InputError: an item has none.
    """
    missing = [item for item in item_ids if item not in codes]
    if missing:
        raise InputError(f"{path} has no code for {len(missing)} of {len(item_ids)} items, the first is {missing[0]!r}")
    return torch.tensor([list(codes[item]) for item in item_ids], dtype=torch.long)


def _json(file: Path) -> Mapping[str, Any]:
    if file.suffix == ".json" and not file.name.endswith((".item.json", ".inter.json")):
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(
                f"{file}: {error.strerror or error}; give a file of codes or a folder from `sids`"
            ) from error
        except ValueError as error:
            raise InputError(f"{file}: not JSON ({error})") from error
        if isinstance(record, dict):
            return record["items"] if isinstance(record.get("items"), dict) else record
    return open_catalogue(file).codes


def _numbers(code: object, where: str) -> tuple[int, ...]:
    if isinstance(code, (list, tuple)) and code:
        if all(isinstance(part, int) and not isinstance(part, bool) and part >= 0 for part in code):
            return tuple(code)
        found = [TOKEN.fullmatch(part) if isinstance(part, str) else None for part in code]
        if all(found) and [match[1] for match in found if match] == list("abcdefghijklmnopqrstuvwxyz"[: len(code)]):
            return tuple(int(match[2]) for match in found if match)
    raise InputError(
        f"{where}: {str(code)[:60]} is no code; write numbers, or tokens <a_1><b_7> with a letter a level in order"
    )
