"""The search demonstration runs end to end on a tiny model, and skips what is finished."""

import json
from dataclasses import replace

import pytest
import torch

from gti_train.search.summaries import sentences
from gti_train.study.search_demo import SMOKE, search_demo
from gti_train.study.stages import run_stages
from tests.conftest import tiny_config


@pytest.fixture
def model(tmp_path, tiny_tokenizer):
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(tiny_config("llama", len(tiny_tokenizer), True)).save_pretrained(
        tmp_path / "model"
    )
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


def test_the_chain_ends_in_a_ladder_of_all_rungs_and_a_second_run_does_nothing(model, tmp_path, monkeypatch):
    monkeypatch.setattr("gti_train.search.students.WORDS", {"click": ("C", "S"), "apply": ("A", "L")})
    stages = search_demo(replace(SMOKE, model=model, yes="Y", no="N"))
    run_stages(stages, tmp_path / "run")
    told = json.loads((tmp_path / "run" / "ladder" / "ladder.json").read_text())
    names = [rung["name"] for rung in told["rungs"]]
    assert names[:5] == ["one-by-one", "batched", "last-position", "two-rows", "shared-prefix"]
    read = ["shared-prefix", "pruned", "summaries", "pruned-summaries", "items", "items-pruned"]
    assert names[4:] == [name for base in read for name in (base, f"{base}-kept")]
    assert all(rung["speed"] and rung["quality"] for rung in told["rungs"])
    assert json.loads((tmp_path / "run" / "pruned" / "config.json").read_text())["num_hidden_layers"] == 1
    assert json.loads((tmp_path / "run" / "ranker.engagement.json").read_text())["simulated"] is True
    lines = (tmp_path / "run" / "collection" / "documents.jsonl").read_text().splitlines()
    texts = [json.loads(line) for line in lines]
    assert len(texts) == SMOKE.items and all(1 <= len(sentences(t["text"])) < SMOKE.sentences for t in texts)
    said = []
    run_stages(stages, tmp_path / "run", progress=lambda stage, share, detail: said.append(detail))
    assert said == ["finished before"] * len(stages)
