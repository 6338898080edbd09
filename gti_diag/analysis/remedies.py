"""What probably caused a finding, what to do, how to check that it worked: read from one table, `remedies.toml`."""

import functools
import shlex
from dataclasses import asdict, dataclass

from gti_diag.files import shipped_toml


@dataclass(frozen=True)
class Remedy:
    """`verify` names a command and what it must print or how it must exit."""

    cause: str
    action: str
    verify: str


@functools.cache
def remedies() -> dict[str, Remedy]:
    """Every remedy by the name of what it is for."""
    return {name: Remedy(**fields) for name, fields in shipped_toml(__package__, "remedies.toml").items()}


def remedy(name: str, path: str, **words: str) -> dict[str, str]:
    """`{"cause", "action", "verify"}` for a checkpoint at `path`, with `{word}` replaced by each of `words`."""
    filled = {"path": shlex.quote(path), **words}
    return {key: _filled(text, filled) for key, text in asdict(remedies()[name]).items()}


def _filled(text: str, words: dict[str, str]) -> str:
    for name, word in words.items():
        text = text.replace(f"{{{name}}}", word)
    return text
