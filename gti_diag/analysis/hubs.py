"""Which new tokens are near everything and which near nothing: k-occurrence among all rows, by name."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from gti_diag.measures import relation
from gti_diag.measures.tiles import evenly

from .group_rows import GroupRows

QUERIES = 2048  # new tokens, evenly chosen, whose nearest rows are looked up
NEAREST = 10
LISTED = 10


@dataclass(frozen=True)
class _All:
    """The text rows, then the held new rows; walked as often as one likes."""

    text: GroupRows
    new: GroupRows

    def __iter__(self) -> Iterator[Tensor]:
        yield from self.text
        yield self.new.rows


def hubs(text: GroupRows, new: GroupRows) -> dict | None:
    """Of the 10 rows nearest to each new token (cosine, among text and new rows, itself left out): how many are new, which new
    tokens are there most often (a beam that leaves the right code ends in them), and how many never are.

    None for fewer than two new rows with a direction. Source: Radovanović et al., Hubs in space (JMLR 2010), N_k and anti-hubs.
    """
    picked = new.nonzero(evenly(len(new.ids), QUERIES))
    alive = len(new.nonzero(torch.arange(len(new.ids))))
    k = min(NEAREST, alive - 1)
    if k < 1:
        return None
    found = relation.nearest(new.rows[picked.to(new.rows.device)], _All(text, new), k=k + 1).index.cpu()
    own = (picked + text.count)[:, None]
    others = found != own
    others[:, -1] &= ~others.all(1)  # a copy may have taken the place of the row itself
    chosen = found[others]
    ours = chosen[chosen >= text.count] - text.count
    counts = torch.bincount(ours, minlength=len(new.ids))
    most = counts.argsort(descending=True, stable=True)[:LISTED]
    return {
        "k": k,
        "queries": len(picked),
        "new_share": len(ours) / len(chosen),
        "mean": len(ours) / len(new.ids),
        "hubs": [
            {"token": new.tokens[place], "id": int(new.ids[place]), "count": int(counts[place])}
            for place in most.tolist()
            if counts[place]
        ],
        "never": int((counts == 0).sum()),
    }
