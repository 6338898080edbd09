"""gti.json beside a checkpoint's weights: which tokens are new, and what they stand for."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

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

    `codebooks` and `item_means` name files beside the weights; `counts` says how many items carry each token.
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
        InputError: there is none, or it is not ours.
    """
    path = Path(folder) / SIDECAR
    try:
        return Sidecar(**json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise InputError(f"{path} is not there: name a checkpoint that `gti-train extend` wrote") from error
    except (TypeError, ValueError) as error:
        raise InputError(f"{path} is no gti.json of schema 1 ({error}): rerun `gti-train extend`") from error


def read_references(folder: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The references beside the checkpoint in `folder` (tokens × k each), by name; empty if there are none."""
    from safetensors.torch import load_file

    files = {name: Path(folder) / f"{name}.safetensors" for name in REFERENCES}
    return {name: load_file(file)[name] for name, file in files.items() if file.is_file()}


def levels_of(tokens: Sequence[str]) -> list[int]:
    """The 1-based level of each code token: `<a_7>` is 1, `<b_0>` is 2, …; 1 for tokens of any other form."""
    found = (CODE.fullmatch(token) for token in tokens)
    return [ord(match[1]) - ord("a") + 1 if match else 1 for match in found]
