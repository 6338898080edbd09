"""Why a rule failed, as far as the numbers tell: the likely cause, in one line, with what to look at."""

from collections.abc import Callable, Mapping
from typing import Any

from .scalars import Number

Numbers = Mapping[str, Number]
MEAN_RESIZING = 1e-3  # draws of transformers' mean_resizing: 3e-5 of the spread; bfloat16 rounding makes it up to 3e-4

UNTIED = (
    "input and output rows were saved as two tensors that no longer agree, as modules_to_save=[embed_tokens, lm_head] does; "
    "loading keeps one of them and loses the other"
)
RETIED = "the head that was stored apart is gone: saved from a tied config, so its own training is lost"

ALARMS = {
    "tokens without a row": "the tokenizer was extended and the embedding was not: resize_token_embeddings was not called, "
    "or a model was saved without it",
    "rows of the base lost": "the embedding was resized to too few rows, as resize_token_embeddings(len(tokenizer)) does with a "
    "tokenizer that lacks tokens of the base",
    "rows of the base's padding": "the new tokens took rows that the base keeps as padding, and no step reached them",
}


def likely_cause(measure: str, now: Numbers, before: Numbers, matrix: Mapping[str, Any]) -> str:
    """The first explanation that fits; `before` is empty without a baseline."""
    if measure.startswith(("text.", "reserved.", "drift.")):
        return _old_rows(now, before)
    for fits, text in NEW_ROWS:
        if fits(now, matrix):
            return text(now, matrix)
    if measure.startswith("rsa.") or matrix["verdict"]["label"] == "unstructured":
        return _agreement(now, before, matrix)
    if measure.startswith("new."):
        return "the new rows spread otherwise than before: another start, learning rate or number of steps, or part of them untrained"
    return "not known"


def _value(numbers: Numbers, name: str) -> float | None:
    return numbers[name].value if name in numbers else None


def _old_rows(now: Numbers, before: Numbers) -> str:
    norm, was = _value(now, "text.norm.mean"), _value(before, "text.norm.mean")
    if norm and was and norm < was:
        return (
            f"the vocabulary's rows shrank by {1 - norm / was:.2%}: weight decay reaches rows whose gradients were masked, "
            "or all rows were trained"
        )
    return "the vocabulary's rows were trained along, or this is another base model"


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


# In order: the first that fits is told.
NEW_ROWS: tuple[tuple[Callable, Callable[[Numbers, Mapping[str, Any]], str]], ...] = (
    (
        lambda now, matrix: (_value(now, "new.zero_rows") or 0) > 0,
        lambda now, matrix: (
            f"{_value(now, 'new.zero_rows'):.0f} new rows are zero: never initialised, or lost when the matrix was resized or saved"
        ),
    ),
    (
        _identical,
        lambda now, matrix: (
            "exact copies of one vector: a mean start and no update since (learning rate zero on the new rows, "
            "rows missing from the optimizer, or all differences rounded away)"
        ),
    ),
    (
        _below("new.dispersion_ratio", MEAN_RESIZING),
        lambda now, matrix: (
            "as close together as resize_token_embeddings(mean_resizing=True) draws them: the new rows were never trained"
            + (f", or {matrix['dtype']} rounding ate their differences" if _rounding(now, matrix) else "")
        ),
    ),
    (
        _rounding,
        lambda now, matrix: (
            f"the differences between rows are no larger than the rounding of {matrix['dtype']}: "
            "train and store the new rows in float32, or train them longer before saving"
        ),
    ),
    (
        _below("new.dispersion_ratio", 0.01),
        lambda now, matrix: (
            "the new rows hardly left a common start: learning rate zero or far too small on them, or too few steps"
        ),
    ),
    (
        lambda now, matrix: _repeats(now, matrix) > 0,
        lambda now, matrix: (
            f"{_repeats(now, matrix):,} rows repeat the vector of another: codes that no example uses, "
            "or rows that were left out of training"
        ),
    ),
)


def _agreement(now: Numbers, before: Numbers, matrix: Mapping[str, Any]) -> str:
    value = _value(now, "rsa.pearson")
    unrelated = value is None or value <= now["rsa.pearson"].noise
    if unrelated:
        return (
            "rows unrelated to what they stand for: a random start that was never trained (learning rate zero on the new rows), "
            "or a reference in another token order"
        )
    levels = {
        name.split(".")[1].removeprefix("level_"): (_value(before, name) or 0.0) - (number.value or 0.0)
        for name, number in now.items()
        if name.startswith("rsa.level_") and name.endswith(".pearson") and name in before
    }
    worst = max(levels, key=lambda level: levels[level], default=None)
    where = f" (level {worst} fell most)" if worst is not None else ""
    return (
        f"part of the codes was not trained, or training went past the point where structure is kept{where}; "
        "look at how often each code occurs, and at the learning rate"
    )
