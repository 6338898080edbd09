"""gti-train sids: codes of every kind for a catalogue, and what they cost, in plain words."""

import json

import pyarrow
import pytest
from pyarrow.parquet import write_table

from gti_train.semantic_ids.files import load_sids


@pytest.fixture
def items(command, tmp_path):
    assert command("world", "--out", tmp_path / "shop", "--items", 90, "--users", 4)[0] == 0
    return tmp_path / "shop" / "items.jsonl"


def test_every_item_has_its_own_code_unless_told_otherwise(command, items, tmp_path):
    arguments = ("sids", items, "--out", tmp_path / "sids", "--codes", "15,25", "--dimensions", 8)
    shared = command(*arguments, "--unique", "no")[1]
    assert "of items add no code of their own" in shared and "--unique assign separates them" in shared
    apart = command(*arguments)[1]
    assert "every item has its own code" in apart and "items moved to another code, 0 to another prefix" in apart
    record = json.loads((tmp_path / "sids" / "sids.json").read_text())
    assert (record["quantiser"], record["unique"]) == ("residual-kmeans", "assign")
    assert record["moves"]["moved"] > 0 and record["collisions"]["largest"] == 1
    assert "every item has its own code" in command(*arguments, "--unique", "extra-level")[1]
    assert command(*arguments, "--quiet")[1] == ""


@pytest.mark.parametrize("quantiser", ["balanced-kmeans", "product", "fsq"])
def test_each_quantiser_has_a_name(command, items, tmp_path, quantiser):
    arguments = ("--codes", "8,16", "--dimensions", 8, "--quantiser", quantiser)
    code, out, err = command("sids", items, "--out", tmp_path / "sids", *arguments)
    assert code == 0, err
    assert "every item has its own code" in out
    assert load_sids(tmp_path / "sids").made["quantiser"] == quantiser
    assert (tmp_path / "sids" / "quantiser.safetensors").is_file()


def test_codes_that_are_brought_are_taken_as_they_are(command, items, tmp_path):
    brought = {f"p{row:04d}": [f"<a_{row % 9}>", f"<b_{row // 9}>"] for row in range(90)}
    (tmp_path / "codes.json").write_text(json.dumps(brought))
    arguments = ("sids", items, "--out", tmp_path / "sids", "--codes-from", tmp_path / "codes.json")
    assert command(*arguments)[0] == 0
    sids = load_sids(tmp_path / "sids")
    assert {item: list(sids.of(item)) for item in sids.item_ids} == brought
    assert sids.made["quantiser"] == "brought"
    del brought["p0003"]
    (tmp_path / "codes.json").write_text(json.dumps(brought))
    code, _, err = command(*arguments)
    assert code == 2 and "has no code for 1 of 90 items, the first is 'p0003'" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--codes", "3,3"), "90 items, but 9 codes in all"),
        (("--quantiser", "poem"), "--quantiser 'poem' is unknown"),
        (("--epochs", "5"), "--epochs is for --quantiser rq-vae, not for residual-kmeans"),
        (("--unique", "poem"), "--unique 'poem' is unknown"),
        (("--codes-from", "none.json"), "none.json: No such file"),
        (("--encoder", "none.npy"), "none.npy: cannot be read"),
    ],
)
def test_what_cannot_be_made_is_refused(command, items, tmp_path, arguments, message):
    code, _, err = command("sids", items, "--out", tmp_path / "sids", *arguments)
    assert code == 2 and message in err
    assert not (tmp_path / "sids" / "sids.json").exists()


def test_report_and_compare_judge_codes(command, items, tmp_path):
    arguments = ("--codes", "9,12", "--dimensions", 8)
    code, out, err = command("sids", items.parent, "--out", tmp_path / "a", *arguments, "--report")
    assert code == 0, err
    assert "residual-kmeans on lsa:" in out and "level 1: healthy (9 of 9 codes" in out
    report = json.loads((tmp_path / "a" / "quality.json").read_text())
    assert report["items"] == 90 and report["events"] > 0 and report["collisions"]["rate"] == 0
    assert command("sids", items, "--out", tmp_path / "b", *arguments, "--seed", 1, "--quiet")[0] == 0
    pair = ("--compare", tmp_path / "a", tmp_path / "b")
    code, out, err = command("sids", items.parent, *pair, "--out", tmp_path / "ab", "--dimensions", 8)
    assert code == 0, err
    assert "of items keep their codes" in out and (tmp_path / "ab" / "quality.html").is_file()
    assert command("sids", *pair, "--out", tmp_path / "blind", "--quiet")[:2] == (0, "")
    code, _, err = command("sids", "--out", tmp_path / "c")
    assert code == 2 and "name the items" in err


def test_cluster_fits_on_a_sample_and_says_what_workers_hold(command, monkeypatch, tmp_path):
    from gti_train.semantic_ids.cluster import Summary
    from tests.gti_train.semantic_ids.cases import spread

    (tmp_path / "shards").mkdir()
    columns = {"item_id": [str(row) for row in range(60)], "row": range(60), "vector": spread(rows=60).tolist()}
    write_table(pyarrow.table(columns), tmp_path / "shards" / "a.parquet")
    seen = []

    def run(shards, quantiser, out, *, workers):
        seen.append((shards, quantiser.name, [len(book) for book in quantiser.books], out, workers))
        return Summary(60, 9, 2, 3_500_000)

    monkeypatch.setattr("gti_train.semantic_ids.cluster.cluster_codes", run)
    arguments = ("--cluster", "--sample", 50, "--workers", 2, "--codes", "4,5", "--quantiser", "faiss-kmeans")
    code, out, err = command("sids", tmp_path / "shards", "--out", tmp_path / "out", *arguments)
    assert code == 0, err
    assert seen == [(tmp_path / "shards", "faiss-kmeans", [4, 5], tmp_path / "out" / "codes", 2)]
    assert "60 items under 9 prefixes, 2 moved" in out and "3.5 MB" in out
    assert (tmp_path / "out" / "quantiser.safetensors").is_file()
