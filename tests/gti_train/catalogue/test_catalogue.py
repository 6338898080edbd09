"""Catalogues survive the disk, and a bad file is answered in one line that names it."""

import json

import pytest

from gti_diag.errors import InputError
from gti_train.catalogue.reading import read_catalogue
from gti_train.catalogue.records import Catalogue, Event, Item
from gti_train.catalogue.world import product_world
from gti_train.catalogue.writing import write_catalogue


def test_written_catalogue_reads_back_equal(tmp_path):
    catalogue = product_world(items=90, users=20, seed=3)
    items, histories = write_catalogue(catalogue, tmp_path)
    assert read_catalogue(items, histories) == catalogue


def test_real_catalogues_need_only_an_id_and_a_title(tmp_path):
    path = tmp_path / "items.jsonl"
    path.write_text('{"item_id": 7, "title": " Red\\n lamp ", "description": null, "sid": [1]}\n\n', encoding="utf-8")
    assert read_catalogue(path) == Catalogue((Item("7", "Red lamp"),), {})
    assert read_catalogue(path).items[0].text == "Red lamp"


def test_events_are_ordered_by_time(tmp_path):
    (tmp_path / "i.jsonl").write_text('{"item_id": 1, "title": "A"}\n{"item_id": 2, "title": "B"}\n')
    (tmp_path / "h.jsonl").write_text(
        '{"user_id": "u", "events": [{"item_id": 2, "time": 9}, {"item_id": 1, "time": 4}]}\n'
    )
    histories = read_catalogue(tmp_path / "i.jsonl", tmp_path / "h.jsonl").histories
    assert histories == {"u": (Event("1", 4), Event("2", 9))}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("{", "line 1: not JSON"),
        ("[1]", "line 1: a JSON list"),
        ('{"title": "A"}', "item_id is None"),
        ('{"item_id": true, "title": "A"}', "item_id is True"),
        ('{"item_id": 1}', "no title"),
        ('{"item_id": 1, "title": "A", "description": 3}', "description is a int"),
        ('{"item_id": 1, "title": "A", "category": "Lamps"}', "category is 'Lamps'"),
        (
            '{"item_id": 1, "title": "A", "attributes": []}\n{"item_id": "1", "title": "B"}',
            "line 2: item_id '1' occurs",
        ),
        ('{"item_id": 1, "title": "A", "attributes": [1]}', "attributes is a list"),
    ],
)
def test_bad_item_files_are_refused(tmp_path, text, message):
    path = tmp_path / "items.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message) as refusal:
        read_catalogue(path)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"user_id": "u", "events": [{"item_id": 5, "time": 1}]}, "unknown item '5'"),
        ({"user_id": "u", "events": [{"item_id": 1, "time": "noon"}]}, "time 'noon'"),
        ({"user_id": "u", "events": 3}, "events must be a list"),
        ({"events": []}, "user_id is None"),
    ],
)
def test_bad_histories_are_refused(tmp_path, record, message):
    (tmp_path / "i.jsonl").write_text('{"item_id": 1, "title": "A"}\n')
    (tmp_path / "h.jsonl").write_text(json.dumps(record))
    with pytest.raises(InputError, match=message):
        read_catalogue(tmp_path / "i.jsonl", tmp_path / "h.jsonl")


def test_missing_and_binary_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_catalogue(tmp_path / "none.jsonl")
    (tmp_path / "b.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="UTF-8"):
        read_catalogue(tmp_path / "b.jsonl")
