"""gti-train catalogue: a folder of any layout in, one that every other command opens out."""

import json

import pytest

from gti_train.catalogue.reading import read_catalogue


@pytest.fixture
def beauty(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "B.item.json").write_text(
        json.dumps({"1": {"title": "Soap"}, "2": {"title": "Comb"}, "3": {"title": "Cap"}})
    )
    (folder / "B.inter.json").write_text(json.dumps({"u": [1, 2, 2, 1], "v": [2, 1], "w": [3]}))
    (folder / "B.index.json").write_text(json.dumps({"1": ["<a_1>"], "2": ["<a_0>"], "3": ["<a_1>"]}))
    return folder


def test_catalogue_says_what_it_found_and_writes_it(command, beauty, tmp_path):
    code, out, err = command("catalogue", beauty, "--out", tmp_path / "shop", "--least-user", 2, "--least-item", 2, "--repeats", "changes")  # fmt: skip
    assert code == 0, err
    assert "lc-rec: B.item.json is named as LC-Rec and LETTER name theirs" in out
    assert "2, 0 without text, 0 without events, 2 with codes" in out
    assert "no such split: the events have no times" in out
    report = json.loads((tmp_path / "shop" / "report.json").read_text())
    assert (report["schema"], report["layout"], report["items"], report["events"]) == (1, "lc-rec", 2, 5)
    assert report["read"] == {"items": 3, "events": 7}
    assert json.loads((tmp_path / "shop" / "codes.json").read_text()) == {"1": ["<a_1>"], "2": ["<a_0>"]}
    written = read_catalogue(tmp_path / "shop" / "items.jsonl", tmp_path / "shop" / "histories.jsonl")
    assert [item.title for item in written.items] == ["Soap", "Comb"]
    assert [event.item_id for event in written.histories["u"]] == ["1", "2", "1"]


def test_bad_records_stop_or_are_counted(command, beauty, tmp_path):
    (beauty / "B.inter.json").write_text(json.dumps({"u": [1, 9]}))
    code, _, err = command("catalogue", beauty, "--out", tmp_path / "shop")
    assert code == 2 and "unknown item '9'" in err and not (tmp_path / "shop").exists()
    code, out, _ = command("catalogue", beauty, "--out", tmp_path / "shop", "--skip-bad")
    assert code == 0 and "1 skipped: unknown_item" in out
    assert command("catalogue", beauty, "--out", tmp_path / "quiet", "--skip-bad", "--quiet")[1] == ""


def test_a_mistyped_column_map_is_refused(command, beauty, tmp_path):
    code, _, err = command("catalogue", beauty, "--out", tmp_path / "shop", "--columns", "name=title")
    assert code == 2 and "--columns 'name=title'" in err and "item_id, title" in err
