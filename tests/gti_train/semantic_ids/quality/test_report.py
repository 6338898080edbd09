"""The report tells good codes from bad ones, level by level, and what it says can be drawn."""

import json

import numpy as np
import pytest
import torch

from gti_diag.errors import InputError
from gti_diag.render.sids import write
from gti_train.catalogue.records import Catalogue, Event, Item
from gti_train.semantic_ids.brought import fitted_to
from gti_train.semantic_ids.clustering import residual_kmeans
from gti_train.semantic_ids.files import save_sids
from gti_train.semantic_ids.making import make_ids
from gti_train.semantic_ids.quality.mappings import compare
from gti_train.semantic_ids.quality.report import Evidence, compared, quality
from gti_train.semantic_ids.quantiser import Quantiser, save_quantiser

ROWS = 400


@pytest.fixture(scope="module")
def vectors():
    """Eight far groups of five near ones."""
    generator = torch.Generator().manual_seed(0)
    far = torch.randn(8, 1, 1, 6, generator=generator) * 9
    near = torch.randn(8, 5, 1, 6, generator=generator) * 3
    return (far + near + torch.randn(8, 5, 10, 6, generator=generator) * 0.3).reshape(ROWS, 6).double()


@pytest.fixture(scope="module")
def catalogue():
    """Users who stay in one far group."""
    random = np.random.default_rng(0)
    items = tuple(Item(f"i{row}", f"Item <{row}>") for row in range(ROWS))
    histories = {
        f"u{user}": tuple(
            Event(f"i{row}", time) for time, row in enumerate(random.integers(0, 50, 8) + 50 * (user % 8))
        )
        for user in range(60)
    }
    return Catalogue(items, histories)


def judged(catalogue, vectors, codes):
    fitted = fitted_to(vectors, torch.as_tensor(codes))
    made = make_ids([item.id for item in catalogue.items], vectors, fitted)
    return quality(made.sids, Evidence(catalogue, vectors, made.quantiser))


def tree(random=None):
    far, near = np.repeat(np.arange(8), 50), np.tile(np.repeat(np.arange(5), 10), 8)
    return np.stack([far, near, np.tile(np.arange(10), 40)], axis=1)


def test_codes_of_the_tree_are_healthy(catalogue, vectors):
    report = judged(catalogue, vectors, tree())
    assert [level["verdict"]["label"] for level in report["levels"][:2]] == ["healthy", "healthy"]
    assert report["collisions"] == {"distinct": ROWS, "rate": 0.0, "largest": 1, "groups": []}
    one, two, three = report["prefixes"]
    assert one["coherence"]["value"] < two["coherence"]["value"] and three["coherence"] is None
    assert one["co_occurrence"]["value"] == 1.0 and one["co_occurrence"]["p_value"] == 0.01
    assert two["co_occurrence"]["p_value"] > 0.01  # users know groups, not what is in them
    assert 1 > one["error"] > two["error"]


@pytest.mark.parametrize(
    ("spoil", "level", "label", "text"),
    [
        (lambda codes: np.where([True, False, False], 0, codes), 0, "collapsed", "says almost nothing"),
        (lambda codes: np.stack([codes[:, 0] * 7, codes[:, 1], codes[:, 2]], 1), 0, "starved", "unused"),
        (lambda codes: np.stack([codes[:, 0], np.random.default_rng(2).integers(0, 5, ROWS), codes[:, 2]], 1), 1, "unstructured", "no more alike"),
        (lambda codes: np.stack([codes[:, 0], np.where(np.arange(ROWS) % 100 < 70, 0, codes[:, 2]), codes[:, 2]], 1), 1, "starved", "unevenly"),
    ],
)  # fmt: skip
def test_each_fault_is_found_on_its_level(catalogue, vectors, spoil, level, label, text):
    report = judged(catalogue, vectors, spoil(tree()))
    verdict = report["levels"][level]["verdict"]
    assert verdict["label"] == label, report["levels"][level]
    assert text in verdict["reasons"][0]["text"]
    assert verdict["reasons"][0].keys() == {"measure", "value", "expected", "text", "cause", "action", "verify"}
    assert report["verdict"]["label"] != "healthy"


