"""Watching new token rows while they train: which rows, which measures, and when to raise an alarm. No trainer in here."""

import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gti_diag.analysis.thresholds import THRESHOLDS
from gti_diag.errors import InputError
from gti_diag.measures import geometry, spectra
from gti_diag.measures.tiles import evenly
from gti_diag.tokens.codes import code_like

from .agreement import Meanings, read_meanings
from .live_rows import input_embedding, readers, row_count

log = logging.getLogger(__name__)
MOST_ROWS = 1024  # of the new and of the old rows, each: bounds a measurement whatever the vocabulary
ACTIONS = ("ignore", "warn", "stop")


@dataclass(frozen=True)
class Sample:
    """Rows at one step: new ones, old ones, and the same old ones at the start."""

    new: Tensor
    old: Tensor
    start: Tensor


def _effective_rank(rows: Tensor, *, centred: bool) -> float:
    return spectra.effective_rank(spectra.singular_values(rows, centred=centred))


def _ratio(value: float, of: float) -> float:
    if of == 0:
        raise ValueError("the old rows are all zero or all alike: there is nothing to compare with")
    return value / of


# Every measure is a number of one sample; one that does not exist at a step (identical rows have no centred rank) is left out.
MEASURES: dict[str, Callable[[Sample], float]] = {
    "dispersion_ratio": lambda s: _ratio(geometry.dispersion(s.new), geometry.dispersion(s.old)),
    "median_dispersion_ratio": lambda s: _ratio(geometry.median_dispersion(s.new), geometry.median_dispersion(s.old)),
    "effective_rank": lambda s: _effective_rank(s.new, centred=False),
    "effective_rank_centred": lambda s: _effective_rank(s.new, centred=True),
    "mean_cosine": lambda s: geometry.mean_cosine(s.new),
    "distinct_share": lambda s: geometry.unique_rows(s.new) / len(s.new),
    "norm_mean": lambda s: float(geometry.norms(s.new).mean()),
    "old_row_drift": lambda s: _ratio(float((s.old - s.start).double().norm()), float(s.start.double().norm())),
}
DEFAULT = ("dispersion_ratio", "effective_rank_centred", "distinct_share", "norm_mean", "old_row_drift")


