"""Held-out events reach nothing that is learned from: with others in their place, all that is made before `eval` is the same.

A marker item stands in place of each user's last event; semantic IDs, extension, grounding and fine-tuning are then run
by their commands. Where a training event changes instead, fine-tuning must change, or the test could not fail.
"""

import json
import shutil

import pytest
from safetensors.torch import load_file

MARKER = "p0042"


def changed(shop, out, event):
    """The shop again, with the marker as the event of this place (from the end) of each user."""
    out.mkdir()
    shutil.copy(shop / "items.jsonl", out)
    lines = [json.loads(line) for line in (shop / "histories.jsonl").read_text().splitlines()]
    for line in lines:
        line["events"][-event]["item_id"] = MARKER
    (out / "histories.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return out


def learned(command, shop, base, out, *validation):
    """What is learned from a shop, by its commands: name of each file → its tensors, or its text."""
    items, histories, sids = shop / "items.jsonl", shop / "histories.jsonl", out / "sids"
    both = ("--items", items, "--sids", sids, "--dtype", "float32", "--steps", 2, "--batch-size", 3, "--quiet")
    for arguments in (
        ("sids", shop, "--out", sids, "--codes", "6,5", "--dimensions", 8, "--unique", "no", "--quiet"),
        ("extend", base, "--sids", sids, "--init", "gaussian", "--out", out / "extended", "--dtype", "float32"),
        ("ground", out / "extended", *both, "--out", out / "gti", "--kinds", "title-to-code"),
        ("sft", out / "gti", *both, "--histories", histories, "--out", out / "sft", *validation),
    ):
        code, _, err = command(*arguments)
        assert code == 0, err
    weights = {file: {n: t.tolist() for n, t in load_file(file).items()} for file in out.glob("*/*.safetensors")}
    files = weights | {sids / "sids.json": (sids / "sids.json").read_text()}
    return {file.relative_to(out).as_posix(): content for file, content in files.items()}


@pytest.fixture
def shop(command, tmp_path):
    assert command("world", "--out", tmp_path / "shop", "--items", 80, "--users", 6)[0] == 0
    lines = [json.loads(line) for line in (tmp_path / "shop/histories.jsonl").read_text().splitlines()]
    for line in lines:
        line["events"] = [event for event in line["events"] if event["item_id"] != MARKER][-5:]
    (tmp_path / "shop/histories.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path / "shop"


def test_the_last_two_events_reach_nothing_that_is_learned(command, shop, tiny_lm, tmp_path):
    base = tiny_lm()
    before = learned(command, shop, base, tmp_path / "a")
    assert {"sids/sids.json", "gti/model.safetensors", "sft/model.safetensors"} <= set(before)
    marked = changed(changed(shop, tmp_path / "last", 1), tmp_path / "both", 2)
    assert learned(command, marked, base, tmp_path / "b") == before
    trained = learned(command, changed(shop, tmp_path / "third", 3), base, tmp_path / "c")
    assert {name for name in before if trained[name] != before[name]} == {"sft/model.safetensors"}


def test_the_last_event_does_not_choose_when_to_stop(command, shop, tiny_lm, tmp_path):
    base, watched = tiny_lm(), ("--validate", 6, "--every", 1, "--patience", 1)
    before = learned(command, shop, base, tmp_path / "a", *watched)
    assert learned(command, changed(shop, tmp_path / "last", 1), base, tmp_path / "b", *watched) == before


def test_baselines_and_slices_count_training_events_alone(command, shop, tiny_lm, tmp_path):
    learned(command, shop, tiny_lm(), tmp_path / "a")
    marked = changed(changed(shop, tmp_path / "last", 1), tmp_path / "both", 2)
    arguments = ("--sids", tmp_path / "a/sids", "--k", "20", "--quiet", "--json", tmp_path / "eval.json")
    assert command("eval", tmp_path / "a/sft", "--histories", marked / "histories.jsonl", *arguments)[0] == 0
    found = json.loads((tmp_path / "eval.json").read_text())
    assert found["slices"]["cold"]["users"] == found["users"] == 6  # nobody chose the marker in training
    assert found["baselines"]["popularity"]["recall@20"]["value"] == 0
