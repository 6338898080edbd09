"""What each file that a user hands us must hold: closed forms, strict numbers, no NaN, no Infinity, nothing unheard of.

Import this inside functions: pydantic takes a tenth of a second, which `--help` does not have. Only what later code reads is
typed in files that others own (a trainer's state, an adapter's configuration) or that grow with each measure (an analysis).
"""

import difflib
import os
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gti_diag.errors import bad

from .json_text import parse_json
from .limits import read_small

Schema = Annotated[int, Field(ge=1, le=1)]
Whole = Annotated[int, Field(ge=0, lt=2**63)]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**64)]
Real = Annotated[float, Field(gt=-1e300, lt=1e300)]
Share = Annotated[float, Field(ge=0, lt=1e300)]
Level = Annotated[int, Field(ge=1, le=1000)]
FileName = Annotated[str, Field(pattern=r"^[\w-][\w. -]{0,200}$")]  # a plain name beside the file: no path leads away
MOST_SHOWN = 60  # characters of a value in a message
PLAIN_WORDS = {
    "model_type": "an object",
    "dict_type": "an object",
    "list_type": "a list",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "a text",
    "string_pattern_mismatch": "a plain file name",
    "finite_number": "a finite number",
}


class Form(BaseModel):
    """Every key is known, and every value is of its type as it stands: no "1" for 1, no true for 1."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, defer_build=True)


class Open(BaseModel):
    """The same for the keys that are read; others are passed over."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False, defer_build=True)


F = TypeVar("F", bound=BaseModel)


def formed(form: type[F], value: Any, where: object, fix: str = "") -> F:
    """`value` as `form`.

    Raises:
        InputError: it has another form; the line names the first place and what stands there.
    """
    try:
        return form.model_validate(value)
    except ValidationError as error:
        raise bad(where, *_told(error, fix, form)) from error
    except RecursionError as error:
        raise bad(where, "is nested too deeply", fix) from error


def read_formed(form: type[F], path: str | os.PathLike[str], fix: str = "", *, finite: bool = True) -> F:
    """The JSON file at `path` as `form`.

    Raises:
        InputError: it cannot be read, is no JSON, or has another form.
    """
    try:
        data = read_small(path)
    except OSError as error:
        raise bad(Path(path), f"cannot be read ({error.strerror or error})", fix) from error
    return formed(form, parse_json(data, Path(path), finite=finite), Path(path), fix)


def _told(error: ValidationError, fix: str, form: type[BaseModel]) -> tuple[str, str]:
    errors = error.errors(include_url=False, include_context=False)
    # a misspelt key comes first: what it stands for is then missing as well
    first = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])
    place = ".".join(str(part) for part in first["loc"])
    what = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if first["type"] == "extra_forbidden":
        close = difflib.get_close_matches(str(first["loc"][-1]), _keys(form, first["loc"][:-1]), n=1)
        return f"has a key {place!r} that it must not have" + (f", did you mean {close[0]!r}?" if close else ""), fix
    if first["type"] == "missing":
        return f"lacks {place}", fix
    if first["type"] == "value_error":
        return (f"{place}: " if place else "") + what, fix
    if first["type"] == "too_short" and not first["input"]:
        return f"{place} is empty", fix
    what = PLAIN_WORDS.get(first["type"], what[:1].lower() + what[1:])
    value = _short(first["input"])
    return f"{place or 'its content'} is {value}, it should be {what}", fix


def _keys(form: Any, place: tuple[int | str, ...]) -> list[str]:
    """The keys that the form has at a place inside it."""
    for part in place:
        field = getattr(form, "model_fields", {}).get(part)
        inner = [form, *get_args(form)] if field is None else [field.annotation, *get_args(field.annotation)]
        form = next((kind for kind in reversed(inner) if isinstance(kind, type) and issubclass(kind, BaseModel)), form)
    return list(getattr(form, "model_fields", {}))


