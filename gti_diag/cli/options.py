"""Every option of gti-diag, declared once; those that travel together are one frozen object."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import typer

from gti_diag.files import parse_bytes

Checkpoint = Annotated[str, typer.Argument(metavar="CKPT", help="Checkpoint: folder, file, URL or hub id.")]
Checkpoints = Annotated[
    list[str], typer.Argument(metavar="CKPT…", help="Checkpoints: folders, files, URLs or hub ids.")
]
Base = Annotated[str | None, typer.Option(help="The model before tokens were added; tells which rows are new.")]
New = Annotated[
    str,
    typer.Option(
        metavar="SELECTOR",
        help="Which tokens are new: auto | a regular expression | 49152:50176,50200 | @file.",
    ),
]
Reference = Annotated[
    Path | None,
    typer.Option(help="Vectors the new tokens should resemble: .npy .npz .safetensors .pt, n × k or keyed by token."),
]
Items = Annotated[
    Path | None,
    typer.Option(help="JSON of item to code tokens (sids.json, *.index.json): adds measures of shared prefixes."),
]
MatrixName = Annotated[str, typer.Option("--matrix", help="input | output | both (what exists, by default).")]
Tensor = Annotated[str | None, typer.Option(help="Name of the embedding tensor, when the layout is unknown.")]
Seed = Annotated[int, typer.Option(min=0, max=2**31, help="Seed of every sample, permutation and bootstrap.")]
Device = Annotated[str, typer.Option(help="auto | cpu | cuda.")]
MaxMemory = Annotated[
    str,
    typer.Option(
        help="Memory to stay under, such as 2GB: rows beyond it are streamed. The program itself takes 0.5 to 0.7 GB."
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no table: files and exit code only.")]
Exact = Annotated[
    bool, typer.Option("--exact", help="Sort all pairs for Spearman's RSA: 40 bytes each, minutes for 25,000 tokens.")
]
Out = Annotated[Path | None, typer.Option(help="Folder for the report.", show_default="gti-report/NAME")]
Json = Annotated[Path | None, typer.Option("--json", help="Write the results to this one file as well.")]
Formats = Annotated[str, typer.Option(help="Which of json,md,html,tex to write; tex: a table for a paper.")]
Figures = Annotated[str, typer.Option(help="Which of png,svg,pdf to draw of each figure; none for no figures.")]
Style = Annotated[str, typer.Option(help="Figure style: paper | screen | dark.")]
Policy = Annotated[str, typer.Option(help="default | strict | a TOML file.")]
Baseline = Annotated[Path | None, typer.Option(help="What `gti-diag baseline` wrote; rules on changes need it.")]

Explain = Annotated[
    bool, typer.Option("--explain", help="Print the probable cause, what to do and how to check it, of each reason.")
]
Junit = Annotated[Path | None, typer.Option(help="Write JUnit XML here.")]
Sarif = Annotated[Path | None, typer.Option(help="Write SARIF here, for code scanning.")]
FailOn = Annotated[
    str,
    typer.Option(metavar="KIND,…", help="Exit 1 if the scan finds one of these kinds in a row with a token; or: any."),
]


@dataclass(frozen=True)
class Settings:
    """What every command that measures takes besides its checkpoints."""

    base: Base = None
    new: New = "auto"
    reference: Reference = None
    items: Items = None
    matrix: MatrixName = "auto"
    tensor: Tensor = None
    seed: Seed = 0
    device: Device = "auto"
    max_memory: MaxMemory = "2GB"
    quiet: Quiet = False

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of `gti_diag.diagnose`.

        Raises:
            InputError: a memory limit that is no size.
        """
        given = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "quiet"}
        return given | {"max_memory": parse_bytes(self.max_memory)}


@dataclass(frozen=True)
class Report:
    """Where a report goes and what it is made of."""

    out: Out = None
    json: Json = None
    formats: Formats = "json,md"
    figures: Figures = "png,svg"
    style: Style = "paper"
    explain: Explain = False
