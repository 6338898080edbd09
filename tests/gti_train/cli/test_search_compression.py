"""The commands that make rankers cheaper, one after the other on a tiny judge; and what they refuse."""

import json

import pytest
import torch

from gti_train.model.loading import load_language_model
from gti_train.search.collection import split, write_collection
from gti_train.search.items.tokens import load_items
from gti_train.search.judge import save_judge
from gti_train.search.prompts import Prompter, Wording
from gti_train.search.world import product_search

LEARN = ("--epochs", "0.01", "--batch-size", "2", "-q")


@pytest.fixture
def shop(tiny_lm, tmp_path, monkeypatch):
    """A judge, a collection, and what BM25 finds in place of a sentence encoder."""
    whole = product_search(items=81, queries=24, seed=0)
    train, test = split(whole, share=0.25, seed=0)
    write_collection({"test": test, "train": whole.asking(train.queries)}, tmp_path / "shop")
    model, tokenizer = load_language_model(tiny_lm(), dtype=torch.float32)
    wording = Wording("Match?", yes="Y", no="N", tail=":", max_tokens=96, document_tokens=40)
    save_judge(model, Prompter(tokenizer, wording), tmp_path / "judge", dtype="auto")
    monkeypatch.setattr("gti_train.search.students.WORDS", {"click": ("C", "S"), "apply": ("A", "L")})
    monkeypatch.setattr("gti_train.search.retriever.mined", lambda name, part: [list(range(30))] * len(part.queries))
    return tmp_path


def test_each_stage_opens_what_the_one_before_left(command, shop):
    judge, data = shop / "judge", ("--data", shop / "shop", "--split", "train", "--test", "test")
    test = ("--data", shop / "shop", "--split", "test")
    stages = [
        ("retrieve", *test, "--encoder", "bm25", "--k", 10, "--out", shop / "found.run", "-q"),
        ("prune", judge, *data, "--drop-layers", 1, "--out", shop / "pruned", *LEARN),
        ("rank", judge, *data, "--order", "document-first", "--out", shop / "ranker", *LEARN),
        ("items", shop / "pruned", *data, "--tokens", 2, "--encoder-layers", 1, "--out", shop / "items", *LEARN),
        ("encode", shop / "items", *test, "--out", shop / "later"),
        ("summaries", judge, *test, "--budget", 12, "--queries", 1, "--out", shop / "summaries.jsonl", "-q"),
        ("ladder", judge, shop / "found.run", *test, "--pruned", shop / "pruned", "--summaries", shop / "summaries.jsonl",
         "--items-pruned", shop / "items", "--documents", 4, "--top", 10, "--queries", 3, "--out", shop / "ladder", "-q"),
    ]  # fmt: skip
    for stage in stages:
        code, printed, complained = command("search", *stage)
        assert code == 0, (stage, complained)
    rungs = json.loads((shop / "ladder" / "ladder.json").read_text())["rungs"]
    shown = next(line for line in printed.splitlines() if line.strip().startswith("item tokens, pruned"))
    ndcg = next(rung["quality"]["ndcg"] for rung in rungs if rung["name"] == "items-pruned")
    assert f"{ndcg:.3f}".removeprefix("0") in shown and len(shown) <= 80
    assert "\n| item tokens, pruned" in (shop / "ladder" / "ladder.md").read_text()
    later, items = load_items(shop / "later"), load_items(shop / "items")
    assert (later.ids, later.token) == (
        items.ids,
        items.token,
    )  # the same documents: the same vectors, but for bfloat16
    torch.testing.assert_close(later.vectors, items.vectors, rtol=0.05, atol=0.05 * float(items.vectors.float().std()))
    code, _, complained = command("search", "encode", shop / "items", *test, "--out", shop / "items")
    assert code == 2 and "is there and no checkpoint" in complained
    assert (shop / "items" / "ranker" / "model.safetensors").is_file()
    assert json.loads((shop / "items" / "request.json").read_text())["embed_override_token_id"] == 2


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("prune", "--drop-layers", "2"), "2 layers to drop and the model has 2"),
        (("items", "--encoder-layers", "9"), "9 layers"),
        (("rank", "--order", "sideways"), "order 'sideways' is unknown"),
    ],
)
def test_what_cannot_be_done_is_one_line(command, shop, arguments, line):
    name, *options = arguments
    given = ("--data", shop / "shop", "--split", "train", "--out", shop / "out", *LEARN)
    code, _, complained = command("search", name, shop / "judge", *given, *options)
    assert code == 2 and line in complained and "Traceback" not in complained
