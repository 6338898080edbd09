"""What lies near the new tokens: their nearest words, and which new tokens are near everything or near nothing. One search for both."""

from dataclasses import dataclass

import torch
from torch import Tensor

from gti_diag.measures import relation
from gti_diag.measures.tiles import evenly

from .group_rows import GroupRows

NEIGHBOURS = 5
QUERIES = 2048  # new tokens, evenly chosen, whose nearest rows are looked up,
NEIGHBOUR_TOKENS = 1024  # … and the neighbours of at most this many of them listed
NEAREST = 10
LISTED = 10


@dataclass(frozen=True)
class NearText:
    """The text rows nearest to some of the new rows, `places` among those held, in ascending order.

    `found` is None where no row of one group has a direction.
    """

    text: GroupRows
    new: GroupRows
    places: Tensor
    found: relation.Nearest | None


def near_text(text: GroupRows, new: GroupRows) -> NearText:
    """Search all text rows (read anew where they are not held) for the 11 nearest by cosine of some new rows, evenly chosen."""
    places = new.nonzero(evenly(len(new.ids), QUERIES))
    k = min(NEAREST + 1, int(text.directed.sum()))
    found = relation.nearest(_rows(new, places), text, k=k) if k and len(places) else None
    return NearText(text, new, places, found)


def neighbours(near: NearText) -> list[dict]:
    """The nearest text tokens of up to 1,024 new tokens, evenly chosen; zero rows have none."""
    if near.found is None:
        return []
    new, index, cosine, entries = near.new, near.found.index.cpu(), near.found.cosine.cpu(), []
    for row in evenly(len(near.places), NEIGHBOUR_TOKENS).tolist():
        place, places = int(near.places[row]), index[row, :NEIGHBOURS]
        names = [near.text.all_tokens[at] for at in places.tolist()]
        listed = zip(names, near.text.all_ids[places].tolist(), cosine[row].tolist(), strict=False)
        entries.append(
            {
                "token": new.tokens[place],
                "id": int(new.ids[place]),
                "level": None if new.levels is None else int(new.levels[place]),
                "nearest": [{"token": t, "id": i, "cosine": round(c, 4)} for t, i, c in listed],
            }
        )
    return entries


def hubs(near: NearText) -> dict | None:
    """Of the 10 rows nearest to each new token (cosine, among text and new rows, itself left out): how many are new, which new
    tokens are there most often (a beam that leaves the right code ends in them), and how many never are.

    None for fewer than two new rows with a direction. Source: Radovanović et al., Hubs in space (JMLR 2010), N_k and anti-hubs.
    """
    new, first = near.new, near.text.count
    picked, alive = near.places, int(new.directed.sum())
    k = min(NEAREST, alive - 1)
    if k < 1:
        return None
    among = relation.nearest(_rows(new, picked), new.rows, k=k + 1)
    cosine, index = among.cosine.cpu(), among.index.cpu() + first
    if near.found is not None:
        cosine = torch.cat([near.found.cosine.cpu(), cosine], 1)
        index = torch.cat([near.found.index.cpu(), index], 1)
    found = index.gather(1, cosine.topk(k + 1, dim=1).indices)
    others = found != (picked + first)[:, None]
    others[:, -1] &= ~others.all(1)  # a copy may have taken the place of the row itself
    chosen = found[others]
    ours = chosen[chosen >= first] - first
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


def _rows(new: GroupRows, places: Tensor) -> Tensor:
    return new.rows[places.to(new.rows.device)]
