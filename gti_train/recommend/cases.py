"""Whom to ask what: each user's history up to the event to be predicted, and the users that belong together."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from gti_diag.errors import InputError
from gti_train.catalogue.splits import Split

PARTS = ("test", "valid")


@dataclass(frozen=True)
class Cases:
    """Users to judge by; items are numbers. `training` are the training events of all users, judged or not.

    relevant: for each user the items to be found, with grades (1 where there are none). left_out: users of whom nothing
    can be asked, for want of a history.
    """

    users: tuple[str, ...]
    histories: list[list[int]]
    relevant: list[dict[int, float]]
    training: list[list[int]]
    left_out: int
    items: int

    def first(self, count: int | None) -> "Cases":
        """The first so many users (None: all) beside the same training."""
        users, histories, relevant = self.users[:count], self.histories[:count], self.relevant[:count]
        return replace(self, users=users, histories=histories, relevant=relevant)

    @property
    def popular(self) -> Int[Tensor, " items"]:
        """How many training events each item has."""
        chosen = torch.tensor([item for history in self.training for item in history], dtype=torch.long)
        return torch.bincount(chosen, minlength=self.items)


def cases(
    split: Split,
    rows: Mapping[str, int],
    *,
    part: str = "test",
    grades: Mapping[str, Mapping[int, float]] | None = None,
) -> Cases:
    """The cases of a part: the first event of each user in `test` (or `valid`), and what came before it.

    rows: the number of each item. With `grades`, a user's relevant items are those graded above 0 instead; users without
    one are left out.

    Raises:
        InputError: an unknown part, or nobody to ask.
    """
    if part not in PARTS:
        raise InputError(f"part {part!r} is unknown: use one of {', '.join(PARTS)}")
    parts = {"train": split.train, "valid": split.valid, "test": split.test}
    met = {name: {user: [rows[e.item_id] for e in events] for user, events in of.items()} for name, of in parts.items()}
    everyone = list(dict.fromkeys(user for of in met.values() for user in of))
    users, before, relevant = [], [], []
    for user in met[part]:
        history = met["train"].get(user, []) + (met["valid"].get(user, []) if part == "test" else [])
        wanted = {met[part][user][0]: 1.0}
        if grades is not None:
            wanted = {item: grade for item, grade in grades.get(user, {}).items() if grade > 0}
        if history and wanted:
            users.append(user)
            before.append(history)
            relevant.append(wanted)
    if not users:
        raise InputError(f"none of {len(everyone)} users has a history and an event to predict: give longer histories")
    training = list(met["train"].values())
    return Cases(tuple(users), before, relevant, training, len(everyone) - len(users), len(rows))


def slices(asked: Cases) -> dict[str, Bool[Tensor, " users"]]:
    """Users by what they look for and how much is known of them.

    cold: nobody chose the target in training. popularity: the other targets by thirds of the items that were chosen, most
    chosen first. history: thirds of the users, fewest events first. A user's target is the best graded item.
    """
    popular = asked.popular
    targets = torch.tensor([max(row, key=lambda item: (row[item], -item)) for row in asked.relevant])
    warm = popular.argsort(descending=True, stable=True)[: int((popular > 0).sum())]
    place = torch.full((asked.items,), len(warm)).scatter(0, warm, torch.arange(len(warm)))
    third = place[targets] * 3 // max(1, len(warm))
    lengths = torch.tensor([len(history) for history in asked.histories])
    lower, upper = torch.quantile(lengths.double(), torch.tensor([1 / 3, 2 / 3], dtype=torch.float64)).tolist()
    cold = popular[targets] == 0
    return {
        "cold": cold,
        **{f"popularity_{name}": ~cold & (third == n) for n, name in enumerate(("head", "middle", "tail"))},
        "history_short": lengths <= lower,
        "history_middle": (lengths > lower) & (lengths <= upper),
        "history_long": lengths > upper,
    }
