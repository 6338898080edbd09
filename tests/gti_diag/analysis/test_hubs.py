"""Which new tokens are near everything: against counting by hand."""

import torch

from gti_diag.analysis.group_rows import hold
from gti_diag.analysis.hubs import hubs
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
    found = hubs(text, new)
    assert found["hubs"][0]["id"] == int(counts[60:].argmax()) + 60 and found["hubs"][0]["token"].startswith("<")
    assert {hub["id"]: hub["count"] for hub in found["hubs"]}.items() <= dict(enumerate(counts.tolist())).items()
    assert found["never"] == int((counts[60:] == 0).sum()) and found["queries"] == 30
    assert found["new_share"] == float(counts[60:].sum()) / 300


def test_copies_do_not_count_themselves_and_one_row_has_no_hubs():
    rows = torch.cat([torch.randn(20, 4, generator=torch.Generator().manual_seed(1)), torch.ones(15, 4)])
    found = hubs(held(rows, "text", range(20)), held(rows, "new", range(20, 35)))
    assert found["new_share"] == 1.0 and sum(hub["count"] for hub in found["hubs"]) <= 150
    assert hubs(held(rows, "text", range(20)), held(rows, "new", [20])) is None
