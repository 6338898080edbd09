"""What a study found, read from its results alone: arms and baselines user by user, their geometry, their curves."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gti_diag.errors import InputError
from gti_train.recommend import significance

from .manifest import MANIFEST

Users = dict[tuple[int, str], dict[str, float]]  # (seed, user) -> metrics


@dataclass(frozen=True)
class Results:
    """Everything under a folder of results. `judged`, `curves` and `tuned` go by arm and seed; `starts` by start and seed.

    shared: the users are the same people under every seed.
    """

    study: Mapping[str, Any]
    judged: dict[str, dict[int, dict[str, Any]]]
    curves: dict[str, dict[int, dict[str, Any]]]
    tuned: dict[str, dict[int, dict[str, Any]]]
    starts: dict[str, dict[int, dict[str, Any]]]
    simple: dict[str, Users]

    @property
    def shared(self) -> bool:
        return self.study["data"]["source"] is not None

    def users(self, name: str) -> Users:
        """What each user contributed to an arm or a baseline."""
        if name in self.simple:
            return self.simple[name]
        return {
            key: metrics
            for seed, judged in self.judged[name].items()
            for key, metrics in _by_user(seed, judged["per_user"]["user_ids"], judged["per_user"])
        }


def read_results(folder: Path) -> Results:
    """The results of a run, finished or not.

    Raises:
        InputError: no results there.
    """
    study = read_manifest(folder)["study"]
    found = Results(study, {}, {}, {}, {}, {})
    for seed in study["seeds"]:  # an arm that does not run under it has no file there
        place = folder / f"seed-{seed}"
        judged = any((place / "arms" / arm / "eval.json").is_file() for arm in study["arms"])
        if judged and (simple := _read(place / "baselines.json")):  # else its users are those of no arm
            for name, values in simple["baselines"].items():
                found.simple.setdefault(name, {}).update(_by_user(seed, simple["user_ids"], values))
        for arm in study["arms"]:
            for part, name in ((found.judged, "eval"), (found.curves, "sft"), (found.tuned, "geometry")):
                if document := _read(place / "arms" / arm / f"{name}.json"):
                    part.setdefault(arm, {})[seed] = document
        for file in sorted(place.glob("*/geometry.json")):
            found.starts.setdefault(file.parent.name, {})[seed] = json.loads(file.read_text(encoding="utf-8"))
    return found


def read_manifest(folder: Path) -> dict[str, Any]:
    """What the results in `folder` were made with.

    Raises:
        InputError: no results there.
    """
    manifest = _read(folder / MANIFEST)
    if manifest is None:
        raise InputError(f"{folder}: no results of a study; name the folder `results` that `gti-train run` wrote")
    return manifest


@dataclass(frozen=True)
class Row:
    """One arm or baseline: means over users with their intervals, and the difference from the study's baseline arm.

    seeds: how many stand behind it. against: None for the baseline arm itself, and where no user is in both.
    """

    name: str
    seeds: int
    users: int
    values: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    against: dict[str, "Apart"] | None = None


@dataclass(frozen=True)
class Apart:
    """A difference with its paired interval over users, and p, corrected for the number of arms and baselines."""

    value: float
    interval: tuple[float, float]
    p: float


def table(results: Results, *, seed: int = 0) -> list[Row]:
    """A row for each arm that was judged, then for each baseline; intervals are over users, who are one person under every
    seed where the source is the same (their seeds are averaged first)."""
    arms = [arm for arm in results.study["arms"] if arm in results.judged]
    names, base = [*arms, *results.simple], results.study["baseline"]
    metrics = [f"{name}@{k}" for name in ("recall", "ndcg") for k in results.study["evaluation"]["ks"]]
    users = {name: results.users(name) for name in names}
    compared = {
        name: significance.difference(*_paired(users[name], users[base], metrics, results.shared), seed=seed)
        for name in names
        if name != base and base in users and set(users[name]) & set(users[base])
    }
    corrected = significance.holm({name: found.p for name, found in compared.items()})
    rows = []
    for name in names:
        values = _matrix(users[name], list(users[name]), metrics, results.shared)
        bounds = significance.interval(values, seed=seed).tolist()
        against = compared.get(name)
        rows.append(
            Row(
                name,
                len({number for number, _ in users[name]}),
                len(values),
                dict(zip(metrics, values.mean(0).tolist(), strict=True)),
                {metric: (low, high) for metric, (low, high) in zip(metrics, bounds, strict=True)},
                against
                and {
                    metric: Apart(
                        float(against.mean[i]), tuple(against.interval[i].tolist()), float(corrected[name][i])
                    )  # type: ignore[arg-type]
                    for i, metric in enumerate(metrics)
                },
            )
        )
    return rows


def _paired(one: Users, other: Users, metrics: Sequence[str], shared: bool) -> tuple[Tensor, Tensor]:
    both = [key for key in one if key in other]
    return _matrix(one, both, metrics, shared), _matrix(other, both, metrics, shared)


def _matrix(
    users: Users, keys: Sequence[tuple[int, str]], metrics: Sequence[str], shared: bool
) -> Float[Tensor, "users metrics"]:
    """A row for each person, the mean over seeds."""
    people: dict[Any, list[list[float]]] = {}
    for key in keys:
        people.setdefault(key[1] if shared else key, []).append([users[key][metric] for metric in metrics])
    return torch.stack([torch.tensor(rows, dtype=torch.float64).mean(0) for rows in people.values()])


def _by_user(
    seed: int, ids: Sequence[str], values: Mapping[str, Sequence[float]]
) -> list[tuple[tuple[int, str], dict]]:
    return [((seed, user), {name: of[row] for name, of in values.items()}) for row, user in enumerate(ids)]


def _read(file: Path) -> dict[str, Any] | None:
    """A document, None where there is none yet.

    Raises:
        InputError: it is damaged.
    """
    if not file.is_file():
        return None
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file}: not JSON ({error}); remove it and run the study again") from error
