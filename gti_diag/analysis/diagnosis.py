"""From an opened checkpoint to its analysis: one loop over matrices and groups, composing the core."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gti_diag.checkpoint import Checkpoint, Matrix, open_base, open_checkpoint
from gti_diag.document import SCHEMA, canonical
from gti_diag.errors import InputError, bad
from gti_diag.measures.alignment import Space
from gti_diag.measures.tiles import among_workers, at_once
from gti_diag.tokens.groups import MOST_NAMED, Group, Partition, partition
from gti_diag.tokens.sizes import SHORT_HEAD

from . import exhibits, verdict
from .drift_summary import drift_summary
from .group_measures import Summary, group_measures, text_null
from .group_rows import GroupRows, hold
from .levels import hierarchy_summary, read_items
from .near_text import hubs, near_text, neighbours
from .reference import SAVED, counts_of, load_reference
from .resemblance import Reference, resemblance
from .row_health import examine
from .text_relation import isotropic_null, main_axes, relate

Progress = Callable[[str, float | None], None]
PROGRAM = 4 * 10**8  # bytes that Python, torch and the buffers of tiles take
NAMED = 1000  # bytes that a row takes beside its numbers: its name, its norm, what is compared of it
FEW = 2048  # new tokens: up to here the parts of an analysis run beside each other, of more each part is shared among workers
RESIDENT_SHARE = 0.25  # of max_memory: rows of one group kept in their storage dtype; beyond it a sample stands in


@dataclass(frozen=True)
class Settings:
    """Everything a result depends on besides the files."""

    seed: int = 0
    device: str = "auto"
    max_memory: int = 2 * 10**9
    exact: bool = False
    exhibits: bool = True

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
    opened = base if base is None or isinstance(base, Checkpoint) else open_base(base, tensor=options.get("tensor"))
    analyses = []
    for index, checkpoint in enumerate(checkpoints):
        where = f"[{index + 1}/{len(checkpoints)}] " if len(checkpoints) > 1 else ""
        report = lambda stage, share, where=where: progress(where + stage, share)  # noqa: E731
        analyses.append(diagnose(checkpoint, base=opened, progress=report, **options))
    return analyses


@among_workers()
def diagnose(
    checkpoint: Checkpoint | str | Path,
    *,
    base: Checkpoint | str | Path | None = None,
    new: str = "auto",
    reference: str | Path | None = None,
    items: str | Path | None = None,
    matrix: str = "auto",
    tensor: str | None = None,
    seed: int = 0,
    device: str = "auto",
    max_memory: int = 2 * 10**9,
    exact: bool = False,
    exhibits: bool = True,
    progress: Progress = lambda stage, share: None,
    command: Sequence[str] = (),
) -> dict:
    """Measure the embedding rows of a checkpoint: the `analysis.json` document (schema 1) as a plain dict.

    Args:
        checkpoint: an opened checkpoint, or what `open_checkpoint` takes.
        base: the checkpoint it was extended from; tells which rows are new and whether old ones moved.
        new: which tokens are new: auto, a regular expression, id ranges, or @file.
        reference: vectors the new tokens should resemble; if None, what gti.json names: item means, and codebooks.
        items: JSON of item -> code tokens, for the measures of shared prefixes and for how many items carry each token.
        matrix: input, output, both, or auto (input, and output when a separate head is stored).
        tensor: name of the embedding tensor where the layout is unknown.
        max_memory: bytes to stay under; groups whose rows exceed a quarter of it are streamed and sampled.
        exact: Spearman's RSA by sorting all pairs (40 bytes each) instead of in a stream that errs by about 1e-9.
        exhibits: also what only readers of a report look at: nearest words, and the numbers behind the figures.

    Raises:
        InputError: whatever is wrong with the input, in one line.
    """
    settings = Settings(seed, device, max_memory, exact, exhibits)
    settings.place()
    base = base if base is None or isinstance(base, Checkpoint) else open_base(base, tensor=tensor)
    opened = checkpoint if isinstance(checkpoint, Checkpoint) else open_checkpoint(checkpoint, tensor=tensor, base=base)
    _check_rows(opened, max_memory)
    progress("finding tokens", None)
    parts = partition(opened, new=new, base=base)
    given = _given(opened, parts, reference, items)
    chosen = _matrices(opened, matrix, parts)
    theirs = _text_of(base, opened) if base is not None and not parts.groups["text"].count else None
    groups = dict(parts.groups) if theirs is None else {**parts.groups, "text": theirs}
    found: dict[str, dict] = {}
    look = cache(partial(examine, opened, parts, base=base, progress=progress, max_memory=max_memory))
    for name, stored in chosen.items():
        texts = stored if theirs is None or base is None else base.matrices.get(name, base.matrices["input"])
        beside = [look] if exhibits and not found else []
        found[name] = _analyse(
            stored, opened.path, groups, settings, progress=progress, given=given, text=texts, beside=beside
        )
    health = look() if exhibits else None
    return canonical(
        {
            "schema": SCHEMA,
            "checkpoint": described(opened, opened.fingerprint if health is None else health.fingerprint),
            "command": list(command),
            "versions": versions(),
            "seed": seed,
            "tokens": {
                "rule": parts.rule,
                "alarms": [asdict(alarm) for alarm in parts.alarms],
                "notes": (*_text_notes(groups["text"], theirs, base), *parts.notes),
                "groups": {n: _counts(g) for n, g in groups.items()},
            },
            "matrices": {
                name: {
                    **analysis,
                    "scan": None if health is None else health.short(name),
                    "drift": None if base is None or theirs is not None else drift_summary(opened, base, name, groups),
                }
                for name, analysis in found.items()
            },
        }
    )  # fmt: skip


def _check_rows(checkpoint: Checkpoint, max_memory: int) -> None:
    """Raises InputError where a matrix has (or claims) more rows than can be named."""
    matrix = checkpoint.matrices["input"]
    needed = matrix.shape[0] * NAMED
    if needed > max(max_memory, MOST_NAMED * NAMED):
        problem = f"has {matrix.shape[0]:,} rows in {matrix.name!r}, which take about {needed / 1e9:.0f} GB to name and compare"
        fix = f"choose another matrix with --tensor, or give --max-memory {needed / 1e9:.0f}GB where the machine has it"
        raise bad(checkpoint.path, problem, fix)


def _text_of(base: Checkpoint, checkpoint: Checkpoint) -> Group | None:
    """The text rows of the base, for a checkpoint that has none of its own; None where they cannot be compared."""
    if base.matrices["input"].shape[1] != checkpoint.matrices["input"].shape[1]:
        return None
    found = partition(base).groups["text"]
    return found if found.count else None


def _text_notes(text: Group, theirs: Group | None, base: Checkpoint | None) -> list[str]:
    if theirs is not None and base is not None:
        return [f"every row is new: compared with the {text.count:,} text rows of the base {base.path}"]
    if text.count:
        return []
    why = "the base's rows have another width" if base is not None else "give the model they are for with --base"
    return [f"every row is new or reserved, so there is no text to compare with: {why}"]


def _matrices(checkpoint: Checkpoint, wanted: str, parts: Partition) -> dict[str, Matrix]:
    """The matrices to judge by role: a head only if every new and text token has a row in it.

    Raises:
        InputError: an unknown choice, or one that is not stored or too short.
    """
    known = checkpoint.matrices
    if wanted not in ("auto", "both", "input", "output"):
        raise InputError(f"--matrix {wanted!r}: choose input, output or both")
    short = next((alarm.text for alarm in parts.alarms if alarm.kind == SHORT_HEAD), None)
    if wanted in ("auto", "both"):
        return {name: known[name] for name in ("input", "output") if name in known and not (name == "output" and short)}
    if wanted not in known:
        raise InputError(f"{checkpoint.path}: no separate {wanted} matrix is stored; use --matrix input")
    if wanted == "output" and short:
        raise InputError(f"{checkpoint.path}: {short}; use --matrix input")
    return {wanted: known[wanted]}


def described(checkpoint: Checkpoint, fingerprint: str) -> dict:
    """The `checkpoint` part of a document."""
    return {
        "path": checkpoint.path,
        "name": Path(str(checkpoint.path).rstrip("/")).name,
        "fingerprint": fingerprint,
        "format": checkpoint.format,
        "tied": checkpoint.tied,
        "dtype": checkpoint.matrices["input"].kind,
        "step": (checkpoint.sidecar or {}).get("step"),
        "notes": checkpoint.notes,
    }


def versions() -> dict[str, str]:
    """The `versions` part of a document."""
    named = {name: metadata.version(name) for name in ("gti-diag", "torch", "numpy")}
    return {"python": sys.version.split()[0], **named}


def _counts(group: Group) -> dict:
    levels = None if group.levels is None else torch.bincount(group.levels)[1:].tolist()
    return {"count": group.count, "levels": None if levels is None else len(levels), "level_counts": levels}


@dataclass(frozen=True)
class Given:
    """What is known of the new tokens: what they should resemble (first the one to judge by), their items, how many each has."""

    references: tuple[Reference, ...]
    items: Tensor | None
    counts: Tensor | None


def _given(checkpoint: Checkpoint, parts: Partition, reference: str | Path | None, items: str | Path | None) -> Given:
    new = parts.groups.get("new")
    for file, what in ((reference, "reference"), (items, "item table")):
        if file is not None and new is None:
            article = "an" if what[0] in "aeiou" else "a"
            raise InputError(f"{file}: {article} {what} is for new tokens, but there are none ({parts.rule})")
    if new is None:
        return Given((), None, None)
    table = None if items is None else read_items(items, new.tokens, new.levels)
    sidecar = checkpoint.sidecar if checkpoint.sidecar is not None and parts.rule.startswith("gti.json") else {}
    counts = None
    if table is not None:
        counts = torch.bincount(table.flatten(), minlength=new.count)
    elif sidecar.get("counts"):
        counts = counts_of(sidecar, new.ids)
    files = {"reference": Path(reference)} if reference is not None else {}
    for name in [] if files else SAVED:
        file = Path(checkpoint.path) / str(sidecar.get(name))
        if sidecar.get(name) is not None and file.is_file():
            files[name] = file
    loaded = (Reference(name, load_reference(file, new.tokens), str(file)) for name, file in files.items())
    return Given(tuple(loaded), table, counts)


def _room(max_memory: int, dim: int) -> float:
    """Bytes for the rows of one group: a quarter of what the program itself and the d × d matrices of text leave."""
    return RESIDENT_SHARE * max(max_memory - PROGRAM - 2 * 8 * dim**2, max_memory / 8)


def _analyse(
    matrix: Matrix,
    source: str,
    parts: Mapping[str, Group],
    settings: Settings,
    *,
    progress: Progress,
    given: Given,
    text: Matrix,
    beside: Sequence[Callable[[], object]],
) -> dict:
    """All that is said of one matrix; the rows of the group `text` are those of the matrix `text`.

    Where rows are few, the jobs `beside`, whose results are the caller's affair, run while they are measured.
    """
    of = {name: text if name == "text" else matrix for name in parts}
    present = {name: kept for name, group in parts.items() if (kept := group.within(of[name].shape[0])).count}
    few = _few(of, present, settings)
    held, groups, summaries = _measured(of, source, present, settings, progress, few=few, beside=beside)
    new, floor = held.get("new"), None if "new" not in held else summaries["new"].floor
    found: dict[str, Any] = {"tensor": matrix.name, "dtype": matrix.kind, "shape": matrix.shape, "groups": groups}

    look = new if settings.exhibits else None

    def against() -> dict[str, dict]:
        return _against_text(held, groups, summaries, settings, progress) if "text" in held else {}

    def structured() -> dict[str, Any]:
        return {} if new is None else _structure(new, given, settings, floor=floor, progress=progress)

    def near() -> dict[str, Any]:
        progress("neighbours and map", None)
        return {} if look is None else _near(held.get("text"), look)

    def shown() -> dict[str, Any]:
        return {} if look is None else exhibits.gather(held.get("text"), look, generator=settings.generator)

    if few:
        nulls, structure, *exhibited = at_once([against, structured, near, shown], settings.place())
    else:
        nulls, exhibited = against(), [near(), shown()]
        held.clear()  # RSA needs the room of the text rows
        structure = structured()
    if "text" in groups:
        found["null"] = nulls.get("new")
    for part in (*exhibited, structure):
        found |= part
    others = {
        name: {"null": null, "verdict": verdict.judge({**found, "null": null, "rsa": None}, name)}
        for name, null in nulls.items()
        if name != "new"
    }
    return {
        "rsa": None, "rsa_references": {}, "hierarchy": None, "neighbours": None,
        **found,
        "verdict": verdict.judge(found),
        "others": others,
    }  # fmt: skip


def _few(of: Mapping[str, Matrix], present: Mapping[str, Group], settings: Settings) -> bool:
    """Whether the parts of an analysis may run beside each other: all rows are held, and RSA of the new ones takes little room."""
    if "new" in present and present["new"].count > FEW:
        return False
    return all(
        group.count * of[name].shape[1] * of[name].dtype.itemsize <= _room(settings.max_memory, of[name].shape[1])
        for name, group in present.items()
    )


def _measured(
    of: Mapping[str, Matrix], source: str, present: Mapping[str, Group], settings: Settings, progress: Progress, *,
    few: bool, beside: Sequence[Callable[[], object]],
) -> tuple[dict[str, GroupRows], dict[str, dict], dict[str, Summary]]:  # fmt: skip
    """The rows of each group, its measures (in the order of `present`), and what comparisons need of it.

    `of` says of which matrix a group's rows are.
    """
    order = sorted(present, key="text".__eq__)  # text, whose Gram matrix stays, last

    def holding(name: str) -> GroupRows:
        progress(f"measuring {name} rows", None)
        return hold(
            of[name],
            present[name],
            source=source,
            room=_room(settings.max_memory, of[name].shape[1]),
            device=settings.place(),
            generator=settings.generator(name),
        )

    if few:
        held = {name: holding(name) for name in order}
        jobs = [partial(group_measures, held[name], moments=name == "text") for name in reversed(order)]
        found = dict(zip(reversed(order), at_once([*jobs, *beside], settings.place()), strict=False))
    else:
        held, found = {}, {}
        for job in beside:
            job()
        for name in order:
            held[name] = holding(name)
            found[name] = group_measures(held[name], moments=name == "text")
    return held, {name: found[name][0] for name in present}, {name: found[name][1] for name in present}


def _against_text(
    held: dict[str, GroupRows],
    groups: dict[str, dict],
    summaries: dict[str, Summary],
    settings: Settings,
    progress: Progress,
) -> dict[str, dict]:
    """Add to each group how it relates to text; what text samples and noise of its size show. Empties `summaries`."""
    compared = [name for name in groups if name not in ("text", "reserved")]
    axes = main_axes(summaries["text"]) if compared else None
    for name in compared:
        relate(groups[name], groups["text"], held[name].rows, summaries[name], summaries["text"], axes)
    summaries.clear()  # with the Gram matrix of text
    nulls = {}
    for name in compared:
        count, purpose = held[name].count, "null" if name == "new" else f"null {name}"
        nulls[name] = text_null(held["text"].rows, count, generator=settings.generator(purpose), progress=progress)
        if axes is not None and count > 1:
            nulls[name]["isotropic"] = isotropic_null(count, axes, generator=settings.generator(f"isotropic {name}"))
    return nulls


def _near(text: GroupRows | None, new: GroupRows) -> dict[str, Any]:
    """What lies near the new rows."""
    near = None if text is None else near_text(text, new)
    return {"neighbours": None if near is None else neighbours(near), "hubs": None if near is None else hubs(near)}


def _structure(
    new: GroupRows, given: Given, settings: Settings, *, floor: str | None, progress: Progress
) -> dict[str, Any]:
    """What the levels show; `rsa`, agreement with the reference to judge by, and `rsa_references`, with others by name."""
    progress("hierarchy", None)
    items = given.items if not new.sampled else None  # the table counts places among all new tokens
    found: dict[str, Any] = {"hierarchy": hierarchy_summary(new.rows, new.levels, items, floor_reason=floor)}
    rows = Space(new.rows, "the new rows", new.matrix.dtype)
    counts = None if given.counts is None else given.counts[new.places]
    for reference in given.references:
        progress("RSA", None)
        held = replace(reference, vectors=reference.vectors[new.places].to(new.rows.device))
        made = partial(
            resemblance, rows, held, new.levels, tokens=new.tokens, counts=counts, generator=settings.generator
        )
        if "rsa" not in found:
            found |= {"rsa": made(exact=settings.exact), "rsa_references": {}}
        else:
            found["rsa_references"][reference.name] = made(papers=False)
    return found
