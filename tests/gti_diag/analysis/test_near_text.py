"""Nearest words, and which new tokens are near everything: against counting by hand."""

import torch

from gti_diag.analysis.group_rows import hold
from gti_diag.analysis.near_text import hubs, near_text, neighbours
from gti_diag.checkpoint import Matrix
from gti_diag.tokens.groups import Group


def held(rows, name, ids):
    matrix = Matrix("rows", tuple(rows.shape), "float32", lambda wanted: rows[wanted])
    group = Group(name, tuple(ids), tuple(f"<{id}>" for id in ids))
    return hold(matrix, group, source="x", room=1e9, device=torch.device("cpu"), generator=torch.Generator())


def test_occurrences_are_those_of_all_pairs():
    rows = torch.randn(90, 6, generator=torch.Generator().manual_seed(0))
    rows[70] = rows[60:].mean(0)  # near every new row
    text, new = held(rows, "text", range(60)), held(rows, "new", range(60, 90))
    units = rows / rows.norm(dim=1, keepdim=True)
    cosines = units[60:] @ units.T
    cosines[torch.arange(30), torch.arange(60, 90)] = -2
    counts = torch.bincount(cosines.topk(10, dim=1).indices.flatten(), minlength=90)
    found = hubs(near_text(text, new))
    assert found["hubs"][0]["id"] == int(counts[60:].argmax()) + 60 and found["hubs"][0]["token"].startswith("<")
    assert {hub["id"]: hub["count"] for hub in found["hubs"]}.items() <= dict(enumerate(counts.tolist())).items()
    assert found["never"] == int((counts[60:] == 0).sum()) and found["queries"] == 30
    assert found["new_share"] == float(counts[60:].sum()) / 300


def test_copies_do_not_count_themselves_and_one_row_has_no_hubs():
    rows = torch.cat([torch.randn(20, 4, generator=torch.Generator().manual_seed(1)), torch.ones(15, 4)])
    found = hubs(near_text(held(rows, "text", range(20)), held(rows, "new", range(20, 35))))
    assert found["new_share"] == 1.0 and sum(hub["count"] for hub in found["hubs"]) <= 150
    assert hubs(near_text(held(rows, "text", range(20)), held(rows, "new", [20]))) is None


def test_neighbours_of_some_tokens_are_found_in_the_search_of_more(monkeypatch):
    """The tokens listed are some of those searched."""
    monkeypatch.setattr("gti_diag.analysis.near_text.NEIGHBOUR_TOKENS", 7)
    monkeypatch.setattr("gti_diag.analysis.near_text.QUERIES", 11)
    rows = torch.randn(80, 6, generator=torch.Generator().manual_seed(0))
    rows[77] = 0
    near = near_text(held(rows, "text", range(50)), held(rows, "new", range(50, 80)))
    found = neighbours(near)
    assert len(found) == 7 and hubs(near)["queries"] == 11
    assert {entry["id"] for entry in found} < {50 + place for place in near.places.tolist()}
    units = rows / rows.norm(dim=1, keepdim=True)
    for entry in found:
        nearest = (units[:50] @ units[entry["id"]]).topk(5)
        assert [word["id"] for word in entry["nearest"]] == nearest.indices.tolist()
        assert [word["cosine"] for word in entry["nearest"]] == [round(c, 4) for c in nearest.values.tolist()]
    blank = near_text(held(torch.zeros(4, 6), "text", range(4)), held(rows, "new", range(50, 80)))
    assert neighbours(blank) == [] and hubs(blank)["new_share"] == 1.0
