"""From an opened checkpoint to its analysis: one loop over matrices and groups, composing the core."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import exhibits, geometry, spectra, verdict
from .checkpoint import Checkpoint, Matrix, open_checkpoint
from .errors import InputError
from .group_measures import Measured, floor_reason, norm_summary, shape, spread, text_null
from .reference import load_reference
from .report import SCHEMA, canonical
from .resemblance import resemblance
from .tokens import Group, Partition, partition

Progress = Callable[[str, float | None], None]
NEIGHBOURS = 5
NEIGHBOUR_TOKENS = 2048  # neighbours of at most this many new tokens are listed
RESIDENT_SHARE = 0.25  # of max_memory: rows of one group kept in their storage dtype; beyond it a sample stands in


@dataclass(frozen=True)
class Settings:
    """Everything a result depends on besides the files."""

    seed: int = 0
    device: str = "auto"
    max_memory: int = 2 * 10**9

    def generator(self, purpose: str) -> torch.Generator:
        """A CPU generator of its own for each purpose: adding a measure does not move the numbers of another."""
        return torch.Generator().manual_seed(self.seed * 1_000_003 + sum(map(ord, purpose)))

    def place(self) -> torch.device:
        if self.device not in ("auto", "cpu") and not self.device.startswith("cuda"):
            raise InputError(f"--device {self.device!r}: choose auto, cpu or cuda")
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if self.device.startswith("cuda") and not torch.cuda.is_available():
            raise InputError(f"--device {self.device}: no CUDA device is available; use --device cpu")
        return torch.device(self.device)


@dataclass(frozen=True)
class Rows:
    """A group's rows on the device: all of them, or a seeded sample where they would not fit."""

    group: Group
    rows: Tensor
    ids: Tensor
    sampled: bool


def compare(
    checkpoints: Sequence[Checkpoint | str | Path],
    *,
    base: Checkpoint | str | Path | None = None,
    progress: Progress = lambda stage, share: None,
    **options: Any,
) -> list[dict]:
    """The analyses of several checkpoints, in order, under the same options (those of `diagnose`).

    Raises:
        InputError: as `diagnose`.
    """
    opened = base if base is None or isinstance(base, Checkpoint) else open_checkpoint(base)
    analyses = []
    for index, checkpoint in enumerate(checkpoints):
        where = f"[{index + 1}/{len(checkpoints)}] " if len(checkpoints) > 1 else ""
        report = lambda stage, share, where=where: progress(where + stage, share)  # noqa: E731
        analyses.append(diagnose(checkpoint, base=opened, progress=report, **options))
    return analyses


def diagnose(
    checkpoint: Checkpoint | str | Path,
    *,
    base: Checkpoint | str | Path | None = None,
    new: str = "auto",
    reference: str | Path | None = None,
    matrix: str = "auto",
    tensor: str | None = None,
    seed: int = 0,
    device: str = "auto",
    max_memory: int = 2 * 10**9,
    progress: Progress = lambda stage, share: None,
    command: Sequence[str] = (),
) -> dict:
    """Measure the embedding rows of a checkpoint: the `analysis.json` document (schema 1) as a plain dict.

    Args:
        checkpoint: an opened checkpoint, or what `open_checkpoint` takes.
        base: the checkpoint it was extended from; tells which rows are new and whether old ones moved.
        new: which tokens are new: auto, a regular expression, id ranges, or @file.
        reference: vectors the new tokens should resemble; the sidecar's codebooks if None.
        matrix: input, output, both, or auto (input, and output when a separate head is stored).
        tensor: name of the embedding tensor where the layout is unknown.
        max_memory: bytes to stay under; groups whose rows exceed a quarter of it are streamed and sampled.

    Raises:
        InputError: whatever is wrong with the input, in one line.
    """
    settings = Settings(seed, device, max_memory)
    settings.place()
    opened = checkpoint if isinstance(checkpoint, Checkpoint) else open_checkpoint(checkpoint, tensor=tensor)
    base = base if base is None or isinstance(base, Checkpoint) else open_checkpoint(base)
    progress("finding tokens", None)
    parts = partition(opened, new=new, base=base)
    vectors, source = _reference(opened, parts, reference)
    chosen = _matrices(opened, matrix)
    return canonical(
        {
            "schema": SCHEMA,
            "checkpoint": _described(opened),
            "command": list(command),
            "versions": _versions(),
            "seed": seed,
            "tokens": {
                "rule": parts.rule,
                "notes": parts.notes,
                "groups": {n: _counts(g) for n, g in parts.groups.items()},
            },
            "matrices": {
                name: _analyse(
                    chosen[name],
                    parts,
                    settings,
                    progress,
                    reference=(vectors, source),
                    base=_same(base, name),
                )
                for name in chosen
            },
        }
    )


