"""k-means on residuals: plain, and with evenly used codes."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gti_diag.errors import InputError

from .quantiser import Fitted, Layers, Quantiser
from .sinkhorn import code_prices

ROUNDS = 12  # of balanced assignment and means
Clustered = tuple[Float[Tensor, "codes dim"], Float[Tensor, " codes"]]


def residual_kmeans(vectors: Float[Tensor, "items dim"], *, sizes: Sequence[int], seed: int = 0) -> Fitted:
    """Level l clusters what the levels before left over, by k-means (scikit-learn, four starts).

    Raises:
        InputError: fewer distinct residuals than codes on some level.
    """
    return _levels("residual-kmeans", vectors, sizes, lambda rows, size, level: kmeans(rows, size, seed=seed + level))


def faiss_kmeans(vectors: Float[Tensor, "items dim"], *, sizes: Sequence[int], seed: int = 0) -> Fitted:
    """As `residual_kmeans`, by faiss in float32: for millions of rows, or a sample of more.

    Raises:
        InputError: faiss is missing, or fewer distinct residuals than codes on some level.
    """
    try:
        import faiss
    except ImportError:
        raise InputError("--quantiser faiss-kmeans needs faiss: pip install gti-diag[cluster]") from None

    def cluster(rows: Tensor, size: int, level: int) -> Clustered:
        _check_distinct(rows, size)
        means = faiss.Kmeans(rows.shape[1], size, niter=25, seed=seed + level + 1, min_points_per_centroid=1)
        faiss.omp_set_num_threads(1)
        means.train(rows.float().contiguous().numpy())
        return torch.tensor(means.centroids).double(), torch.zeros(size, dtype=torch.float64)

    return _levels("faiss-kmeans", vectors, sizes, cluster)


def balanced_kmeans(vectors: Float[Tensor, "items dim"], *, sizes: Sequence[int], seed: int = 0) -> Fitted:
    """As `residual_kmeans`, but every level's codes are used about equally: prices from optimal transport.

    The usual library, k-means-constrained, has no release that goes with NumPy 2 and current protobuf.

    Raises:
        InputError: fewer distinct residuals than codes on some level.
    """

    def cluster(rows: Tensor, size: int, level: int) -> Clustered:
        book, _ = kmeans(rows, size, seed=seed + level, starts=1)
        for _ in range(ROUNDS):
            costs = torch.cdist(rows, book).square()
            prices = code_prices(costs, epsilon=0.01)
            chosen = (costs - prices).argmin(dim=1)
            used = torch.bincount(chosen, minlength=size) > 0
            sums = torch.zeros_like(book).index_add_(0, chosen, rows)
            book = torch.where(used[:, None], sums / torch.bincount(chosen, minlength=size).clamp(min=1)[:, None], book)
        return book, code_prices(torch.cdist(rows, book).square(), epsilon=0.01)

    return _levels("balanced-kmeans", vectors, sizes, cluster)


def kmeans(rows: Float[Tensor, "items dim"], size: int, *, seed: int, starts: int = 4) -> Clustered:
    """`size` means of the rows, and prices of zero.

    Raises:
        InputError: fewer distinct rows than means.
    """
    from sklearn.cluster import KMeans

    _check_distinct(rows, size)
    means = KMeans(size, n_init=starts, random_state=seed).fit(rows.numpy())
    return torch.from_numpy(means.cluster_centers_).double(), torch.zeros(size, dtype=torch.float64)


def _check_distinct(rows: Float[Tensor, "items dim"], size: int) -> None:
    distinct = len(torch.unique(rows, dim=0))
    if distinct < size:
        raise InputError(f"{distinct} distinct vectors for {size} codes: use fewer codes or levels, or more items")


def _levels(
    name: str,
    vectors: Float[Tensor, "items dim"],
    sizes: Sequence[int],
    cluster: Callable[[Tensor, int, int], Clustered],
) -> Fitted:
    residual = vectors.double()
    books, prices = [], []
    codes: list[Int[Tensor, " items"]] = []
    for level, size in enumerate(sizes):
        try:
            book, price = cluster(residual, size, level)
        except InputError as error:
            raise InputError(f"level {level + 1} has {error}") from None
        books.append(book)
        prices.append(price)
        made = Quantiser(name, (book,), (price,))
        codes.append(made.costs(residual, 0).argmin(dim=1))
        residual = residual - book[codes[-1]]
    even = tuple(prices) if any(bool(price.any()) for price in prices) else ()
    return Fitted(Quantiser(name, tuple(books), even, Layers(), Layers()), torch.stack(codes, dim=1))