def test_colliding_items_are_listed_with_titles(catalogue, vectors):
    codes = tree()
    codes[1] = codes[0]
    report = judged(catalogue, vectors, codes)
    assert report["verdict"]["label"] == "shadowed"
    (group,) = report["collisions"]["groups"]
    assert group["code"] == "<a_0><b_0><c_0>" and [item["title"] for item in group["items"]] == ["Item <0>", "Item <1>"]


def test_what_is_unknown_is_none_and_not_judged():
    catalogue = Catalogue(tuple(Item(f"i{row}", "") for row in range(ROWS)))
    made = make_ids(
        [item.id for item in catalogue.items],
        torch.zeros(ROWS, 1).double(),
        fitted_to(torch.zeros(ROWS, 1), torch.tensor(tree())),
    )
    report = quality(made.sids, Evidence(catalogue))
    first = report["prefixes"][0]
    assert first["coherence"] is first["co_occurrence"] is first["error"] is first["popularity"] is None
    json.dumps(report, allow_nan=False)
    with pytest.raises(ValueError, match="not those of the semantic IDs"):
        quality(made.sids, Evidence(Catalogue(catalogue.items[1:])))


def test_the_report_is_drawn_whole(catalogue, vectors, tmp_path):
    reports = [judged(catalogue, vectors, tree()), judged(catalogue, vectors, tree()[:, :2])]
    churn = compared(*(make_ids([i.id for i in catalogue.items], vectors, fitted_to(vectors, torch.tensor(codes))).sids for codes in (tree(), tree()[::-1].copy())))  # fmt: skip
    written = write(reports, tmp_path, churn=churn)
    assert {path.name for path in written} == {"quality.json", "quality.md", "quality.html", "sids-use.png", "sids-use.svg", "sids-depth.png", "sids-depth.svg"}  # fmt: skip
    page = (tmp_path / "quality.html").read_text()
    assert "Item &lt;0&gt;" in page and "<svg" in page and "Item <0>" not in page
    assert page.count("<table>") == 5
    document = json.loads((tmp_path / "quality.json").read_text())
    assert document["schema"] == 1 and len(document["reports"]) == 2 and document["churn"]["items"] == ROWS
    again = write(reports, tmp_path / "again", churn=churn)
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in written]


def test_mappings_of_different_origin_are_compared(catalogue, vectors, tmp_path):
    made = make_ids(
        [item.id for item in catalogue.items], vectors, residual_kmeans(vectors, sizes=(8, 8, 8)), unique="assign"
    )
    save_sids(made.sids, tmp_path / "ours")
    save_quantiser(made.quantiser, tmp_path / "ours")
    theirs = {f"i{row}": code for row, code in enumerate(tree().tolist()) if row >= 10} | {"unknown": [0, 0, 0]}
    (tmp_path / "X.index.json").write_text(json.dumps(theirs))
    reports, churn = compare(
        tmp_path / "ours", tmp_path / "X.index.json", catalogue, lambda texts: vectors[-len(texts) :]
    )
    assert [report["name"] for report in reports] == ["ours", "X.index.json"]
    assert [report["items"] for report in reports] == [ROWS, ROWS - 10] and churn["items"] == ROWS - 10
    assert reports[0]["prefixes"][0]["error"] is not None and reports[1]["events"] < reports[0]["events"]
    blind, _ = compare(
        tmp_path / "ours", tmp_path / "X.index.json", None, lambda texts: pytest.fail("nothing to encode")
    )
    assert blind[1]["items"] == ROWS - 9 and blind[0]["prefixes"][0]["coherence"] is None
    (tmp_path / "Y.index.json").write_text(json.dumps({"other": [1]}))
    with pytest.raises(InputError, match="no code for any item"):
        compare(tmp_path / "ours", tmp_path / "Y.index.json", catalogue, lambda texts: vectors)
    with pytest.raises(InputError, match="no item in common"):
        compare(tmp_path / "ours", tmp_path / "Y.index.json", None, lambda texts: vectors)


def test_a_quantiser_of_other_vectors_tells_no_error(catalogue, vectors, tmp_path):
    made = make_ids([item.id for item in catalogue.items], vectors, residual_kmeans(vectors, sizes=(8,)))
    save_sids(made.sids, tmp_path / "a")
    save_quantiser(Quantiser("x", (torch.zeros(8, 2),)), tmp_path / "a")
    reports, _ = compare(tmp_path / "a", tmp_path / "a", catalogue, lambda texts: vectors)
    assert reports[0]["prefixes"][0]["error"] is None
