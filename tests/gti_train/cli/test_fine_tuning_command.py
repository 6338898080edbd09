"""gti-train sft: from the files of the stages before it to a checkpoint, and plain refusals."""

import json

import pytest

from gti_diag.errors import InputError
from gti_train.cli.fine_tuning import task_weights
from gti_train.recommend.prompts import TASKS


@pytest.fixture
def start(command, tiny_lm, tmp_path):
    """The arguments that name a small shop and a checkpoint that knows its codes."""
    assert command("world", "--out", tmp_path / "shop", "--items", 90, "--users", 5)[0] == 0
    items = tmp_path / "shop" / "items.jsonl"
    assert (
        command("sids", items, "--out", tmp_path / "sids", "--codes", "6,5", "--dimensions", 8, "--unique", "no")[0]
        == 0
    )
    assert command("extend", tiny_lm(), "--sids", tmp_path / "sids", "--out", tmp_path / "mean")[0] == 0
    histories = tmp_path / "shop" / "histories.jsonl"
    return tmp_path / "mean", "--items", items, "--histories", histories, "--sids", tmp_path / "sids"


def test_sft_leaves_a_checkpoint_that_says_what_it_is(command, start, tmp_path):
    code, out, err = command(
        "sft", *start, "--out", tmp_path / "sft", "--steps", 3, "--batch-size", 2, "--tasks", "next,text-to-code=0.5",
        "--every", 2, "--validate", 2, "--watch", "recall@5", "--loss", "codes", "--checkpointing", "--micro-tokens", 256,
        "--words", 10, "--history", 4,
    )  # fmt: skip
    assert code == 0, err
    assert "fine-tuned on " in out and "3 steps" in out
    sidecar = json.loads((tmp_path / "sft" / "gti.json").read_text())
    assert (sidecar["stage"], sidecar["step"], sidecar["parent"]) == ("sft", 3, str(start[0]))
    lines = [json.loads(line) for line in (tmp_path / "sft" / "metrics.jsonl").read_text().splitlines()]
    assert {"recall@5", "validation_loss", "norm_mean", "effective_rank"} - set(lines[1]) <= {"norm_mean"}
    assert command("sft", tmp_path / "sft", *start[1:], "--out", tmp_path / "on", "--steps", 1, "--lora", 2)[0] == 0


@pytest.mark.parametrize("change, message", [
    (("--tasks", "banana"), "choose one or more of next, "),
    (("--tasks", "next=-1"), "a weight is a number above 0, like next=0.5"),
    (("--loss", "both"), "loss 'both' is unknown: use one of vocabulary, codes"),
    (("--watch", "ndcg"), "'ndcg' cannot be watched"),
    (("--patience", 2), "patience watches 'validation_loss', which is not measured"),
    (("--history", 1), None),
])  # fmt: skip
def test_what_cannot_be_asked_is_refused_in_one_line(command, start, tmp_path, change, message):
    code, _, err = command("sft", *start, "--out", tmp_path / "sft", "--steps", 1, *change)
    if message is None:
        assert code == 0, err
        return
    assert code == 2 and message in " ".join(err.split()) and len(err.strip().splitlines()) <= 3
    assert not (tmp_path / "sft").exists()


def test_a_history_of_an_unknown_item_is_refused(command, start, tmp_path):
    wrong = tmp_path / "wrong.jsonl"
    wrong.write_text('{"user_id": "u1", "events": [{"item_id": "nothing", "time": 1}, {"item_id": "x", "time": 2}]}\n')
    at = start.index("--histories") + 1
    arguments = [*start[:at], wrong, *start[at + 1 :]]
    code, _, err = command("sft", *arguments, "--out", tmp_path / "sft", "--steps", 1)
    assert code == 2 and "unknown item 'nothing'" in err


def test_weights_of_tasks():
    assert task_weights("all") == dict.fromkeys(TASKS, 1.0)
    assert task_weights("next, text-to-code=0.25") == {"next": 1.0, "text-to-code": 0.25}
    with pytest.raises(InputError, match="--tasks 'next=x': a weight is a number above 0"):
        task_weights("next=x")
