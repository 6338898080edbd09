"""Checkpoints of which every row is new, and heads that lack rows."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import gti_diag
from gti_diag.errors import InputError
from tests.conftest import vocabulary_like
from tests.strategies import with_spectrum


def test_an_item_table_is_measured_alone(tmp_path):
    np.save(tmp_path / "items.npy", vocabulary_like(60, 12).numpy())
    analysis = gti_diag.diagnose(tmp_path / "items.npy", new="0:60")
    matrix = analysis["matrices"]["input"]
    assert set(matrix["groups"]) == {"new"}
    assert matrix["groups"]["new"]["effective_rank"] > 1
    assert matrix["verdict"]["label"] is None
    assert (
        matrix["verdict"]["reasons"][0]["text"]
        == "there are no text rows and no reference to hold the new rows against"
    )
    assert "there is no text to compare with: give the model they are for with --base" in analysis["tokens"]["notes"][0]
    assert matrix["blocks"] and matrix["map"] is None
    assert matrix["undefined"]["map"] == "there are no text rows to compare with"


def test_identical_rows_are_collapsed_without_any_text(tmp_path):
    np.save(tmp_path / "items.npy", np.ones((60, 12), np.float32))
    verdict = gti_diag.diagnose(tmp_path / "items.npy", new="0:60")["matrices"]["input"]["verdict"]
    assert verdict["label"] == "collapsed"


def test_text_comes_from_the_base(tiny_lm, tmp_path):
    base = tiny_lm("base")
    np.save(tmp_path / "soft.npy", vocabulary_like(20, 48, seed=3).numpy())
    analysis = gti_diag.diagnose(tmp_path / "soft.npy", new="0:20", base=base)
    matrix = analysis["matrices"]["input"]
    own = gti_diag.diagnose(base)["matrices"]["input"]["groups"]["text"]
    assert matrix["groups"]["text"] == own
    assert matrix["groups"]["new"]["dispersion_ratio"] == pytest.approx(
        matrix["groups"]["new"]["dispersion"] / own["dispersion"]
    )
    assert matrix["neighbours"][0]["nearest"]
    assert matrix["drift"] is None
    assert analysis["tokens"]["alarms"] == []
    assert f"compared with the {own['count']:,} text rows of the base" in analysis["tokens"]["notes"][0]


def test_a_base_of_another_width_is_told(tiny_lm, tmp_path):
    np.save(tmp_path / "items.npy", vocabulary_like(20, 12).numpy())
    analysis = gti_diag.diagnose(tmp_path / "items.npy", new="0:20", base=tiny_lm("base"))
    assert "the base's rows have another width" in analysis["tokens"]["notes"][0]


def test_a_single_inverted_token_against_its_text_encoder(tiny_lm, tmp_path):
    torch.save({"<cat-toy>": torch.rand(48)}, tmp_path / "learned_embeds.bin")
    analysis = gti_diag.diagnose(tmp_path / "learned_embeds.bin", base=tiny_lm("base"))
    new = analysis["matrices"]["input"]["groups"]["new"]
    assert new["count"] == 1 and new["centroid_distance"] > 0
    assert gti_diag.diagnose(tmp_path / "learned_embeds.bin")["matrices"]["input"]["groups"]["new"]["count"] == 1


CODES = [f"<a_{n}>" for n in range(16)]


@pytest.fixture
def short(tiny_lm):
    """A model whose head was not extended with its 16 tokens."""
    folder = tiny_lm("short", new_tokens=CODES, tied=False)
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["lm_head.weight"][:-16].clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_a_short_head_is_told_and_the_input_judged(short):
    analysis = gti_diag.diagnose(short)
    assert set(analysis["matrices"]) == {"input"}
    assert analysis["tokens"]["alarms"][0]["text"].startswith("16 new tokens have no row in lm_head")
    assert set(gti_diag.diagnose(short, matrix="input")["matrices"]) == {"input"}
    with pytest.raises(InputError, match=r"16 new tokens have no row in lm_head .*; use --matrix input"):
        gti_diag.diagnose(short, matrix="output")


def test_a_short_head_is_compared_with_its_base_as_far_as_it_goes(short, tiny_lm):
    base = tiny_lm("base", tied=False)
    drift = gti_diag.diagnose(short, base=base)["matrices"]["input"]["drift"]
    assert drift["groups"]["text"]["compared"] > 300


def test_a_head_that_lacks_padding_alone_is_judged(tiny_lm):
    folder = tiny_lm("padded", new_tokens=CODES, tied=False, rows=448)
    tensors = load_file(folder / "model.safetensors")
    used = max(json.loads((folder / "tokenizer.json").read_text())["added_tokens"], key=lambda t: t["id"])["id"] + 1
    tensors["lm_head.weight"] = tensors["lm_head.weight"][:used].clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    analysis = gti_diag.diagnose(folder)
    assert set(analysis["matrices"]) == {"input", "output"}
    groups = {role: matrix["groups"] for role, matrix in analysis["matrices"].items()}
    assert groups["input"]["reserved"]["count"] - groups["output"]["reserved"]["count"] == 448 - used


def test_the_rank_of_float64_rows_is_exact_or_undefined(tmp_path, monkeypatch):
    s = torch.logspace(0, -8, 40, dtype=torch.float64)
    np.save(tmp_path / "items.npy", with_spectrum(s, 90).numpy())

    def measured():
        return gti_diag.diagnose(tmp_path / "items.npy", new="0:90")["matrices"]["input"]["groups"]["new"]

    assert measured()["numerical_rank"] == 40
    monkeypatch.setattr("gti_diag.measures.spectra.DIRECT", 1000)
    found = measured()
    assert found["numerical_rank"] is None and "no singular value under 4e-8" in found["undefined"]["numerical_rank"]