class Watch:
    """Looks at the new rows of one model in training.

    Args:
        new: ids of the new tokens, a regular expression on token strings, or None for added tokens that look like codes.
        measures: names from MEASURES.
        references: folder of the extended checkpoint, whose gti.json names item means or codebooks: agreement with each is
            looked at as well (`rsa`, `rsa_level_1`, `rsa_codebooks`, …), as `gti-train ground` shows it.
        every: steps between looks; there is one before the first step as well.
        on_collapse: ignore, warn or stop when the spread of the new rows is below the verdict's threshold (0.01 of the
            old rows'), from the first look after the start.
        on_drift: the same when any old row read differs from its start by one bit; `ignore` unless old rows are frozen.

    Raises:
        InputError: a measure or action that does not exist; as `read_meanings`.
    """

    def __init__(
        self,
        new: Sequence[int] | Tensor | str | None = None,
        *,
        measures: Sequence[str] = DEFAULT,
        references: str | Path | None = None,
        every: int = 100,
        on_collapse: str = "warn",
        on_drift: str = "ignore",
    ):
        unknown = [name for name in measures if name not in MEASURES]
        if unknown:
            raise InputError(f"no measure {unknown[0]!r}: choose from {', '.join(MEASURES)}")
        for name, action in (("on_collapse", on_collapse), ("on_drift", on_drift)):
            if action not in ACTIONS:
                raise InputError(f"{name}={action!r}: choose from {', '.join(ACTIONS)}")
        if every < 1:
            raise InputError(f"every={every}: measure every 1 step or more")
        self.new, self.measures, self.every = new, tuple(measures), every
        self.on_collapse, self.on_drift = on_collapse, on_drift
        self.known = None if references is None else read_meanings(references)

    def begin(self, model: nn.Module, tokenizer: Any = None) -> None:
        """Choose the rows: at most 1024 new and 1024 old ones, evenly spread.

        Raises:
            InputError: there are no new tokens, or no others; none of the new ones is in the gti.json of `references`.
        """
        count = row_count(input_embedding(model))
        new = new_ids(self.new, tokenizer, rows=count)
        self.ids = new[evenly(len(new), MOST_ROWS)]
        self.meant = self._meant()
        others = torch.ones(count, dtype=torch.bool)
        others[new] = False
        if hasattr(tokenizer, "__len__"):
            others[len(tokenizer) :] = False  # padding
        if not others.any():
            raise InputError("every token is new: there are no old rows to compare with")
        old = others.nonzero()[:, 0]
        self.old = old[evenly(len(old), MOST_ROWS)]
        self.start: dict[str, Tensor] = {}
        self.told: set[str] = set()

    def _meant(self) -> tuple[Tensor, Meanings] | None:
        """Places among the rows that are read of those with a meaning, and what they mean."""
        if self.known is None:
            return None
        meanings, ids = self.known
        at = {id: place for place, id in enumerate(ids)}
        shared = [(place, at[id]) for place, id in enumerate(self.ids.tolist()) if id in at]
        if not shared:
            raise InputError("no new token is among those of the gti.json in references: name the folder of this model")
        return torch.tensor([here for here, _ in shared]), meanings.of([there for _, there in shared])

    def look(self, model: nn.Module, *, step: int, speak: bool = True) -> tuple[dict[str, float], bool]:
        """The measures by name, and whether an alarm asks to stop. All processes must call it: rows may be sharded.

        Warnings are logged where `speak` holds; one that goes on is told once, unless it stops the run.
        """
        values: dict[str, float] = {}
        alarms: list[tuple[str, str, str]] = []
        for role, read in readers(model).items():
            rows = read(torch.cat([self.ids, self.old])).float().cpu()
            new, old = rows.split([len(self.ids), len(self.old)])
            first = role not in self.start
            sample = Sample(new, old, self.start.setdefault(role, old.clone()))
            prefix = "geometry/" if role == "input" else f"geometry/{role}/"
            made: dict[str, Callable[[], float]] = {name: partial(MEASURES[name], sample) for name in self.measures}
            if self.meant is not None:
                made |= self.meant[1].agreements(new[self.meant[0]])
            values |= {prefix + name: value for name, value in _values(made).items()}
            alarms += [] if first else self._alarms(sample, role)
        stop = any(action == "stop" for _, action, _ in alarms)
        for kind, _, text in alarms:
            if speak and (stop or kind not in self.told):
                log.warning("step %d: %s", step, text)
        self.told = {kind for kind, _, _ in alarms}  # what went away is told again when it comes back
        return values, stop

    def _alarms(self, sample: Sample, role: str) -> Iterable[tuple[str, str, str]]:
        limit = THRESHOLDS["dispersion_ratio"].value
        if self.on_collapse != "ignore" and len(sample.new) > 1:
            ratio = min(MEASURES[name](sample) for name in ("dispersion_ratio", "median_dispersion_ratio"))
            if ratio < limit:
                text = (
                    f"the new {role} rows are near enough one point: their spread is {ratio:.2g} of the old rows' "
                    f"(below {limit}); do they receive gradients, and is their learning rate large enough?"
                )
                yield f"collapse {role}", self.on_collapse, text
        if self.on_drift != "ignore" and not torch.equal(sample.old, sample.start):
            moved = int((sample.old != sample.start).any(1).sum())
            text = (
                f"{moved} of {len(sample.old)} old {role} rows moved though they should be frozen "
                f"(relative change {MEASURES['old_row_drift'](sample):.2g}); does weight decay or momentum reach them?"
            )
            yield f"drift {role}", self.on_drift, text


def _values(measures: Mapping[str, Callable[[], float]]) -> dict[str, float]:
    found = {}
    for name, measure in measures.items():
        try:
            found[name] = measure()
        except ValueError as error:  # undefined here, for example the centred rank of identical rows
            log.debug("%s: %s", name, error)
    return found


def new_ids(new: Sequence[int] | Tensor | str | None, tokenizer: Any, *, rows: int) -> Tensor:
    """Ids of the new tokens, ascending.

    Raises:
        InputError: there are none, or they are not rows of the matrix.
    """
    if new is None or isinstance(new, str):
        if not hasattr(tokenizer, "get_vocab"):
            raise InputError("give the ids of the new tokens (new=[…]): without a tokenizer they cannot be found")
        if new is None:
            added = {id: str(token) for id, token in tokenizer.added_tokens_decoder.items()}
            found = sorted(code_like(added))
            how = "no added token looks like a code such as <a_12>"
        else:
            found = sorted(id for token, id in tokenizer.get_vocab().items() if re.search(new, token))
            how = f"{new!r} matches no token"
        if not found:
            raise InputError(f"no new tokens to watch: {how}; give their ids (new=[…])")
    else:
        found = sorted({int(id) for id in new})
    if not found or not 0 <= found[0] <= found[-1] < rows:
        raise InputError(f"ids of new tokens must be rows of the embedding, 0..{rows - 1}, and at least one")
    return torch.tensor(found)
