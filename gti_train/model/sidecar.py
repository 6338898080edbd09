"""gti.json beside a checkpoint's weights: which tokens are new, and what they stand for."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gti_diag.checkpoint.places import LocalFolder
from gti_diag.checkpoint.sidecar import read_sidecar as read_checked
from gti_diag.checkpoint.vocabulary import read_vocabulary
from gti_diag.errors import InputError

from .loading import save_language_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SIDECAR = "gti.json"
REFERENCES = ("codebooks", "item_means")  # what the new rows can be compared with: NAME.safetensors beside the weights
CODE = re.compile(r"<\|?([a-z])_(\d+)\|?>")


@dataclass(frozen=True)
class Sidecar:
    """What `gti.json` holds: the new tokens of this checkpoint and how their rows came about.

    `codebooks` and `item_means` name files beside the weights; `counts` says how many items carry each token, `norm` whether
    rows started at lengths of their `own` or at the median of the `text` rows (null: not known), `spread` to which share of the
    old rows' spread they were moved (null: they were not).
    """

    new_tokens: list[str]
    ids: list[int]
    levels: list[int]
    init: str
    seed: int
    parent: str
    stage: str = "extend"
    step: int = 0
    codebooks: str | None = None
    item_means: str | None = None
    counts: list[int] | None = None
    norm: str | None = None
    spread: float | None = None
    schema: int = 1


def save_extended(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    folder: Path,
    *,
    sidecar: Sidecar,
    references: Mapping[str, Tensor],
) -> None:
    """Write checkpoint, sidecar and references (some of `REFERENCES`, tokens × k) into `folder`."""
    from safetensors.torch import save_file

    save_language_model(model, tokenizer, folder)
    for name, vectors in references.items():
        save_file({name: vectors.float().contiguous()}, folder / f"{name}.safetensors")
        sidecar = replace(sidecar, **{name: f"{name}.safetensors"})  # type: ignore[arg-type]
    content: dict[str, Any] = {"schema": sidecar.schema, **asdict(sidecar)}
    (folder / SIDECAR).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_sidecar(folder: str | os.PathLike[str]) -> Sidecar:
    """The sidecar of the checkpoint in `folder`.

    Raises:
        InputError: there is none, it is not ours, or its tokens have other ids in the tokenizer beside it.
    """
    path = Path(folder) / SIDECAR
    if not path.is_file():
        raise InputError(f"{path} is not there: name a checkpoint that `gti-train extend` wrote")
    place = LocalFolder(os.fspath(folder))
    found = read_checked(place, vocabulary=read_vocabulary(place)[0])
    lacking: dict[str, Any] = {
        "levels": levels_of(found["new_tokens"]),
        "init": "unknown",
        "seed": 0,
        "parent": "unknown",
    }
    return Sidecar(**lacking | {key: value for key, value in found.items() if value is not None})


def read_references(folder: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The references beside the checkpoint in `folder` (tokens × k each), by name; empty if there are none.

    Raises:
        InputError: one is damaged or holds something else.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    found = {}
    for name in REFERENCES:
        file = Path(folder) / f"{name}.safetensors"
        if not file.is_file():
            continue
        try:
            found[name] = load_file(file)[name]
        except (OSError, SafetensorError, KeyError) as error:
            raise InputError(f"{file}: no readable {name} ({error}); rerun `gti-train extend`") from error
        if found[name].ndim != 2 or not bool(torch.isfinite(found[name]).all()):
            raise InputError(f"{file}: {name} is no matrix of finite numbers; rerun `gti-train extend`")
    return found


def levels_of(tokens: Sequence[str]) -> list[int]:
    """The 1-based level of each code token: `<a_7>` is 1, `<b_0>` is 2, …; 1 for tokens of any other form."""
    found = (CODE.fullmatch(token) for token in tokens)
    return [ord(match[1]) - ord("a") + 1 if match else 1 for match in found]
