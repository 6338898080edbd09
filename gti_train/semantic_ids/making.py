"""The way from a catalogue to semantic IDs: vectors, codes, uniqueness, and their folder."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gti_diag.errors import InputError
from gti_train.catalogue.records import Catalogue

from .brought import fitted_to, in_order, read_codes
from .files import save_sids
from .ids import SemanticIds, mean_of_items
from .quantiser import Fitted, Quantiser, save_quantiser
from .quantisers import SIZES, fit, no_progress
from .reproducible import one_thread
from .sinkhorn import code_prices
from .uniqueness import Moves, extra_level, separate
from .vectors import Progress, text_vectors

UNIQUE = ("no", "assign", "sinkhorn", "extra-level")


@dataclass(frozen=True)
class Made:
    """Semantic IDs, what they were made from and with, and what uniqueness cost (None if nothing was asked)."""

    sids: SemanticIds
    vectors: Float[Tensor, "items dim"]
    quantiser: Quantiser
    moves: Moves | None


@dataclass(frozen=True)
class Wanted:
    """How semantic IDs are to be made; `settings` are the quantiser's own."""

    encoder: str = "lsa"
    dimensions: int = 64
    quantiser: str = "residual-kmeans"
    sizes: tuple[int, ...] = SIZES
    unique: str = "no"
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)


def make(
    catalogue: Catalogue,
    wanted: Wanted,
    out: str | os.PathLike[str],
    *,
    codes_from: Path | None = None,
    progress: Progress = no_progress,
) -> Made:
    """Make the IDs of all items and write their folder; codes of `codes_from` are taken as they are.

    Encoded texts stay in `out/vectors`, so that another quantiser need not wait for them again.

    Raises:
        InputError: as `text_vectors`, `fit`, `make_ids` and `read_codes`; the folder cannot be written.
    """
    folder, ids = Path(out), [item.id for item in catalogue.items]
    brought = None if codes_from is None else in_order(read_codes(codes_from), ids, codes_from)
    vectors = _vectors(catalogue, wanted, folder / "vectors", progress)
    if brought is not None:
        fitted = fitted_to(vectors, brought)
        wanted = replace(wanted, unique="no")
    else:
        fitted = fit(
            vectors,
            quantiser=wanted.quantiser,
            sizes=wanted.sizes,
            seed=wanted.seed,
            progress=progress,
            **wanted.settings,
        )
    made = make_ids(ids, vectors, fitted, unique=wanted.unique, seed=wanted.seed)
    made = replace(made, sids=replace(made.sids, encoder=wanted.encoder))
    save_sids(made.sids, folder)
    save_quantiser(made.quantiser, folder)
    return made


def make_ids(
    item_ids: Sequence[str], vectors: Float[Tensor, "items dim"], fitted: Fitted, *, unique: str = "no", seed: int = 0
) -> Made:
    """Semantic IDs of the items from a fitted quantiser, made unique as asked.

    `unique`: `no`; `assign`, an assignment of least cost inside each prefix; `sinkhorn`, the same after prices have evened
    out the last level's use; `extra-level`, one level more that numbers equal codes.

    Raises:
        ValueError: ids, vectors and codes differ in number.
        InputError: an unknown `unique`, or more items than codes.
    """
    if not len(item_ids) == len(vectors) == len(fitted.codes):
        raise ValueError(f"{len(item_ids)} item ids for {len(vectors)} vectors: one each is needed")
    if unique not in UNIQUE:
        raise InputError(f"--unique {unique!r} is unknown: use one of {', '.join(UNIQUE)}")
    quantiser, codes, moves = fitted.quantiser, fitted.codes, None
    books = list(quantiser.books)
    if unique in ("assign", "sinkhorn"):
        latent, nearest = quantiser.latent(vectors), codes
        if unique == "sinkhorn":
            quantiser, codes = _priced(quantiser, latent, codes)
        codes, moves = separate(quantiser, latent, codes, nearest=nearest)
    elif unique == "extra-level":
        codes = extra_level(codes)
        books.append(torch.zeros(max(int(codes[:, -1].max()) + 1, 2), books[0].shape[1], dtype=torch.float64))
    made = {"quantiser": quantiser.name, "unique": unique, **({} if moves is None else {"moves": moves.summary()})}
    sids = SemanticIds(tuple(item_ids), codes, tuple(book.float() for book in books), seed=seed, made=made)
    return Made(replace(sids, item_means=mean_of_items(sids, vectors)), vectors, quantiser, moves)


def semantic_ids(
    catalogue: Catalogue,
    *,
    encoder: str = "lsa",
    dimensions: int = 64,
    sizes: Sequence[int] = SIZES,
    quantiser: str = "residual-kmeans",
    unique: str = "no",
    seed: int = 0,
) -> SemanticIds:
    """Semantic IDs of all items from their texts, in memory alone.

    Raises:
        InputError: as `text_vectors`, `fit` and `make_ids`.
    """
    wanted = Wanted(encoder, dimensions, quantiser, tuple(sizes), unique, seed)
    vectors = _vectors(catalogue, wanted, None, no_progress)
    fitted = fit(vectors, quantiser=quantiser, sizes=sizes, seed=seed)
    made = make_ids([item.id for item in catalogue.items], vectors, fitted, unique=unique, seed=seed)
    return replace(made.sids, encoder=encoder)


def _vectors(
    catalogue: Catalogue, wanted: Wanted, cache: Path | None, progress: Progress
) -> Float[Tensor, "items dim"]:
    return text_vectors(
        [item.text for item in catalogue.items],
        encoder=wanted.encoder,
        dimensions=wanted.dimensions,
        seed=wanted.seed,
        cache=cache,
        progress=progress,
    )


def _priced(quantiser: Quantiser, latent: Tensor, codes: Tensor) -> tuple[Quantiser, Tensor]:
    """The quantiser with prices that even out its last level for these items, and their codes under them."""
    last = len(quantiser.books) - 1
    residual = latent - quantiser.summed(codes, levels=last)
    with one_thread():
        prices = code_prices(replace(quantiser, prices=()).costs(residual, last))
    earlier = quantiser.prices[:last] or tuple(
        torch.zeros(len(book), dtype=torch.float64) for book in quantiser.books[:last]
    )
    priced = replace(quantiser, prices=(*earlier, prices))
    return priced, torch.cat([codes[:, :last], priced.costs(residual, last).argmin(dim=1, keepdim=True)], dim=1)
