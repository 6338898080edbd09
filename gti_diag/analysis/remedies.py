"""What probably caused a finding, what to do, how to check that it worked: read from one table, `remedies.toml`."""

import functools
import shlex
import sys
from dataclasses import asdict, dataclass
from importlib import resources

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class Remedy:
    """`verify` names a command and what it must print or how it must exit."""

    cause: str
    action: str
    verify: str


@functools.cache
def remedies() -> dict[str, Remedy]:
    """Every remedy by the name of what it is for."""
    text = resources.files(__package__).joinpath("remedies.toml").read_text(encoding="utf-8")
    return {name: Remedy(**fields) for name, fields in tomllib.loads(text).items()}


def remedy(name: str, path: str) -> dict[str, str]:
    """`{"cause", "action", "verify"}` for a checkpoint at `path`."""
    return {key: text.replace("{path}", shlex.quote(path)) for key, text in asdict(remedies()[name]).items()}
