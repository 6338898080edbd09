"""Residual k-means finds nested clusters, codes add up to the vectors, and files round-trip."""

import json
from dataclasses import replace

import pytest
import torch

from gti_diag.errors import InputError
from gti_train.catalogue.records import Catalogue, Item
from gti_train.semantic_ids.files import load_sids, save_sids
from gti_train.semantic_ids.ids import SemanticIds, described, mean_of_items
from gti_train.semantic_ids.quantisers import residual_kmeans
from gti_train.semantic_ids.uniqueness import collisions, separate
from gti_train.semantic_ids.vectors import text_vectors


def nested(generator):
    """48 vectors: 4 far groups of 3 near groups of 4 points each."""
    far = torch.randn(4, 1, 1, 8, generator=generator) * 100
    near = torch.randn(4, 3, 1, 8, generator=generator) * 10
    points = torch.randn(4, 3, 4, 8, generator=generator) * 0.1
    return (far + near + points).reshape(48, 8)


@pytest.fixture
def vectors():
    return nested(torch.Generator().manual_seed(0))


@pytest.fixture
def sids(vectors):
    return residual_kmeans(vectors, item_ids=[f"i{n}" for n in range(48)], sizes=(4, 6, 5), seed=1)


def test_first_level_is_the_coarse_grouping(sids):
    groups = sids.codes[:, 0].reshape(4, 12)
    assert (groups == groups[:, :1]).all()
    assert len(groups[:, 0].unique()) == 4


def test_each_code_is_the_nearest_centroid_of_the_residual(sids, vectors):
    residual = vectors.double()
    for level, book in enumerate(sids.codebooks):
        distance = torch.cdist(residual, book.double())
        assert torch.equal(distance.argmin(dim=1), sids.codes[:, level])
        before = residual.square().sum()
        residual = residual - book.double()[sids.codes[:, level]]
        assert residual.square().sum() < before


def test_tokens_levels_and_reference_share_one_order(sids):
    assert sids.tokens[:5] == ("<a_0>", "<a_1>", "<a_2>", "<a_3>", "<b_0>")
    assert sids.levels == (1,) * 4 + (2,) * 6 + (3,) * 5
    assert sids.reference.shape == (15, 8)
    row = sids.tokens.index(sids.of("i7")[1])
    assert torch.equal(sids.reference[row], sids.codebooks[1][sids.codes[7, 1]])
    with pytest.raises(ValueError, match="'elsewhere' has no semantic ID"):
        sids.of("elsewhere")


def test_collisions_are_counted_and_separated_by_the_last_level_only():
    codes = torch.tensor([[0, 0], [0, 0], [0, 0], [1, 0]])
    books = (torch.zeros(2, 1), torch.tensor([[0.0], [5.0], [9.0]]))
    sids = SemanticIds(("p", "q", "r", "s"), codes, books)
    found = collisions(sids)
    assert (found.items, found.distinct, found.largest, found.rate) == (4, 2, 3, 0.5)
    apart = separate(sids, torch.tensor([[8.0], [0.5], [4.0], [0.0]]))
    assert apart.codes.tolist() == [[0, 2], [0, 0], [0, 1], [1, 0]]
    assert collisions(apart).rate == 0
    with pytest.raises(ValueError, match="3 items share <a_0> but the last level has 2"):
        separate(SemanticIds(sids.item_ids, codes, (books[0], books[1][:2])), torch.zeros(4, 1))


def test_same_seed_same_codes(vectors, sids):
    again = residual_kmeans(vectors, item_ids=sids.item_ids, sizes=(4, 6, 5), seed=1)
    assert torch.equal(again.codes, sids.codes)
    assert torch.equal(again.reference, sids.reference)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"item_ids": ["one"]}, "1 item ids for 48"),
        ({"sizes": ()}, "1…26 levels"),
        ({"sizes": (4, 1)}, "2 codes or more"),
        ({"sizes": (60,)}, "48 distinct vectors for 60 codes"),
    ],
)
def test_impossible_requests_are_refused(vectors, change, message):
    arguments = {"item_ids": [f"i{n}" for n in range(48)], "sizes": (4,)} | change
    with pytest.raises(ValueError, match=message):
        residual_kmeans(vectors, **arguments)


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
        ({"items": {"i0": [0, 0]}}, "not semantic IDs"),
        ({"items": {"i0": [0, 0, 5]}}, "outside its level"),
        ({"items": {}}, "no items"),
        ({"codes": [4, 6, 6]}, "15 rows, but sids.json lists 16"),
    ):
        file.write_text(json.dumps(record | change))
        with pytest.raises(InputError, match=message):
            load_sids(tmp_path)
    file.write_text("[]")
    with pytest.raises(InputError, match="a JSON list"):
        load_sids(tmp_path)
    file.write_text(json.dumps(record))
    (tmp_path / "codebooks.safetensors").write_bytes(b"short")
    with pytest.raises(InputError, match="no readable codebooks"):
        load_sids(tmp_path)
    (tmp_path / "codebooks.safetensors").unlink()
    with pytest.raises(InputError, match=r"codebooks\.safetensors: no such file"):
        load_sids(tmp_path)


def test_text_vectors_put_like_texts_together():
    texts = ["red wool scarf", "blue wool scarf", "cast iron frying pan", "steel frying pan"]
    vectors = text_vectors(texts, dimensions=3)
    assert torch.allclose(vectors.norm(dim=1), torch.ones(4, dtype=torch.double))
    nearest = (torch.cdist(vectors, vectors) + torch.eye(4) * 9).argmin(dim=1)
    assert nearest.tolist() == [1, 0, 3, 2]
    assert torch.equal(vectors, text_vectors(texts, dimensions=3))


def test_texts_without_common_words_are_refused():
    with pytest.raises(InputError, match="at least 2"):
        text_vectors(["alone"])
    with pytest.raises(InputError, match="usable word"):
        text_vectors(["the", "of", "and"])
    with pytest.raises(InputError, match=r"text 60 .* shares no word"):
        text_vectors(["green tea", "black tea", "tea pot"] * 20 + ["zzyzx"], dimensions=2)


def test_sentence_encoder_is_any_transformers_directory(tmp_path):
    from transformers import BertConfig, BertModel, BertTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "wool", "scarf", "iron", "pan"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(vocab_file=str(tmp_path / "vocab.txt"), model_max_length=16).save_pretrained(tmp_path)
    torch.manual_seed(0)
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    BertModel(BertConfig(vocab_size=len(words), **shape)).save_pretrained(tmp_path)
    vectors = text_vectors(["red wool scarf", "iron pan", "red wool scarf"], encoder=str(tmp_path))
    assert vectors.shape == (3, 8)
    assert torch.allclose(vectors[0], vectors[2], atol=1e-6)  # padding beside a longer text changes nothing
    assert not torch.allclose(vectors[0], vectors[1], atol=1e-3)


def test_missing_encoder_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"--encoder .* cannot be loaded"):
        text_vectors(["a b", "c d"], encoder=str(tmp_path / "nothing"))