def _matrices(checkpoint: Checkpoint, wanted: str) -> dict[str, Matrix]:
    if wanted in ("auto", "both"):
        return {name: checkpoint.matrices[name] for name in ("input", "output") if name in checkpoint.matrices}
    if wanted not in ("input", "output"):
        raise InputError(f"--matrix {wanted!r}: choose input, output or both")
    if wanted not in checkpoint.matrices:
        raise InputError(f"{checkpoint.path}: no separate {wanted} matrix is stored; use --matrix input")
    return {wanted: checkpoint.matrices[wanted]}


def _same(base: Checkpoint | None, name: str) -> Matrix | None:
    return None if base is None else base.matrices.get(name)


def _described(checkpoint: Checkpoint) -> dict:
    return {
        "path": checkpoint.path,
        "name": Path(str(checkpoint.path).rstrip("/")).name,
        "fingerprint": checkpoint.fingerprint,
        "format": checkpoint.format,
        "tied": checkpoint.tied,
        "dtype": dtype_name(checkpoint.matrices["input"].dtype),
        "step": (checkpoint.sidecar or {}).get("step"),
        "notes": checkpoint.notes,
    }


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _versions() -> dict[str, str]:
    named = {name: metadata.version(name) for name in ("gti-diag", "torch", "numpy")}
    return {"python": sys.version.split()[0], **named}


def _counts(group: Group) -> dict:
    levels = None if group.levels is None else torch.bincount(group.levels)[1:].tolist()
    return {"count": group.count, "levels": None if levels is None else len(levels), "level_counts": levels}


def _reference(checkpoint: Checkpoint, parts: Partition, given: str | Path | None) -> tuple[Tensor | None, str | None]:
    new = parts.groups.get("new")
    if given is None:
        named = (checkpoint.sidecar or {}).get("codebooks")
        file = None if named is None else Path(checkpoint.path) / named
        if new is None or file is None or not file.is_file() or "gti.json" not in parts.rule:
            return None, None
        return load_reference(file, new.tokens), str(file)
    if new is None:
        raise InputError(f"{given}: a reference is for new tokens, but there are none ({parts.rule})")
    return load_reference(given, new.tokens), str(given)


def _analyse(
    matrix: Matrix,
    parts: Partition,
    settings: Settings,
    progress: Progress,
    *,
    reference,
    base: Matrix | None,
) -> dict:
    groups, held, moments = {}, {}, {}
    for name, group in parts.groups.items():
        progress(f"measuring {name} rows", None)
        groups[name], held[name], moments[name] = _group(matrix, group, settings)
    found: dict[str, Any] = {
        "tensor": matrix.name,
        "dtype": dtype_name(matrix.dtype),
        "shape": matrix.shape,
        "groups": groups,
    }
    text, new = held.get("text"), held.get("new")
    if text is not None:
        size = parts.groups["new"].count if new else 0
        found["null"] = text_null(text.rows, size, generator=settings.generator("null"), progress=progress)
    if text is not None and new is not None:
        _relate(groups, moments, found["null"], text=text, new=new, settings=settings)
        progress("neighbours and map", None)
        found |= _exhibits(text, new, settings)
    if new is not None:
        vectors, source = reference
        progress("RSA", None)
        found["rsa"] = None if vectors is None else resemblance(
            new.rows, vectors.to(new.rows.device), new.group.levels, source=source, generator=settings.generator
        )  # fmt: skip
    if base is not None:
        progress("drift", None)
        found["drift"] = _drift(matrix, base, parts)
    return {**found, "verdict": verdict.judge(found)}


def _group(matrix: Matrix, group: Group, settings: Settings) -> tuple[dict, Rows, spectra.Moments]:
    """All measures of one group; exact ones stream over all rows, costly ones may use the resident sample."""
    held = _resident(matrix, group, settings)
    rows = held.rows
    dtype = dtype_name(matrix.dtype)

    def stream():
        for tile in matrix.tiles(group.ids) if held.sampled else (rows,):
            yield _finite(tile.to(rows.device), matrix, group)

    moments = spectra.moments(stream())
    norms = geometry.norms(stream())
    zero = int((norms == 0).sum())
    usable = rows[(rows != 0).any(1)] if zero else rows
    found = spread(usable if len(usable) else rows, moments)
    found.add("median_dispersion", lambda: geometry.median_dispersion(_some(rows)))
    floor = geometry.precision_floor(rows, matrix.dtype) if matrix.dtype.is_floating_point else 0.0
    shapes = shape(
        moments if len(rows) >= rows.shape[1] or held.sampled else rows,
        floor_reason=floor_reason(found.values["dispersion"] or 0.0, floor, dtype),
    )
    values: dict[str, Any] = {
        "count": group.count,
        "sampled": len(rows) if held.sampled else None,
        "unique_rows": geometry.unique_rows(stream()),
        "zero_rows": zero,
        **shapes.values,
        **found.values,
        "precision_floor": floor,
        "norm": norm_summary(norms),
        "undefined": shapes.undefined | found.undefined,
    }
    s = values["singular_values"]
    values["numerical_rank"] = spectra.numerical_rank(s, shape=(group.count, matrix.shape[1]), dtype=matrix.dtype)
    for key in ("singular_values", "singular_values_centred"):
        values[key] = values[key][:4096]
    return values, held, moments


