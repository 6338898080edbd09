"""Agreement of rows with what their tokens mean, while they train: the forms of RSA that a verdict reads."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from gti_diag.analysis.reference import SAVED, load_reference
from gti_diag.checkpoint.places import LocalFolder
from gti_diag.checkpoint.sidecar import NAME, read_sidecar
from gti_diag.errors import InputError
from gti_diag.measures.partial import agreement
from gti_diag.measures.tiles import evenly

MOST_TOKENS = 1024  # evenly chosen, of which agreement is taken: its cost is their square


@dataclass(frozen=True)
class Meanings:
    """What tokens should resemble: vectors by reference (tokens × k each, zeros: none is known), how many items carry each, levels."""

    vectors: Mapping[str, Tensor]
    counts: Sequence[int] | None = None
    levels: Sequence[int] | None = None

    def agreements(self, rows: Tensor) -> dict[str, Callable[[], float]]:
        """RSA about level means, counts held constant where known: `rsa` and `rsa_level_1`, … with the reference to judge by
        (item means where they are), `rsa_codebooks`, … with another. Each may raise ValueError: undefined for these rows."""
        found: dict[str, Callable[[], float]] = {}
        for place, name in enumerate(sorted(self.vectors, key=SAVED.index)):
            found |= self._with(rows, self.vectors[name], f"rsa_{name}" if place else "rsa")
        return found

    def _with(self, rows: Tensor, vectors: Tensor, name: str) -> dict[str, Callable[[], float]]:
        known = (vectors != 0).any(1).nonzero()[:, 0]
        known = known[evenly(len(known), MOST_TOKENS)]
        carried = None if self.counts is None else torch.tensor(self.counts)
        levels = torch.tensor(self.levels or [1] * len(rows))

        def value(places: Tensor) -> float:
            held = None if carried is None else carried[places]
            return agreement(rows[places], vectors[places], counts=held, levels=levels[places]).value

        found: dict[str, Callable[[], float]] = {name: partial(value, known)}
        for level in levels.unique().tolist() if self.levels else ():
            found[f"{name}_level_{level}"] = partial(value, known[levels[known] == level])
        return found

    def of(self, places: Sequence[int]) -> "Meanings":
        """The same of some of the tokens, in this order."""
        pick = lambda values: None if values is None else [values[place] for place in places]  # noqa: E731
        vectors = {name: matrix[list(places)] for name, matrix in self.vectors.items()}
        return Meanings(vectors, pick(self.counts), pick(self.levels))


def read_meanings(folder: str | Path) -> tuple[Meanings, list[int]]:
    """What gti.json in `folder` names (item means, codebooks), and the ids of its tokens.

    Raises:
        InputError: it is not there or has another form, names no reference, or one cannot be read.
    """
    sidecar = read_sidecar(LocalFolder(str(folder)), vocabulary=None)
    files = {name: Path(folder) / sidecar[name] for name in SAVED if sidecar.get(name)}
    if not files:
        raise InputError(f"{Path(folder) / NAME} names no item_means and no codebooks: extend by semantic IDs")
    vectors = {name: load_reference(file, sidecar["new_tokens"]) for name, file in files.items()}
    return Meanings(vectors, sidecar.get("counts"), sidecar.get("levels")), list(sidecar["ids"])
