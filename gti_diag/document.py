"""The document that an analysis is: schema 1, as canonical JSON, to files and back.

What analysis/ makes and render/, gate/ and users read.
"""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .errors import bad
from .files import write_text
from .foreign import without_secrets
from .foreign.json_text import parse_json, writable
from .foreign.limits import read_small

SCHEMA = 1


def canonical(value: Any, path: str = "analysis") -> Any:
    """`value` as plain JSON types: tensors and arrays to lists, floats to 9 significant digits, addresses without passwords.

    Raises:
        ValueError: a number is NaN or infinite; a measure that does not exist must be None with its reason.
    """
    if isinstance(value, str):
        return without_secrets(value)
    if value is None or isinstance(value, (bool, int)):
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
        items = list(value)
        return _floats(items) or [canonical(item, path) for item in items]
    raise TypeError(f"cannot write a {type(value).__name__} to JSON")


def _floats(items: list) -> list[float | None] | None:
    """A list of finite floats (and None) at once: matrices have a hundred thousand. None for any other list."""
    if not all(item is None or type(item) is float for item in items):
        return None
    if not math.isfinite(sum(item for item in items if item is not None)):
        return None  # named one by one; finite numbers whose sum is not are no loss either
    return [None if item is None else float(f"{item:.9g}") for item in items]


def dumps(value: Any) -> str:
    """JSON with one key a line and each list of numbers on one line: small, and its diffs can be read."""
    return writable(_dump(canonical(value), "")) + "\n"


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
        InputError: no such file, not JSON, another schema, or damaged.
    """
    from .foreign import schemas

    file = Path(path)
    try:
        content = parse_json(read_small(file), file, finite=True)
    except OSError as error:
        raise bad(file, f"cannot be read ({error.strerror or error})") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        found = content.get("schema") if isinstance(content, dict) else None
        raise bad(file, f"has schema {found!r}, this gti-diag reads schema {SCHEMA}: run analyze again")
    form = schemas.Comparison if "analyses" in content else schemas.Analysis
    schemas.formed(form, content, file, "run analyze again")
    return content.get("analyses", [content])


def write_json(analyses: list[dict], path: str | Path) -> Path:
    """The one document of an analysis or comparison, at `path`."""
    return write_text(path, dumps(document(analyses)))


def document(analyses: list[dict]) -> dict:
    """One analysis as it is, several as a comparison."""
    return analyses[0] if len(analyses) == 1 else {"schema": SCHEMA, "analyses": analyses}
