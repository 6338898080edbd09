"""Why a rule failed, as far as the numbers tell: which remedy of the table applies, and the words to fill in."""

from collections.abc import Callable, Mapping
from typing import Any

from gti_diag.analysis.remedies import remedies, remedy

from .scalars import Number

Numbers = Mapping[str, Number]
Words = tuple[str, dict[str, str]]  # the name of a remedy, without "gate.", and what its text leaves open
MEAN_RESIZING = 1e-3  # draws of transformers' mean_resizing: 3e-5 of the spread; bfloat16 rounding makes it up to 3e-4


def steps(name: str, path: str, **words: str) -> dict[str, str]:
    """Cause, action and check of the gate's remedy `name`; nothing for a name that the table lacks."""
    return remedy(f"gate.{name}", path, **words) if f"gate.{name}" in remedies() else {}


def likely(measure: str, now: Numbers, before: Numbers, matrix: Mapping[str, Any], path: str) -> dict[str, str]:
    """Cause, action and check by the first explanation that fits; `before` is empty without a baseline."""
    name, words = _explained(measure, now, before, matrix)
    return steps(name, path, **words)


def _explained(measure: str, now: Numbers, before: Numbers, matrix: Mapping[str, Any]) -> Words:
    if measure.startswith(("text.", "reserved.", "drift.")):
        return _old_rows(now, before)
    for fits, words in NEW_ROWS:
        if fits(now, matrix):
            return words(now, matrix)
    if measure.startswith("rsa.") or matrix["verdict"]["label"] == "unstructured":
        return _agreement(now, before)
    return ("spread" if measure.startswith("new.") else "unknown"), {}


def _value(numbers: Numbers, name: str) -> float | None:
    return numbers[name].value if name in numbers else None


def _old_rows(now: Numbers, before: Numbers) -> Words:
    norm, was = _value(now, "text.norm.mean"), _value(before, "text.norm.mean")
    if norm and was and norm < was:
        return "shrunk", {"share": f"{1 - norm / was:.2%}"}
    return "old_rows", {}


def _below(name: str, limit: float) -> Callable[[Numbers, Mapping[str, Any]], bool]:
    def fits(now: Numbers, matrix: Mapping[str, Any]) -> bool:
        value = _value(now, name)
        return value is not None and value < limit

    return fits


def _identical(now: Numbers, matrix: Mapping[str, Any]) -> bool:
    return _value(now, "new.unique_rows") == 1 and (_value(now, "new.count") or 0) > 1


def _rounding(now: Numbers, matrix: Mapping[str, Any]) -> bool:
    spread, floor = _value(now, "new.dispersion"), _value(now, "new.precision_floor")
    return spread is not None and floor is not None and spread <= floor


def _repeats(now: Numbers, matrix: Mapping[str, Any]) -> int:
    return round((1 - (_value(now, "new.distinct_share") or 0)) * (_value(now, "new.count") or 0))


def _resized(now: Numbers, matrix: Mapping[str, Any]) -> Words:
    rounded = f", or {matrix['dtype']} rounding ate their differences" if _rounding(now, matrix) else ""
    return "mean_resizing", {"rounding": rounded}


# In order: the first that fits is told.
NEW_ROWS: tuple[tuple[Callable[..., bool], Callable[[Numbers, Mapping[str, Any]], Words]], ...] = (
    (
        lambda now, matrix: (_value(now, "new.zero_rows") or 0) > 0,
        lambda now, matrix: ("zero_rows", {"count": f"{_value(now, 'new.zero_rows'):.0f}"}),
    ),
    (_identical, lambda now, matrix: ("one_vector", {})),
    (_below("new.dispersion_ratio", MEAN_RESIZING), _resized),
    (_rounding, lambda now, matrix: ("rounding", {"dtype": matrix["dtype"]})),
    (_below("new.dispersion_ratio", 0.01), lambda now, matrix: ("common_start", {})),
    (
        lambda now, matrix: _repeats(now, matrix) > 0,
        lambda now, matrix: ("repeats", {"count": f"{_repeats(now, matrix):,}"}),
    ),
)


def _agreement(now: Numbers, before: Numbers) -> Words:
    value = _value(now, "rsa.agreement")
    if value is None or value <= now["rsa.agreement"].noise:
        return "unrelated", {}
    levels = {
        name.split(".")[1].removeprefix("level_"): (_value(before, name) or 0.0) - (number.value or 0.0)
        for name, number in now.items()
        if name.startswith("rsa.level_") and name.endswith(".agreement") and name in before
    }
    worst = max(levels, key=lambda level: levels[level], default=None)
    return "part_untrained", {"where": f" (level {worst} fell most)" if worst is not None else ""}
