"""Baselines: the scalars of a healthy checkpoint, small and sorted, and what makes another comparable with it."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gti_diag.analysis.reference import load_reference
from gti_diag.document import canonical
from gti_diag.errors import InputError
from gti_diag.files import write_text
from gti_diag.foreign.json_text import parse_json, writable
from gti_diag.foreign.limits import read_small

from .scalars import numbers

SCHEMA = 1
KIND = "gti-diag baseline"
DIGITS = 6  # of a baseline's numbers: what two machines agree on


def baseline(analysis: Mapping[str, Any]) -> dict:
    """What later checkpoints are compared with: the scalars of an analysis, and what makes them comparable."""
    return {
        "kind": KIND,
        "schema": SCHEMA,
        "checkpoint": {
            key: analysis["checkpoint"].get(key) for key in ("name", "fingerprint", "dtype", "tied", "step")
        },
        "settings": settings(analysis),
        "matrices": {
            name: {
                "verdict": matrix["verdict"]["label"],
                "measures": {
                    measure: {"value": _short(number.value), "noise": _short(number.noise)}
                    for measure, number in sorted(numbers(matrix).items())
                },
            }
            for name, matrix in sorted(analysis["matrices"].items())
        },
    }


def settings(analysis: Mapping[str, Any]) -> dict:
    """What two analyses must share for their numbers to mean the same; independent of the order of tokens."""
    matrix = analysis["matrices"][next(iter(analysis["matrices"]))]
    tokens = [str(token) for token in (((matrix.get("map") or {}).get("new")) or {}).get("tokens") or []]
    new = analysis["tokens"]["groups"]["new"]
    complete = len(tokens) == new["count"]
    rsa = matrix.get("rsa")
    return {
        "dim": matrix["shape"][1],
        "new_tokens": new["count"],
        "new_tokens_digest": _digest(sorted(tokens)) if complete else None,
        "reference": Path(rsa["reference"]).name if rsa else None,
        "reference_digest": _reference_digest(rsa["reference"], tokens) if rsa and complete else None,
        "sampled": {name: group["sampled"] for name, group in matrix["groups"].items() if group.get("sampled")},
    }


def _digest(value: Any) -> str:
    return hashlib.sha256(writable(json.dumps(value, ensure_ascii=False)).encode()).hexdigest()[:16]


def _reference_digest(path: str, tokens: Sequence[str]) -> str | None:
    try:
        vectors = load_reference(path, tuple(tokens)).float()
    except InputError:
        return None  # an analysis that came from another machine
    rows = (f"{token} {row.numpy().tobytes().hex()}" for token, row in zip(tokens, vectors, strict=True))
    return _digest(sorted(rows))


def write_baseline(analysis: Mapping[str, Any], path: str | Path) -> Path:
    """Write `baseline(analysis)` as JSON with sorted keys and one measure a line."""
    return write_text(path, writable(_dump(canonical(baseline(analysis)))) + "\n")


def _dump(value: Any, indent: str = "") -> str:
    if isinstance(value, Mapping) and not ("noise" in value and len(value) == 2):
        if not value:
            return "{}"
        rows = (f"{indent} {json.dumps(key)}: {_dump(value[key], indent + ' ')}" for key in sorted(value))
        return "{\n" + ",\n".join(rows) + f"\n{indent}}}"
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def read_baseline(path: str | Path) -> dict:
    """The baseline in a file.

    Raises:
        InputError: no such file, not a baseline, of another schema, or damaged.
    """
    from gti_diag.foreign import schemas

    try:
        content = parse_json(read_small(path), path, finite=True)
    except OSError as error:
        raise InputError(
            f"cannot read baseline {path}: {error.strerror or error}; make one with `gti-diag baseline`"
        ) from error
    if not isinstance(content, dict) or content.get("kind") != KIND:
        raise InputError(f"{path} is not a baseline: make one with `gti-diag baseline CKPT -o {path}`")
    if content.get("schema") != SCHEMA:
        raise InputError(
            f"{path} has baseline schema {content.get('schema')!r}, this gti-diag reads {SCHEMA}: renew it with `check --update`"
        )
    schemas.formed(
        schemas.Baseline, content, path, "make it again with `gti-diag baseline`, or renew it with `check --update`"
    )
    return content


def comparable(before: Mapping[str, Any], analysis: Mapping[str, Any], name: str) -> list[str]:
    """Notes on what could not be compared.

    Raises:
        InputError: the two were measured on different things.
    """
    was, now = before["settings"], settings(analysis)
    words = {
        "dim": "row length",
        "new_tokens": "number of new tokens",
        "new_tokens_digest": "set of new tokens",
        "reference": "reference for RSA",
        "reference_digest": "content of the reference for RSA",
        "sampled": "sampling of rows (--max-memory)",
    }
    notes = []
    for key, what in words.items():
        if was.get(key) == now[key]:
            continue
        if key.endswith("_digest") and None in (was.get(key), now[key]):
            notes.append(f"the {what} could not be compared with {name}")
            continue
        raise InputError(
            f"{name} is not comparable: the {what} differs ({was.get(key)} there, {now[key]} here); "
            "check the options, or renew the baseline with --update"
        )
    gone = set(before["matrices"]) - set(analysis["matrices"])
    if gone and analysis["checkpoint"]["tied"] == before["checkpoint"]["tied"]:
        raise InputError(
            f"{name} also has the {gone.pop()} matrix, which was not analysed: drop --matrix, or use --update"
        )
    return notes


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{DIGITS}g}")
