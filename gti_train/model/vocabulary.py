"""Extend a tokenizer and a model by named tokens, and keep the sidecar file `gti.json` that says so."""

import logging
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gti_diag.errors import InputError

from . import initialisers
from .directories import atomic_directory
from .loading import load_language_model
from .matrices import matrices, trained_ids, write_rows
from .sidecar import Sidecar, levels_of, save_extended

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)


# Adding a token must not change how ordinary text is cut: with "the" added, "other" becomes three tokens.
SAMPLE = (
    "The other day, 3 customers compared a well-made oak desk (120 x 60 cm) with items < $250 & > 4 stars.\n"
    "  Let's re-read: <b>bold</b> a_1 b_2 [c_3] user@example.org naïve 東京 – “quotes” …\tend"
)


def extend(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    tokens: Sequence[str],
    *,
    multiple: int = 1,
) -> list[int]:
    """Give each token its own id and row; returns the ids in the order of `tokens`.

    Trained rows stay bit-identical and the matrix never shrinks: spare rows (a matrix padded beyond its
    tokenizer) are used first. A padded matrix keeps its multiple, the largest power of two up to 128 that
    divides its row count, or `multiple` if that is larger. New rows, and padding beyond them, start at the mean
    of the trained rows.

    Raises:
        InputError: a token is there already or twice in the list, or would change how ordinary text is cut.
    """
    from transformers import AddedToken

    vocabulary = tokenizer.get_vocab()
    if not tokens:
        raise InputError("no tokens to add: list at least one")
    for token, count in Counter(tokens).items():
        if token in vocabulary:
            raise InputError(f"token {token!r} is in the vocabulary already: choose another name")
        if count > 1:
            raise InputError(f"token {token!r} is listed {count} times: list it once")
    letters = [token for token in tokens if token.isalpha()]
    if letters:  # words of a new language, say; as codes they would be a mistake
        log.warning("%r (and %d more) will be cut out of longer words too: mark codes, as in '<%s>'",
                    letters[0], len(letters) - 1, letters[0])  # fmt: skip
    before = tokenizer(SAMPLE, add_special_tokens=False)["input_ids"]
    # special=False: `skip_special_tokens` and serving engines would drop codes from generated text.
    plain = {"normalized": False, "lstrip": False, "rstrip": False, "special": False}
    tokenizer.add_tokens([AddedToken(token, **plain) for token in tokens])
    extended = tokenizer.get_vocab()
    ids = [extended.get(token, -1) for token in tokens]
    if tokenizer(SAMPLE, add_special_tokens=False)["input_ids"] != before:
        raise InputError(f"tokens such as {tokens[0]!r} change how ordinary text is cut: choose other names")
    if len(extended) - len(vocabulary) != len(tokens) or len({*ids, -1}) != len(tokens) + 1:
        raise InputError(f"the tokenizer did not take all of {len(tokens)} tokens as new: choose other names")

    rows = len(matrices(model)["input"])
    trained = torch.tensor(sorted({i for i in vocabulary.values() if i < rows}))
    if rows > max(vocabulary.values()) + 1:
        multiple = max(multiple, min(128, rows & -rows))
    needed = -(-(max(ids) + 1) // multiple) * multiple
    if needed > rows:
        # mean_resizing would draw rows from N(mean, 1e-9 covariance), a collapse in disguise
        model.resize_token_embeddings(needed, mean_resizing=False)
        model.requires_grad_(False)  # resizing may have flipped it
    fresh = torch.tensor(sorted({*ids, *range(rows, needed)}))
    for weight in matrices(model).values():
        weight.data[fresh] = initialisers.mean(weight.data[trained], len(fresh)).to(weight)
    return ids


NORMS = ("own", "text")
INITS = ("mean", "random", "gaussian", "transformers-default", "description", "codebook")


def start_rows(
    matrix: Tensor,
    *,
    trained: Tensor,
    count: int,
    init: str,
    generator: torch.Generator,
    described: Sequence[Sequence[int]] | None = None,
    codebooks: Tensor | None = None,
    sigma: float | None = None,
    share: float = 1.0,
    norm: str = "own",
    spread: float | None = None,
) -> Tensor:
    """Rows for `count` new tokens of one matrix, by the statistics of its own `trained` rows; `norm` "text" rescales each row
    to their median norm, and `spread` moves all rows about their mean until they have that share of the trained rows' spread.

    Raises:
        InputError: an unknown `init`, or one that lacks its descriptions or codebooks; an infinite spread.
    """
    for name, given in (("sigma", sigma), ("share", share), ("spread", spread)):
        if given is not None and not (math.isfinite(given) and given >= 0):
            raise InputError(f"{name} is {given}: give a finite number, 0 or more")
    if init not in INITS:
        raise InputError(f"init {init!r} is unknown: use one of {', '.join(INITS)}")
    if init in ("description", "codebook") and described is None:
        raise InputError(f"init {init!r} needs descriptions: give a text for each new token")
    if init == "codebook" and codebooks is None:
        raise InputError("init 'codebook' needs codebooks: give one vector for each new token")
    if norm not in NORMS:
        raise InputError(f"norm {norm!r} is unknown: use one of {', '.join(NORMS)}")
    rows = matrix[trained]
    if norm == "text" or spread is not None:
        plain = start_rows(matrix, trained=trained, count=count, init=init, generator=generator, described=described,
                           codebooks=codebooks, sigma=sigma, share=share)  # fmt: skip
        plain = initialisers.rescaled(plain, rows) if norm == "text" else plain
        return plain if spread is None else initialisers.spread_out(plain, rows, spread)
    if init == "mean":
        return initialisers.mean(rows, count)
    if init == "random":
        return initialisers.random(rows, count, generator=generator, sigma=sigma)
    if init in ("gaussian", "transformers-default"):
        share = share if init == "gaussian" else 1e-9
        return initialisers.gaussian(rows, count, generator=generator, share=share)
    assert described is not None
    texts = initialisers.description(matrix, described)
    return texts if codebooks is None or init == "description" else initialisers.codebook(codebooks, texts)


def extend_checkpoint(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    tokens: Sequence[str],
    levels: Sequence[int] | None = None,
    init: str = "mean",
    seed: int = 0,
    codebooks: Tensor | None = None,
    item_means: Tensor | None = None,
    counts: Sequence[int] | None = None,
    descriptions: Mapping[str, Sequence[str]] | None = None,
    dtype: str | torch.dtype | None = None,
    sigma: float | None = None,
    share: float = 1.0,
    norm: str = "own",
    spread: float | None = None,
) -> Sidecar:
    """Write the model at `source`, extended by `tokens` started as `init` says, to the directory `out`.

    `codebooks` and `item_means` (tokens × k each, in the order of `tokens`) are stored beside the weights as references
    for RSA, `counts` (how many items carry each token) in gti.json.
    `descriptions` (the texts that describe each token) serve the starts `description` and `codebook`. Input
    rows start from the input matrix, output rows of an untied head from the output matrix. `sigma` is for a random
    start, `share` for a gaussian one; `norm` and `spread` as for `start_rows`. Weights are written as `dtype`, or else as they
    are stored (see `load_language_model`).

    Raises:
        InputError: as `load_language_model`, `extend`, `atomic_directory`; unknown `init`; wrong lengths.
    """
    levels = levels_of(tokens) if levels is None else list(levels)
    references = {"codebooks": codebooks, "item_means": item_means}
    for name, given in {"levels": levels, "counts": counts, **references}.items():
        if given is not None and len(given) != len(tokens):
            raise InputError(f"{name} has {len(given)} entries for {len(tokens)} tokens: give one for each")
    with atomic_directory(out) as folder:
        model, tokenizer = load_language_model(source, dtype=dtype)
        ids = extend(model, tokenizer, tokens)
        generator = torch.Generator().manual_seed(seed)
        trained = trained_ids(tokenizer, ids, rows=len(matrices(model)["input"]))
        described = None
        if descriptions is not None:
            texts = [" ".join(descriptions.get(token, ())) for token in tokens]
            described = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        start = partial(start_rows, trained=trained, count=len(ids), init=init, generator=generator)
        start = partial(start, described=described, codebooks=codebooks, sigma=sigma, share=share, norm=norm,
                        spread=spread)  # fmt: skip
        rows = {name: start(weight.data) for name, weight in matrices(model).items()}
        write_rows(model, ids, rows)
        carried = None if counts is None else [int(count) for count in counts]
        sidecar = Sidecar(
            list(tokens), ids, levels, init, seed, parent=str(source), counts=carried, norm=norm, spread=spread
        )
        known = {name: vectors for name, vectors in references.items() if vectors is not None}
        save_extended(model, tokenizer, folder, sidecar=sidecar, references=known)
    return sidecar
