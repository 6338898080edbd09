"""Simulated engagement: nobody clicked here. A position-based click model over real judgements and a known popularity.

    P(click at rank r) = e_r · a(grade, popularity)          e_r = r^(−decay), whether rank r is looked at
    P(apply | click)   = a(grade, popularity)                 the rarer action

Source: the position-based model, Craswell et al. 2008; propensities from randomised results, Joachims et al. 2017.
Everything that is learned from this is learned from a simulation, and is to be called so wherever it is shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gti_diag.errors import InputError

ACTIONS = ("click", "apply")


@dataclass(frozen=True)
class ClickModel:
    """attraction: of each grade, from 0 on; popularity: what one standard deviation of it adds to the log-odds."""

    attraction: tuple[float, ...] = (0.03, 0.1, 0.25, 0.5, 0.8)
    popularity: float = 0.7
    decay: float = 1.0

    def attracted(self, grades: Int[Tensor, "*n"], popularity: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """a(grade, popularity); popularity is standardised."""
        if int(grades.max()) >= len(self.attraction):
            raise InputError(f"grade {int(grades.max())} has no attraction: give the click model one for each grade")
        return (torch.tensor(self.attraction)[grades].logit() + self.popularity * popularity).sigmoid()

    def examined(self, ranks: int) -> Float[Tensor, " ranks"]:
        """e_r of the first `ranks` ranks."""
        return torch.arange(1, ranks + 1).float() ** -self.decay


@dataclass(frozen=True)
class Log:
    """Sessions: which documents were shown at which ranks, and what was done with each."""

    queries: Int[Tensor, " sessions"]
    shown: Int[Tensor, "sessions ranks"]
    done: Float[Tensor, "sessions ranks actions"]


def simulate(
    ranked: Int[Tensor, "queries ranks"],
    grades: Int[Tensor, "queries documents"],
    popularity: Float[Tensor, " documents"],
    model: ClickModel,
    *,
    sessions: int,
    seed: int,
    shuffle: bool = False,
) -> Log:
    """`sessions` of every query over its ranked documents (in random order, with `shuffle`)."""
    generator = torch.Generator().manual_seed(seed)
    queries = torch.arange(len(ranked)).repeat_interleave(sessions)
    shown = ranked[queries]
    if shuffle:
        shown = shown.gather(1, torch.rand(shown.shape, generator=generator).argsort(1))
    spread = standardised([popularity])[:, 0]
    attracted = model.attracted(grades[queries[:, None], shown], spread[shown])
    draws = torch.rand(2, *shown.shape, generator=generator)
    clicked = draws[0] < model.examined(shown.shape[1]) * attracted
    applied = clicked & (draws[1] < attracted)
    return Log(queries, shown, torch.stack([clicked, applied], -1).float())


def propensities(log: Log) -> Float[Tensor, " ranks"]:
    """How much more often each rank is looked at than the first, from a log in random order.

    Raises:
        InputError: the first rank was never clicked.
    """
    rates = log.done[..., 0].mean(0)
    if float(rates[0]) == 0:
        raise InputError(f"no click on the first rank in {len(log.queries)} simulated sessions: give more queries")
    return rates / rates[0]


@dataclass(frozen=True)
class EngagementTeacher:
    """P(action | looked at), by a logistic regression for each action on features of a pair."""

    models: tuple

    def __call__(self, features: Float[Tensor, "pairs features"]) -> Float[Tensor, "pairs actions"]:
        rows = features.double().numpy()
        return torch.stack([torch.from_numpy(model.predict_proba(rows)[:, 1]).float() for model in self.models], -1)


def engagement_teacher(
    log: Log, features: Float[Tensor, "queries documents features"], looked: Float[Tensor, " ranks"]
) -> EngagementTeacher:
    """Learn P(action | looked at) from a log: a document shown at rank r without the action is a no with weight e_r.

    A pair's yes weighs its actions, its no what it was looked at by expectation and not acted on (at least nothing).

    Raises:
        InputError: an action that nobody took.
    """
    from sklearn.linear_model import LogisticRegression

    count, documents, dim = features.shape
    pairs = (log.queries[:, None] * documents + log.shown).flatten()
    chosen, places = pairs.unique(return_inverse=True)
    exposure = torch.zeros(len(chosen)).index_add_(0, places, looked.expand(log.shown.shape).flatten())
    rows = features.reshape(count * documents, dim)[chosen].double().numpy()
    models = []
    for place, name in enumerate(ACTIONS):
        acted = torch.zeros(len(chosen)).index_add_(0, places, log.done[..., place].flatten())
        if not bool(acted.any()):
            raise InputError(f"nobody took the action {name!r}: simulate more sessions")
        weights = torch.cat([acted, (exposure - acted).clamp(min=0)]).double().numpy()
        labels = [1] * len(chosen) + [0] * len(chosen)
        models.append(LogisticRegression(max_iter=1000).fit([*rows, *rows], labels, sample_weight=weights))
    return EngagementTeacher(tuple(models))


def standardised(columns: Sequence[Tensor]) -> Tensor:
    """Features side by side, each with mean 0 and standard deviation 1; one that does not vary is 0."""
    return torch.stack([(c - c.mean()) / c.std() if c.min() < c.max() else torch.zeros_like(c) for c in columns], -1)
