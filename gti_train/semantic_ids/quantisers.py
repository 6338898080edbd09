"""From vectors to codes, coarse to fine."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from gti_diag.errors import InputError
from gti_train.catalogue.records import Catalogue

from .ids import LETTERS, SemanticIds, mean_of_items
from .uniqueness import separate
from .vectors import text_vectors


def semantic_ids(
    catalogue: Catalogue,
    *,
    encoder: str = "lsa",
    dimensions: int = 64,
    sizes: Sequence[int] = (48, 24, 24),
    distinct: bool = False,
    seed: int = 0,
) -> SemanticIds:
    """Semantic IDs of all items from their texts; with `distinct`, collisions are then resolved by `separate`.

    Raises:
        InputError: as `text_vectors`, `residual_kmeans` and `separate`.
    """
    vectors = text_vectors([item.text for item in catalogue.items], encoder=encoder, dimensions=dimensions, seed=seed)
    sids = residual_kmeans(vectors, item_ids=[item.id for item in catalogue.items], sizes=sizes, seed=seed)
    sids = separate(sids, vectors) if distinct else sids
    return replace(sids, encoder=encoder, item_means=mean_of_items(sids, vectors))


def residual_kmeans(
    vectors: Float[Tensor, "items dim"],
    *,
    item_ids: Sequence[str],
    sizes: Sequence[int] = (48, 24, 24),
    seed: int = 0,
) -> SemanticIds:
    """Codes from coarse to fine by k-means on what the levels before left over; `sizes` counts each level's codes.

    Raises:
        ValueError: names and vectors differ in number.
        InputError: not 1…26 levels, a level of fewer than 2 codes, or fewer distinct residuals than codes.
    """
    from sklearn.cluster import KMeans

    if len(item_ids) != len(vectors):
        raise ValueError(f"{len(item_ids)} item ids for {len(vectors)} vectors: one each is needed")
    if not 1 <= len(sizes) <= len(LETTERS) or min(sizes) < 2:
        raise InputError(f"codes per level are {list(sizes)}: give 1…{len(LETTERS)} levels of 2 codes or more")
    residual = vectors.double()
    assigned, books = [], []
    for level, size in enumerate(sizes):
        distinct = len(torch.unique(residual, dim=0))
        if distinct < size:
            raise InputError(
                f"level {level + 1} has {distinct} distinct vectors for {size} codes: "
                "use fewer codes or levels, or more items"
            )
        means = KMeans(size, n_init=4, random_state=seed + level).fit(residual.numpy())
        book = torch.from_numpy(means.cluster_centers_).double()
        code = torch.from_numpy(means.labels_).long()
        residual = residual - book[code]
        assigned.append(code)
        books.append(book.float())
    return SemanticIds(tuple(item_ids), torch.stack(assigned, dim=1), tuple(books), seed=seed)
