"""Codes of others are read in every form, checked, and given the codebooks that suit them best."""

import json

import pytest
import torch

from gti_diag.errors import InputError
from gti_train.semantic_ids.brought import fitted_to, in_order, read_codes
from gti_train.semantic_ids.clustering import residual_kmeans
from gti_train.semantic_ids.files import save_sids
from gti_train.semantic_ids.making import make_ids

from .cases import nested

EXPECTED = {"x": (0, 7), "y": (3, 1)}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("codes.json", json.dumps({"x": ["<a_0>", "<b_7>"], "y": ["<|a_3|>", "<|b_1|>"]})),
        ("X.index.json", json.dumps({"x": [0, 7], "y": [3, 1]})),
        ("sids.json", json.dumps({"schema": 1, "items": {"x": [0, 7], "y": [3, 1]}})),
        ("info.txt", "<a_0><b_7>\tRed lamp\tx\n<a_3><b_1>\tOak desk\ty\n"),
        (
            "items.jsonl",
            '{"item_id": "x", "title": "", "sid": ["<a_0>", "<b_7>"]}\n{"item_id": "y", "title": "", "sid": ["<a_3>", "<b_1>"]}\n',
        ),
    ],
)
def test_codes_are_read_in_every_form(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert read_codes(tmp_path / name) == EXPECTED


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        ({"x": [0, 1], "y": [2]}, r"codes of \[1, 2\] levels; every item needs as many"),
        ({}, "no codes"),
        ({"x": ["<b_0>", "<a_1>"]}, "item 'x': .* is no code"),
        ({"x": ["lamp"]}, "is no code"),
        ({"x": [-1]}, "is no code"),
        ({"x": 3}, "is no code"),
    ],
)
def test_what_is_no_code_is_refused(tmp_path, codes, message):
    (tmp_path / "codes.json").write_text(json.dumps(codes))
    with pytest.raises(InputError, match=message):
        read_codes(tmp_path / "codes.json")


def test_unreadable_codes_are_refused(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        read_codes(tmp_path / "codes.json")
    (tmp_path / "codes.json").write_text("{")
    with pytest.raises(InputError, match="not JSON"):
        read_codes(tmp_path / "codes.json")


def test_codebooks_of_brought_codes_are_those_of_kmeans_where_the_codes_are():
    made = residual_kmeans(nested(), sizes=(4, 3))
    for given, own in zip(fitted_to(nested(), made.codes).quantiser.books, made.quantiser.books, strict=True):
        assert torch.allclose(given, own, atol=1e-6)


def test_our_own_folder_is_read_and_put_in_order(tmp_path):
    sids = make_ids([f"i{n}" for n in range(48)], nested(), residual_kmeans(nested(), sizes=(4, 3))).sids
    save_sids(sids, tmp_path)
    wanted = ["i7", "i0"]
    assert torch.equal(in_order(read_codes(tmp_path), wanted, tmp_path), sids.codes[[7, 0]])
