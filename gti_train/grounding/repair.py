"""Damaged rows of a checkpoint, found by a scan or named by hand, written anew; everything else stays bit-identical."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gti_diag.analysis.scan import scan
from gti_diag.checkpoint import Checkpoint, Matrix, open_checkpoint
from gti_diag.document import canonical, dumps
from gti_diag.errors import InputError
from gti_diag.files import write_text
from gti_diag.tokens.readable import display
from gti_train.model.directories import atomic_directory
from gti_train.model.row_files import edits_of, write_edited

from .repair_plan import KINDS, Plan, plan
from .repaired_rows import grounded, make_rows

RULES = ("head", "mean", "description", "copy-of", "ground")
RECORD = "repair.json"


def repair(
    checkpoint: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    rule: str,
    ids: Sequence[int] | None = None,
    document: Mapping[str, Any] | None = None,
    kinds: Sequence[str] = KINDS,
    like: str | None = None,
    descriptions: Mapping[str, str] | None = None,
    most: float = 0.01,
    steps: int = 60,
    seed: int = 0,
    link: bool = False,
    in_place: bool = False,
    command: Sequence[str] = (),
) -> dict[str, Any]:
    """Write `checkpoint` with its damaged rows anew to the folder `out`; returns the record, which is also `repair.json` there.

    Args:
        rule: head (the direction of the other matrix's row), mean, description (the mean row of what the token's name or
            `descriptions` say), copy-of (near the row of the token `like`), or ground (description, then trained on `descriptions`).
        ids: these rows of every matrix; else those that `document`, or a scan made now, found as `kinds`.
        most: largest share of the rows of a matrix that may be written.
        steps: of grounding.

    Raises:
        InputError: no safetensors checkpoint, nothing or too much to repair, a rule that cannot be used, `out` is `checkpoint`.
    """
    source, target = Path(checkpoint), Path(out)
    _check_places(source, target, in_place=in_place)
    if rule not in RULES:
        raise InputError(f"--rule {rule!r}: choose one of {', '.join(RULES)}")
    if rule == "ground" and in_place:
        raise InputError("--rule ground trains from a repaired copy: name another folder with --out")
    opened = open_checkpoint(source)
    if not opened.format.startswith("safetensors"):
        raise InputError(
            f"{source} is stored as {opened.format}: repair writes safetensors; convert the checkpoint first"
        )
    before = scan(opened) if document is None else document
    _same(before, opened)
    chosen = plan(before, ids=ids, kinds=kinds)
    if rule == "ground":
        _described(opened, chosen, descriptions or {})
    for role, own in chosen.ids.items():
        _limit(opened.matrices[role], own, most)
    maker = partial(make_rows, opened, chosen, rule=rule, like=like, descriptions=descriptions or {}, seed=seed)
    rows = {role: (own, maker(role)) for role, own in chosen.ids.items()}
    if opened.tied and "output" in opened.matrices:  # one matrix stored twice stays one
        rows["output"] = rows["input"] = rows.get("input") or rows["output"]
    record = _record(opened, before, chosen, rows, rule=rule, seed=seed, command=command)
    tensors = {role: matrix.name for role, matrix in opened.matrices.items()}
    if in_place:
        record["files"] = write_edited(source, source, edits_of(rows, tensors))
        write_text(source / RECORD, dumps(canonical(record, "repair")))
        return record
    with atomic_directory(target) as folder:
        record["files"] = write_edited(source, folder, edits_of(rows, tensors), link=link)
        if rule == "ground":
            rows = grounded(folder, chosen, opened, descriptions or {}, steps=steps, seed=seed)
            record["files"] = write_edited(source, folder, edits_of(rows, tensors), link=link)
        write_text(folder / RECORD, dumps(canonical(record, "repair")))
    return record


def _check_places(source: Path, target: Path, *, in_place: bool) -> None:
    if not source.is_dir():
        raise InputError(f"{source} is not a folder: give the folder of a safetensors checkpoint")
    same = target.exists() and os.path.samefile(source, target)
    if same and not in_place:
        raise InputError(f"--out {target} is the checkpoint itself: name another folder, or say --in-place")
    if in_place and not same:
        raise InputError(f"--in-place writes into {source}: give it as --out too, or leave --in-place out")


def _same(document: Mapping[str, Any], opened: Checkpoint) -> None:
    if document["checkpoint"]["fingerprint"] != opened.fingerprint:
        raise InputError(f"the scan is of other rows than those of {opened.path}: scan it again")


def _limit(matrix: Matrix, ids: Sequence[int], most: float) -> None:
    outside = next((id for id in ids if not 0 <= id < matrix.shape[0]), None)
    if outside is not None:
        raise InputError(f"--ids {outside}: {matrix.name} has rows 0 to {matrix.shape[0] - 1}")
    if len(ids) > most * matrix.shape[0]:
        raise InputError(
            f"{len(ids):,} of {matrix.shape[0]:,} rows of {matrix.name} are {len(ids) / matrix.shape[0]:.1%}, more than --most {most:.1%}: "
            "so much damage is rarely a few rows' (look at the scan), or raise --most"
        )


def _described(opened: Checkpoint, chosen: Plan, descriptions: Mapping[str, str]) -> None:
    strings = display(opened.vocabulary, opened.matrices["input"].shape[0])
    ids = sorted({id for own in chosen.ids.values() for id in own})
    missing = next((strings[id] for id in ids if strings[id] not in descriptions), None)
    if missing is not None:
        raise InputError(
            f"--rule ground trains on descriptions, and token {missing!r} has none: add it to --descriptions"
        )


# --- what is recorded -----------------------------------------------------------------------------------------------


def _record(
    opened: Checkpoint, before: Mapping[str, Any], chosen: Plan, rows: Mapping[str, tuple[list[int], Tensor]], *,
    rule: str, seed: int, command: Sequence[str],
) -> dict[str, Any]:  # fmt: skip
    strings = display(opened.vocabulary, max(matrix.shape[0] for matrix in opened.matrices.values()))
    kinds: Callable[[str, int], list[str]] = lambda role, id: [  # noqa: E731
        f["kind"] for f in before["matrices"][role]["findings"] if id in set(f["ids"])
    ]
    return {
        "schema": 1,
        "source": opened.path,
        "fingerprint": opened.fingerprint,
        "command": list(command),
        "rule": rule,
        "seed": seed,
        "left_alone": chosen.left,
        "matrices": {
            role: {
                "tensor": opened.matrices[role].name,
                "rows": [
                    {
                        "id": id,
                        "token": strings[id],
                        "kinds": kinds(role, id),
                        "norm": float(torch.linalg.vector_norm(values[place].double())),
                    }
                    for place, id in enumerate(own)
                ],
            }
            for role, (own, values) in rows.items()
        },
    }


def read_scan(file: Path) -> dict[str, Any]:
    """A scan document.

    Raises:
        InputError: it cannot be read, or is none.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {file}: {getattr(error, 'strerror', None) or error}") from error
    matrices = found.get("matrices") if isinstance(found, dict) else None
    if not isinstance(matrices, dict) or not all(isinstance(m, dict) and "findings" in m for m in matrices.values()):
        raise InputError(f"{file} is not what `gti-diag scan --json` writes")
    return found


def read_descriptions(file: Path) -> dict[str, str]:
    """JSON of token to text.

    Raises:
        InputError: it cannot be read, or holds something else.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {file}: {getattr(error, 'strerror', None) or error}") from error
    if not isinstance(found, dict) or not all(isinstance(text, str) and text for text in found.values()):
        raise InputError(f"{file} must hold a JSON object of token to text")
    return found
