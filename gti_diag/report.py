"""Results to files and back: canonical JSON (schema 1), and the folder that `analyze` and `compare` leave behind."""

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import InputError
from .files import all_or_none, write_text

SCHEMA = 1
FORMATS = ("json", "md", "html")


def canonical(value: Any, path: str = "analysis") -> Any:
    """`value` as plain JSON types: tensors and arrays to lists, floats to 9 significant digits.

    Raises:
        ValueError: a number is NaN or infinite; a measure that does not exist must be None with its reason.
    """
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): canonical(item, f"{path}.{key}") for key, item in value.items()}
    if hasattr(value, "tolist"):  # torch tensors, numpy arrays and scalars
        return canonical(value.tolist(), path)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{path} is {value}: a report needs None and the reason")
        return float(f"{value:.9g}")
    if isinstance(value, Iterable):
        return [canonical(item, path) for item in value]
    raise TypeError(f"cannot write a {type(value).__name__} to JSON")


def dumps(value: Any) -> str:
    """JSON with one key a line and each list of numbers on one line: small, and its diffs can be read."""
    return _dump(canonical(value), "") + "\n"


def _dump(value: Any, indent: str) -> str:
    deeper = indent + " "
    if isinstance(value, dict) and value:
        rows = (f"{deeper}{json.dumps(key, ensure_ascii=False)}: {_dump(item, deeper)}" for key, item in value.items())
        return "{\n" + ",\n".join(rows) + f"\n{indent}}}"
    if isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
        return "[\n" + ",\n".join(deeper + _dump(item, deeper) for item in value) + f"\n{indent}]"
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(", ", ": "))


def read(path: str | Path) -> list[dict]:
    """The analyses in an `analysis.json` or `comparison.json`.

    Raises:
        InputError: no such file, not JSON, or another schema.
    """
    file = Path(path)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror or error}") from error
    except ValueError as error:
        raise InputError(f"{file} is not JSON: {error}") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        found = content.get("schema") if isinstance(content, dict) else None
        raise InputError(f"{file} has schema {found!r}, this gti-diag reads schema {SCHEMA}: run analyze again")
    return content.get("analyses", [content])


def write(
    analyses: list[dict], out: str | Path, *, formats: Sequence[str] = ("json", "md"), style: str = "paper"
) -> list[Path]:
    """Write one analysis, or a comparison of several, with its figures, to the folder `out`.

    All files appear, each whole, or none does; files of other names in the folder are left alone.

    Raises:
        InputError: an unknown format, or the folder cannot be written.
    """
    check_writable(out, formats, style)
    from . import render
    from .render import markdown

    folder = Path(out)
    texts = {}  # everything is rendered before the first file is written
    if "json" in formats:
        texts["analysis.json" if len(analyses) == 1 else "comparison.json"] = dumps(_document(analyses))
    if "md" in formats:
        texts["summary.md"] = markdown.summary(analyses)
    if "html" in formats:
        from .render import html

        texts["report.html"] = html.report(analyses)
    with all_or_none(folder) as stage:
        written = [write_text(stage / name, text) for name, text in texts.items()]
        written += render.figures(analyses, stage / "figures", style=style)
    return [folder / path.relative_to(stage) for path in written]


def write_json(analyses: list[dict], path: str | Path) -> Path:
    """The one document of an analysis or comparison, at `path`."""
    return write_text(path, dumps(_document(analyses)))


def check_writable(out: str | Path, formats: Sequence[str], style: str = "paper") -> None:
    """Fail before the work rather than after it.

    Raises:
        InputError: an unknown format or style, or a folder that cannot be made or written.
    """
    from .render.style import STYLES

    if style not in STYLES:
        raise InputError(f"unknown figure style {style!r}: choose from {', '.join(STYLES)}")
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise InputError(f"unknown format {unknown[0]!r}: choose from {', '.join(FORMATS)}")
    folder = Path(out)
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"cannot write to {out}: {folder} is not a folder that may be written; choose another --out")


def _document(analyses: list[dict]) -> dict:
    return analyses[0] if len(analyses) == 1 else {"schema": SCHEMA, "analyses": analyses}