def _resident(matrix: Matrix, group: Group, settings: Settings) -> Rows:
    room = int(RESIDENT_SHARE * settings.max_memory / (matrix.shape[1] * matrix.dtype.itemsize))
    ids = group.ids
    if group.count > room:
        ids = ids[torch.randperm(group.count, generator=settings.generator(group.name))[:room].sort().values]
    rows = matrix.rows(ids).to(settings.place())
    return Rows(group, _finite(rows, matrix, group, ids), ids, sampled=group.count > room)


def _finite(rows: Tensor, matrix: Matrix, group: Group, ids: Tensor | None = None) -> Tensor:
    if bool(torch.isfinite(rows.sum(dtype=torch.float64))):
        return rows
    bad = (~torch.isfinite(rows.double()).all(1)).nonzero()[:, 0].cpu()
    which = "" if ids is None else f" (first: token id {int(ids[bad[0]])})"
    raise InputError(
        f"{matrix.name}: {len(bad):,} rows of group {group.name} hold NaN or infinity{which}; "
        "the training that wrote them diverged, or the file is damaged"
    )


def _some(rows: Tensor, most: int = 16_384) -> Tensor:
    return rows[exhibits.evenly(len(rows), most).to(rows.device)] if len(rows) > most else rows


def _relate(groups, moments, null, *, text: Rows, new: Rows, settings: Settings) -> None:
    """The measures of the new rows that need the text rows."""
    values, other = groups["new"], groups["text"]
    found = Measured()
    for name in ("dispersion", "median_dispersion"):
        found.add(
            f"{name.replace('dispersion', 'dispersion_ratio')}",
            lambda name=name: _ratio(values[name], other[name]),
        )
    values |= found.values
    values["undefined"] |= found.undefined


def _ratio(value: float | None, of: float | None) -> float:
    if value is None or not of:
        raise ValueError("the text rows have no dispersion to compare with")
    return value / of


def _exhibits(text: Rows, new: Rows, settings: Settings) -> dict:
    found: dict[str, Any] = {}
    undefined = {}
    picked = _nonzero(new, exhibits.evenly(len(new.ids), exhibits.PANEL))
    random = torch.randperm(len(text.ids), generator=settings.generator("panel"))
    beside = _nonzero(text, random[: 2 * exhibits.PANEL])[: exhibits.PANEL].sort().values
    for name, make in {
        "panel": lambda: exhibits.panel(
            text.rows[beside], text.ids[beside], new.rows[picked], new.ids[picked],
            names={"text": _strings(text, beside), "new": _strings(new, picked)},
        ),
        "blocks": lambda: exhibits.blocks(new.rows, new.group.tokens, new.group.levels),
        "map": lambda: _map(text, new, settings),
    }.items():  # fmt: skip
        try:
            found[name] = make()
        except ValueError as error:
            found[name] = None
            undefined[name] = str(error)
    return {**found, "undefined": undefined}


def _nonzero(held: Rows, places: Tensor) -> Tensor:
    return places[(held.rows[places.to(held.rows.device)] != 0).any(1).cpu()]


def _strings(held: Rows, places: Tensor) -> list[str]:
    if not held.sampled:
        return [held.group.tokens[i] for i in places.tolist()]
    where = torch.searchsorted(held.group.ids, held.ids[places]) if bool((held.group.ids.diff() > 0).all()) else None
    if where is None:
        names = dict(zip(held.group.ids.tolist(), held.group.tokens, strict=True))
        return [names[i] for i in held.ids[places].tolist()]
    return [held.group.tokens[i] for i in where.tolist()]


def _map(text: Rows, new: Rows, settings: Settings) -> dict:
    some = torch.randperm(len(text.ids), generator=settings.generator("map"))[: exhibits.MAP_TEXT].sort().values
    found = exhibits.token_map(text.rows[some.to(text.rows.device)], new.rows)
    found["text"] |= {"ids": text.ids[some], "tokens": _strings(text, some)}
    found["new"] |= {
        "ids": new.ids,
        "tokens": _strings(new, torch.arange(len(new.ids))),
        "levels": new.group.levels,
    }
    return found


def _drift(matrix: Matrix, base: Matrix, parts: Partition) -> dict | None:
    return None
