"""Mappings of items to codes, ours and others', opened for a report."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gti_diag.errors import InputError
from gti_train.catalogue.records import Catalogue, Histories, Item

from ..brought import fitted_to, read_codes
from ..files import load_sids
from ..ids import SemanticIds
from ..making import make_ids
from ..quantiser import Quantiser, load_quantiser
from .report import Evidence, compared, quality

Encode = Callable[[Sequence[str]], Float[Tensor, "items dim"]]


def compare(
    one: Path, other: Path, catalogue: Catalogue | None, encode: Encode, *, seed: int = 0
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The reports of two mappings and their churn. Without a catalogue only the codes themselves are judged.

    Raises:
        InputError: a mapping cannot be read, or has no item in common with the catalogue or the other.
    """
    opened = [_opened(path, catalogue, encode) for path in (one, other)]
    names = [path.name for path in (one, other)]
    if names[0] == names[1]:
        names = [f"{path.parent.name}/{path.name}" for path in (one, other)]
    reports = [
        quality(sids, evidence, name=name, seed=seed) for name, (sids, evidence) in zip(names, opened, strict=True)
    ]
    try:
        return reports, compared(opened[0][0], opened[1][0])
    except ValueError as error:
        raise InputError(f"{one} and {other}: {error}") from None


def _opened(path: Path, catalogue: Catalogue | None, encode: Encode) -> tuple[SemanticIds, Evidence]:
    """The mapping over those items of the catalogue that it has, in the catalogue's order."""
    ours = path.is_dir() and (path / "sids.json").is_file()
    codes: dict[str, tuple[int, ...]] = dict.fromkeys(load_sids(path).item_ids, ()) if ours else read_codes(path)
    if catalogue is None:
        catalogue = Catalogue(tuple(Item(item, "") for item in codes))
        vectors = None
    else:
        catalogue = _restricted(catalogue, codes.keys(), path)
        vectors = encode([item.text for item in catalogue.items])
    ids = [item.id for item in catalogue.items]
    if ours:
        sids = _rows(load_sids(path), ids)
        return sids, Evidence(catalogue, vectors, _quantiser(path, vectors))
    rows = torch.tensor([list(codes[item]) for item in ids], dtype=torch.long)
    known = torch.zeros(len(ids), 1, dtype=torch.float64) if vectors is None else vectors
    made = make_ids(ids, known, fitted_to(known, rows))
    return made.sids, Evidence(catalogue, vectors, None if vectors is None else made.quantiser)


def _restricted(catalogue: Catalogue, ids: Collection[str], path: Path) -> Catalogue:
    kept = {item.id: row for row, item in enumerate(item for item in catalogue.items if item.id in ids)}
    if not kept:
        raise InputError(f"{path} has no code for any item of the catalogue: compare mappings of the same items")
    items = tuple(item for item in catalogue.items if item.id in kept)
    columns = catalogue.columns
    places = torch.tensor([kept.get(item, -1) for item in columns.item_ids], dtype=torch.int32).numpy()
    left = columns.where(places[columns.rows] >= 0)
    return Catalogue(items, Histories(left.user_ids, tuple(kept), left.starts, places[left.rows], left.times))


def _rows(sids: SemanticIds, ids: Sequence[str]) -> SemanticIds:
    places = {item: row for row, item in enumerate(sids.item_ids)}
    rows = torch.tensor([places[item] for item in ids], dtype=torch.long)
    return replace(sids, item_ids=tuple(ids), codes=sids.codes[rows])


def _quantiser(path: Path, vectors: Tensor | None) -> Quantiser | None:
    """The quantiser beside the codes, if it takes vectors of this size; else there is no error to tell."""
    if vectors is None or not (path / "quantiser.safetensors").is_file():
        return None
    made = load_quantiser(path)
    width = made.inward.weights[0].shape[1] if made.inward.weights else made.books[0].shape[1]
    return made if width == vectors.shape[1] else None
