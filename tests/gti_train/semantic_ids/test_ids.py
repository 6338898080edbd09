"""Semantic IDs: tokens and references in one order, what a code means, and files."""

import json
from dataclasses import replace

import pytest
import torch

from gti_diag.errors import InputError
from gti_train.catalogue.records import Catalogue, Item
from gti_train.semantic_ids.clustering import residual_kmeans
from gti_train.semantic_ids.files import load_sids, save_sids
from gti_train.semantic_ids.ids import SemanticIds, described, mean_of_items
from gti_train.semantic_ids.making import make_ids

from .cases import nested


@pytest.fixture
def vectors():
    return nested()


@pytest.fixture
def sids(vectors):
    fitted = residual_kmeans(vectors, sizes=(4, 6, 5), seed=1)
    return replace(make_ids([f"i{n}" for n in range(48)], vectors, fitted, seed=1).sids, item_means=None)


def test_tokens_levels_and_reference_share_one_order(sids):
    assert sids.tokens[:5] == ("<a_0>", "<a_1>", "<a_2>", "<a_3>", "<b_0>")
    assert sids.levels == (1,) * 4 + (2,) * 6 + (3,) * 5
    assert sids.reference.shape == (15, 8)
    row = sids.tokens.index(sids.of("i7")[1])
    assert torch.equal(sids.reference[row], sids.codebooks[1][sids.codes[7, 1]])
    with pytest.raises(ValueError, match="'elsewhere' has no semantic ID"):
        sids.of("elsewhere")


def test_codes_are_described_by_their_items():
    catalogue = Catalogue((Item("p", "Lamp"), Item("q", "Desk"), Item("r", "Shade")))
    sids = SemanticIds(("p", "q", "r"), torch.tensor([[0], [1], [0]]), (torch.zeros(3, 1),))
    assert described(sids, catalogue) == {"<a_0>": ["Lamp", "Shade"], "<a_1>": ["Desk"], "<a_2>": []}


def test_a_code_stands_for_the_mean_of_its_items(sids, vectors):
    means = mean_of_items(sids, vectors)
    row = 0
    for level, book in enumerate(sids.codebooks):
        for code in range(len(book)):
            carried = [
                vector
                for vector, codes in zip(vectors.double(), sids.codes.tolist(), strict=True)
                if codes[level] == code
            ]
            assert int(sids.counts[row]) == len(carried)
            assert torch.allclose(means[row], sum(carried) / len(carried))
            row += 1
    assert torch.allclose(means[:4], sids.codebooks[0].double(), atol=1e-4)  # on level 1 both are the same
    assert row == len(means)


def test_a_code_without_items_stands_for_nothing():
    sids = SemanticIds(("p", "q"), torch.tensor([[2], [2]]), (torch.ones(3, 1),))
    assert sids.counts.tolist() == [0, 0, 2]
    assert mean_of_items(sids, torch.tensor([[1.0, 0.0], [0.0, 1.0]])).tolist() == [[0, 0], [0, 0], [0.5, 0.5]]
    with pytest.raises(ValueError, match="1 vectors for 2 items"):
        mean_of_items(sids, torch.ones(1, 2))


def test_files_round_trip_and_are_deterministic(tmp_path, sids, vectors):
    assert list(sids.references) == ["codebooks"]
    sids = replace(sids, item_means=mean_of_items(sids, vectors))
    file = save_sids(sids, tmp_path / "one")
    save_sids(sids, tmp_path / "two")
    for name in ("sids.json", "codebooks.safetensors", "item_means.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    for place in (file, tmp_path / "one"):
        back = load_sids(place)
        assert back.item_ids == sids.item_ids
        assert back.seed == sids.seed
        assert torch.equal(back.codes, sids.codes)
        assert torch.equal(back.reference, sids.reference)
        assert torch.equal(back.item_means, sids.item_means.float())
    save_sids(replace(sids, item_means=None), tmp_path / "one")
    assert load_sids(file).item_means is None


def test_damaged_files_are_refused(tmp_path, sids):
    with pytest.raises(InputError, match="no such file"):
        load_sids(tmp_path)
    file = save_sids(sids, tmp_path)
    record = json.loads(file.read_text())
    for change, message in (
        ({"items": {"i0": [0, 0]}}, "item 'i0' has 2 codes, there are 3 levels"),
        ({"items": {"i0": [0, 0, 5]}}, "outside its level"),
        ({"items": {}}, "items is empty"),
        ({"items": {"i0": [0, 0, 0.5]}}, "is 0.5, it should be a whole number"),
        ({"items": {"i0": [0, 0, -1]}}, "is -1, it should be greater"),
        ({"seed": float("nan")}, "NaN is not a number"),
        ({"codes": [4, 6, 6]}, "15 rows, but sids.json lists 16"),
    ):
        file.write_text(json.dumps(record | change))
        with pytest.raises(InputError, match=message):
            load_sids(tmp_path)
    file.write_text("[]")
    with pytest.raises(InputError, match="it should be an object"):
        load_sids(tmp_path)
    file.write_text(json.dumps(record))
    (tmp_path / "codebooks.safetensors").write_bytes(b"short")
    with pytest.raises(InputError, match="no readable codebooks"):
        load_sids(tmp_path)
    (tmp_path / "codebooks.safetensors").unlink()
    with pytest.raises(InputError, match=r"codebooks\.safetensors: no such file"):
        load_sids(tmp_path)