def _short(value: Any) -> str:
    """At most a few words of a value, whatever its size."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**30:
        return "an enormous number"
    if isinstance(value, (list, dict)) and len(value) > 4:
        return f"a {'list' if isinstance(value, list) else 'object'} of {len(value):,}"
    text = repr(value[:MOST_SHOWN] if isinstance(value, str) else value)
    return text if len(text) <= MOST_SHOWN else text[: MOST_SHOWN - 1] + "…"


# --- gti.json -------------------------------------------------------------------------------------------------------


class Sidecar(Form):
    """gti.json, beside a checkpoint's weights: which tokens are new, and how their rows came about."""

    schema_: Schema = Field(alias="schema")
    new_tokens: Annotated[list[str], Field(min_length=1)]
    ids: list[Whole]
    levels: list[Level] | None = None
    init: str | None = None
    seed: Seed | None = None
    parent: str | None = None
    stage: str | None = None
    step: Whole | None = None
    codebooks: FileName | None = None
    item_means: FileName | None = None
    counts: list[Whole] | None = None
    norm: Literal["own", "text"] | None = None
    spread: Share | None = None

    @model_validator(mode="after")
    def _of_one_length(self) -> "Sidecar":
        for name in ("ids", "levels", "counts"):
            listed = getattr(self, name)
            if listed is not None and len(listed) != len(self.new_tokens):
                raise ValueError(f"{name} lists {len(listed):,} entries for {len(self.new_tokens):,} new_tokens")
        for name in ("ids", "new_tokens"):
            twice = _twice(getattr(self, name))
            if twice is not None:
                raise ValueError(f"{name} lists {twice!r} twice")
        return self


def _twice(values: list) -> Any:
    seen: set = set()
    return next((value for value in values if value in seen or seen.add(value)), None)  # type: ignore[func-returns-value]


class Written(Form):
    """The list of files that a stage wrote into its folder, with their sizes."""

    schema_: Schema = Field(alias="schema")
    files: dict[str, Whole]


# --- the gate -------------------------------------------------------------------------------------------------------


class Measure(Form):
    """A number of a baseline, and half the width of its sampling interval."""

    value: Real | None
    noise: Share | None = 0.0
    reason: str | None = None


class KeptMatrix(Form):
    verdict: str | None
    measures: Annotated[dict[str, Measure], Field(min_length=1)]


class KeptCheckpoint(Open):
    tied: bool | None = None


class KeptSettings(Open):
    dim: Whole
    new_tokens: Whole
    sampled: dict[str, Any] = {}


class Baseline(Form):
    """What `gti-diag baseline` writes."""

    kind: Literal["gti-diag baseline"]
    schema_: Schema = Field(alias="schema")
    checkpoint: KeptCheckpoint
    settings: KeptSettings
    matrices: Annotated[dict[str, KeptMatrix], Field(min_length=1)]


class Bounds(Form):
    """The keys of one rule of a policy."""

    min: Real | None = None
    max: Real | None = None
    max_drop: Share | None = None
    max_rise: Share | None = None
    max_change: Share | None = None
    tolerance: Share | None = None
    if_measured: bool = False


# --- analyses -------------------------------------------------------------------------------------------------------


class Reason(Open):
    measure: str | None = None
    value: Real | str | bool | None = None
    expected: str | None = None
    text: str


class Verdict(Open):
    label: str | None
    reasons: list[Reason] = []
    advice: str | None = None


class Other(Open):
    verdict: Verdict


class Norm(Open):
    mean: Real | None = None
    std: Real | None = None
    min: Real | None = None
    max: Real | None = None
    histogram: dict[str, list[Real]] | None = None


class Measures(Open):
    """A group's measures: numbers under any name, and the few that are not numbers."""

    __pydantic_extra__: dict[str, Real | str | bool | list[Any] | dict[str, Any] | None]
    count: Whole
    norm: Norm | None = None
    singular_values: list[Share] | None = None
    singular_values_centred: list[Share] | None = None
    undefined: dict[str, str] | None = None


class Band(Open):
    low: Real | None = None
    median: Real | None = None
    high: Real | None = None


class Null(Open):
    measures: dict[str, Band] | None = None


class Statistic(Open):
    value: Real | None
    interval: Annotated[list[Real], Field(min_length=2, max_length=2)] | None = None
    p_value: Real | None = None


