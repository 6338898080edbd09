"""gti-train eval from a checkpoint to its document; two processes are one; what cannot be judged is one clear line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

METRICS = {f"{name}@{k}" for name in ("recall", "ndcg", "hit_rate", "precision") for k in (2, 5)} | {"mrr"}
ROOT = Path(__file__).parents[3]


@pytest.fixture
def made(command, tiny_lm, tmp_path):
    """A shop whose codes collide, and a model that knows them: arguments for `eval`."""
    shop, sids, checkpoint = tmp_path / "shop", tmp_path / "sids", tmp_path / "extended"
    assert command("world", "--out", shop, "--items", 90, "--users", 12)[0] == 0
    lines = [json.loads(line) for line in (shop / "histories.jsonl").read_text().splitlines()]
    for line in lines:
        line["events"] = line["events"][-4:]  # the tiny model reads 256 tokens
    (shop / "histories.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    options = ("--codes", "6,5", "--dimensions", 8, "--unique", "no")
    assert command("sids", shop / "items.jsonl", "--out", sids, *options)[0] == 0
    assert command("extend", tiny_lm(), "--sids", sids, "--init", "gaussian", "--out", checkpoint)[0] == 0
    return checkpoint, "--histories", shop / "histories.jsonl", "--sids", sids, "--k", "5,2"


def read(path):
    return json.loads(path.read_text())


def test_the_document_is_the_one_promised(command, made, tmp_path):
    code, out, err = command(
        "eval", *made, "--json", tmp_path / "eval.json", "--items", tmp_path / "shop" / "items.jsonl"
    )
    assert code == 0, err
    assert "12 users, 90 items" in out and "transitions" in out
    found = read(tmp_path / "eval.json")
    assert (found["schema"], found["users"], found["k"], found["per_user"]) == (
        1,
        12,
        [2, 5],
        str(tmp_path / "eval.users.jsonl"),
    )
    assert set(found["metrics"]) == set(found["sid_level"]) == METRICS
    for value in found["metrics"].values():
        assert value["interval"][0] <= value["value"] <= value["interval"][1]
    assert set(found["baselines"]) == {"popularity", "repeat", "item-knn", "transitions"}
    assert {"cold", "popularity_head", "history_long"} <= set(found["slices"])
    users = [json.loads(line) for line in (tmp_path / "eval.users.jsonl").read_text().splitlines()]
    assert len(users) == 12
    for name in METRICS:
        mean = sum(user["metrics"][name] for user in users) / len(users)
        assert mean == pytest.approx(found["metrics"][name]["value"], abs=1e-8)
    assert found["sid_level"]["recall@5"]["value"] >= found["metrics"]["recall@5"]["value"]  # codes collide


def test_two_runs_are_compared_user_by_user(command, made, tmp_path):
    assert command("eval", *made, "--json", tmp_path / "one.json", "--quiet")[0] == 0
    one = tmp_path / "one.json"
    code, out, err = command(
        "eval", *made, "--json", tmp_path / "two.json", "--exact", "--exclude-seen", "--against", one, "--quiet"
    )
    assert (code, out) == (0, ""), err
    against = read(tmp_path / "two.json")["against"][str(one)]["recall@5"]
    difference = read(tmp_path / "two.json")["metrics"]["recall@5"]["value"] - read(one)["metrics"]["recall@5"]["value"]
    assert against["difference"] == pytest.approx(difference, abs=1e-8)
    histories = {u["user_id"]: {e["item_id"] for e in u["events"][:-1]} for u in lines(made[2])}
    for user in lines(tmp_path / "two.users.jsonl"):
        assert not histories[user["user_id"]] & set(user["items"])


def lines(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def test_grades_take_the_place_of_events(command, made, tmp_path):
    users = [user["user_id"] for user in lines(made[2])]
    items = [item["item_id"] for item in lines(tmp_path / "shop" / "items.jsonl")]
    graded = [{"user_id": u, "grades": {items[n]: 2, items[n + 1]: 1}} for n, u in enumerate(users[:5])]
    (tmp_path / "grades.jsonl").write_text("".join(json.dumps(g) + "\n" for g in graded))
    assert (
        command("eval", *made, "--json", tmp_path / "e.json", "--grades", tmp_path / "grades.jsonl", "--quiet")[0] == 0
    )
    found = read(tmp_path / "e.json")
    assert (found["users"], found["left_out"]["users"]) == (5, 7)
    assert {"precision_strict@5", "precision_lenient@5", "ndcg@5"} <= set(found["metrics"])


def test_the_result_does_not_depend_on_the_number_of_processes(command, made, tmp_path):
    assert command("eval", *made, "--json", tmp_path / "one.json", "--quiet")[0] == 0
    launch = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "0", "--standalone"]
    arguments = [*map(str, made), "--json", str(tmp_path / "two.json"), "--quiet"]
    done = subprocess.run(
        [sys.executable, *launch, "-m", "gti_train.cli", "eval", *arguments],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    one, two = read(tmp_path / "one.json"), read(tmp_path / "two.json")
    assert {**one, "per_user": None} == {**two, "per_user": None}
    items = [[user["items"] for user in lines(tmp_path / f"{name}.users.jsonl")] for name in ("one", "two")]
    assert items[0] == items[1]


def test_what_cannot_be_judged_is_refused_in_a_line(command, made, tiny_lm, tmp_path):
    def complaint(*arguments):
        code, _, err = command("eval", *arguments, "--json", tmp_path / "no.json", "--quiet")
        assert code == 2 and not (tmp_path / "no.json").exists()
        return " ".join(err.split())

    assert "write the lengths of the lists like 5,10,20" in complaint(*made[:-1], "five")
    assert "give one or more numbers from 1 up" in complaint(*made[:-1], "0,5")
    assert "ask for 1…" in complaint(*made[:-1], "91")
    assert "2 beams cannot find 5 items" in complaint(*made, "--beams", 2)
    assert "use one of items, vocabulary" in complaint(*made, "--scores", "words")
    assert "use one of test, valid" in complaint(*made, "--split", "train")
    assert "'<a_0>' is no token of" in complaint(tiny_lm("plain"), *made[1:])
    strange = tmp_path / "strange.jsonl"
    strange.write_text('{"user_id": "u", "events": [{"item_id": "nothing", "time": 1}]}\n')
    assert f"{strange}, line 1: event of unknown item 'nothing'" in complaint(*made[:2], strange, *made[3:])
    strange.write_text('{"user_id": "u", "events": []}\n')
    assert "none of" in complaint(*made[:2], strange, *made[3:])
    assert "no document of `gti-train eval`" in complaint(*made, "--against", tmp_path / "shop" / "items.jsonl")
    (tmp_path / "grades.jsonl").write_text('{"user_id": "u0000", "grades": {"nothing": 1}}\n')
    assert "no item that has a semantic ID" in complaint(*made, "--grades", tmp_path / "grades.jsonl")


def test_curves_are_drawn_from_the_documents_of_arms(command, made, tmp_path):
    for name, *options in (("a", "--seed", 0), ("b", "--exact"), ("c", "--scores", "vocabulary")):
        assert command("eval", *made, "--json", tmp_path / f"{name}.json", "--quiet", *options)[0] == 0
    arms = [f"one={tmp_path / 'a.json'}", f"two={tmp_path / 'b.json'}", f"two={tmp_path / 'c.json'}"]
    code, _, err = command("curves", *arms, "--baseline", "one", "--out", tmp_path / "figures")
    drawn = read(tmp_path / "a.json")["metrics"]["recall@5"]["value"] > 0
    assert (code, (tmp_path / "figures" / "pool_curves.png").exists()) == ((0, True) if drawn else (2, False)), err
    for arguments, complaint in (
        ((*arms, "--baseline", "three"), "no arm is called 'three'"),
        (("a.json", "--baseline", "one"), "'a.json' names no arm: write ARM=EVAL.json"),
        ((f"one={tmp_path / 'nothing.json'}", "--baseline", "one"), "no document of `gti-train eval`"),
    ):
        code, _, err = command("curves", *arguments, "--out", tmp_path / "figures")
        assert code == 2 and complaint in " ".join(err.split())
