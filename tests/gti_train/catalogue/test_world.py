"""The product world is a pure function of its seed, is spread over its tree, and its users have tastes."""

import hashlib
import os
import subprocess
import sys
from collections import Counter
from itertools import pairwise

import pytest

from gti_train.catalogue.world import product_world
from gti_train.catalogue.world_words import brands, editions, shelves
from gti_train.catalogue.writing import write_catalogue

WRITE = "import sys; from gti_train.catalogue import world, writing; "
WRITE += "writing.write_catalogue(world.product_world(items=120, users=30, seed=5), sys.argv[1])"


@pytest.fixture(scope="module")
def world():
    return product_world(items=800, users=300, seed=0)


def digest(folder):
    names = ("items.jsonl", "histories.jsonl")
    return [hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names]


def test_same_seed_same_bytes_in_another_process(tmp_path):
    write_catalogue(product_world(items=120, users=30, seed=5), tmp_path / "here")
    environment = os.environ | {"PYTHONHASHSEED": "77"}
    subprocess.run([sys.executable, "-c", WRITE, str(tmp_path / "there")], check=True, env=environment)
    assert digest(tmp_path / "here") == digest(tmp_path / "there")


def test_another_seed_is_another_world():
    assert product_world(items=30, users=2, seed=1) != product_world(items=30, users=2, seed=2)


def test_tree_has_three_full_levels():
    paths = [shelf.category for shelf in shelves()]
    assert len({path[0] for path in paths}) == 9
    assert set(Counter(path[:2] for path in set(paths)).values()) == {3}
    assert set(Counter(path[0] for path in set(paths)).values()) == {9}
    for shelf in shelves():
        assert (len(shelf.nouns), len(shelf.kinds), len(shelf.features), len(shelf.uses)) == (2, 4, 4, 3)
        assert len(shelf.aisle) == 2
        assert len(shelf.department) == 3
        assert len(shelf.brands) >= 6


def test_brands_and_editions_have_a_voice():
    departments = {shelf.category[0] for shelf in shelves()}
    assert len(brands()) == len({brand.name for brand in brands()}) == 12
    for brand in brands():
        assert (len(brand.colours), len(brand.voice), len(brand.absent)) == (3, 4, 2)
        assert set(brand.absent) < departments
    assert [len(voice) for voice in editions().values()] == [4] * 10


def test_items_are_spread_evenly_and_distinct(world):
    shares = Counter(item.category for item in world.items)
    assert len(shares) == 81
    assert max(shares.values()) - min(shares.values()) <= 1
    assert len({item.id for item in world.items}) == len({item.title for item in world.items}) == 800
    assert len({item.description for item in world.items}) > 790


def test_text_shows_what_the_attributes_say(world):
    for item in world.items:
        text = item.text.lower()
        assert item.brand.lower() in text
        assert item.attributes["make"].lower() in text
        assert item.attributes["colour"] in text
        assert "{" not in text
        assert 3 <= item.description.count(".") + item.description.count("?") <= 13


def test_items_keep_to_their_brand_and_edition(world):
    known = {brand.name: brand for brand in brands()}
    for item in world.items:
        brand = known[item.brand]
        assert item.attributes["colour"] in brand.colours
        assert item.attributes["edition"] in item.title
        assert item.category[0] not in brand.absent
        for voice in (brand.voice, editions()[item.attributes["edition"]]):
            assert any(sentence in item.description for sentence in voice)


def test_histories_are_ordered_without_repeats_and_coherent(world):
    item_of = {item.id: item for item in world.items}
    same, pairs = 0, 0
    for events in world.histories.values():
        times = [event.time for event in events]
        assert times == sorted(set(times))
        chosen = [item_of[event.item_id] for event in events]
        assert len({item.id for item in chosen}) == len(chosen)
        steps = list(pairwise(chosen))
        same += sum(a.category[:2] == b.category[:2] for a, b in steps)
        pairs += len(steps)
    assert same / pairs > 10 / 27  # ten times what indifferent users would show


def test_tiny_and_impossible_worlds():
    assert len(product_world(items=1, users=3).items) == 1
    assert len(product_world(items=2000, users=0).items) == 2000
    with pytest.raises(ValueError, match="items is 0"):
        product_world(items=0)
    with pytest.raises(ValueError, match="users is -1"):
        product_world(users=-1)