class Agreement(Open):
    """RSA of one set of tokens."""

    pearson: Statistic | None = None
    spearman: Statistic | None = None
    rho_a: Real | None = None
    undefined: dict[str, str] | None = None


class Rsa(Agreement):
    reference: str | None = None
    levels: dict[str, Agreement] | None = None


class Near(Open):
    token: str
    cosine: Real


class Neighbour(Open):
    token: str
    id: Whole
    level: Level | None = None
    nearest: list[Near] | None = None


class MapGroup(Open):
    tokens: list[str] | None = None
    ids: list[Whole] | None = None
    levels: list[Level] | None = None
    x: list[Real] | None = None
    y: list[Real] | None = None
    nearest: list[list[Annotated[list[str | float], Field(min_length=2, max_length=2)]] | None] | None = None

    @model_validator(mode="after")
    def _of_one_length(self) -> "MapGroup":
        named = {name: getattr(self, name) for name in ("ids", "levels", "x", "y", "nearest")}
        lengths = {name: len(listed) for name, listed in named.items() if listed is not None}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"lists of unequal length ({', '.join(f'{n} {length}' for n, length in lengths.items())})")
        return self


class TokenMap(Open):
    new: MapGroup | None = None
    text: MapGroup | None = None


class Drift(Open):
    groups: dict[str, dict[str, Any]] | None = None


class MatrixAnalysis(Open):
    dtype: str | None = None
    shape: Annotated[list[Whole], Field(min_length=2, max_length=2)] | None = None
    groups: dict[str, Measures] = {}
    null: Null | None = None
    map: TokenMap | None = None
    neighbours: list[Neighbour] | None = None
    rsa: Rsa | None = None
    drift: Drift | None = None
    undefined: dict[str, str] | None = None
    others: dict[str, Other] | None = None
    verdict: Verdict = Verdict(label=None)


class AnalysedCheckpoint(Open):
    path: str
    name: str | None = None
    fingerprint: str | None = None
    format: str | None = None
    dtype: str | None = None
    tied: bool | None = None
    step: Whole | None = None
    notes: list[str] | None = None


class Count(Open):
    count: Whole


class Tokens(Open):
    rule: str | None = None
    notes: list[str] | None = None
    groups: dict[str, Count] = {}


class Analysis(Open):
    """analysis.json, and a line of trajectory.jsonl."""

    schema_: Schema = Field(alias="schema")
    checkpoint: AnalysedCheckpoint
    command: list[str] | None = None
    versions: dict[str, str] | None = None
    tokens: Tokens = Tokens()
    matrices: Annotated[dict[str, MatrixAnalysis], Field(min_length=1)]


class Comparison(Open):
    """comparison.json: several analyses in one file."""

    schema_: Schema = Field(alias="schema")
    analyses: Annotated[list[Analysis], Field(min_length=1)]


# --- semantic IDs ---------------------------------------------------------------------------------------------------


class SemanticIds(Open):
    """sids.json: how many codes each level has, and the codes of every item."""

    schema_: Schema = Field(alias="schema", default=1)
    encoder: str = ""
    seed: Seed = 0
    codes: Annotated[list[Annotated[int, Field(ge=1, lt=2**31)]], Field(min_length=1, max_length=26)]
    items: Annotated[dict[str, list[Whole]], Field(min_length=1)]

    @model_validator(mode="after")
    def _a_code_a_level(self) -> "SemanticIds":
        wrong = next((item for item, codes in self.items.items() if len(codes) != len(self.codes)), None)
        if wrong is not None:
            raise ValueError(f"item {wrong!r} has {len(self.items[wrong])} codes, there are {len(self.codes)} levels")
        return self


# --- files of others ------------------------------------------------------------------------------------------------


class TrainerState(Open):
    """trainer_state.json of transformers."""

    global_step: Whole | None = None


def checked(form: type[BaseModel], value: Any, where: object, fix: str = "") -> Any:
    """`value` itself, once it is known to have the form.

    Raises:
        InputError: as `formed`.
    """
    formed(form, value, where, fix)
    return value


__all__ = ["Analysis", "Baseline", "Bounds", "Comparison", "Sidecar", "TrainerState", "checked",
           "formed", "read_formed"]  # fmt: skip
