"""What a checkpoint must satisfy: bounds on measures and forbidden verdicts, read from a TOML file.

verdict_not = ["collapsed", "degenerate"]   # labels that fail
allow_untied = false                        # a head stored apart although the config ties it fails

[new.effective_rank_centred]                # [GROUP.MEASURE], [rsa.agreement], or [output.new.dispersion] for one matrix
min = 20                                    # bounds on the value …
max_drop = 0.25                             # … and on its change, as a share of the baseline's value
tolerance = 0.05                            # share of the value to forgive, in place of its sampling interval
if_measured = true                          # pass over the rule where the measure does not exist (no reference, no base)
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from gti_diag.analysis.verdict import LABELS
from gti_diag.errors import InputError
from gti_diag.files import tomllib
from gti_diag.foreign.limits import read_small

SHIPPED = Path(__file__).parent / "policies"
MATRICES = ("input", "output")


@dataclass(frozen=True)
class Rule:
    """Bounds on one measure. `max_drop`, `max_rise` and `max_change` are shares of the baseline's absolute value."""

    measure: str
    matrix: str | None = None  # None: every matrix
    min: float | None = None
    max: float | None = None
    max_drop: float | None = None
    max_rise: float | None = None
    max_change: float | None = None
    tolerance: float | None = None
    if_measured: bool = False  # else a measure that is missing fails


BOUNDS = tuple(field.name for field in fields(Rule) if field.name not in ("measure", "matrix"))
LONGEST = 10**6  # bytes of a policy


@dataclass(frozen=True)
class Policy:
    """A named set of rules."""

    name: str
    verdict_not: tuple[str, ...]
    allow_untied: bool
    rules: tuple[Rule, ...]


def shipped() -> list[str]:
    """The names of the policies that come with gti-diag."""
    return sorted(path.stem for path in SHIPPED.glob("*.toml"))


def read_policy(name_or_path: str | Path) -> Policy:
    """The shipped policy of this name, or the TOML file at this path.

    Raises:
        InputError: no such file, not TOML, or a key or value that no policy has.
    """
    path = SHIPPED / f"{name_or_path}.toml" if str(name_or_path) in shipped() else Path(name_or_path)
    try:
        content = tomllib.loads(read_small(path, most=LONGEST).decode("utf-8"))
    except FileNotFoundError as error:
        raise InputError(
            f"no policy {str(name_or_path)!r}: give a TOML file or one of {', '.join(shipped())}"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"{path} is not TOML: {error}") from error
    verdicts = content.pop("verdict_not", [])
    if not isinstance(verdicts, list) or not all(label in LABELS for label in verdicts):
        raise InputError(f"{path}: verdict_not = {verdicts!r}: list some of {', '.join(LABELS)}")
    allow_untied = content.pop("allow_untied", True)
    if not isinstance(allow_untied, bool):
        raise InputError(f"{path}: allow_untied = {allow_untied!r}: write true or false")
    rules = tuple(_rules(path, content, ()))
    if not rules and not verdicts and allow_untied:
        raise InputError(f"{path} asks for nothing: give it a rule such as [new.dispersion_ratio], or verdict_not")
    return Policy(path.stem, tuple(verdicts), allow_untied, rules)


def _rules(path: Path, table: Mapping[str, Any], above: tuple[str, ...]) -> Iterator[Rule]:
    from gti_diag.foreign import schemas

    bounds = {key: value for key, value in table.items() if not isinstance(value, Mapping)}
    if bounds:
        where = ".".join(above)
        if len(above) < 2:
            key = next(iter(bounds))
            raise InputError(f"{path}: unknown setting {'.'.join((*above, key))!r}: rules go under [GROUP.MEASURE]")
        for key in bounds:
            if key not in BOUNDS:
                raise InputError(f"{path}: [{where}] has no bound {key!r}: use {', '.join(BOUNDS)}")
        schemas.formed(schemas.Bounds, bounds, f"{path}: [{where}]", "bounds are numbers, shares of 0 or more")
        if not bounds.keys() & {"min", "max", "max_drop", "max_rise", "max_change"}:
            raise InputError(f"{path}: [{where}] bounds nothing: give it min, max, max_drop, max_rise or max_change")
        matrix = above[0] if above[0] in MATRICES else None
        yield Rule(".".join(above[1:] if matrix else above), matrix, **bounds)
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _rules(path, value, (*above, key))
