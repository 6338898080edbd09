"""The hierarchy part of an analysis, and item tables from files."""

import json

import pytest
import torch

from gti_diag.analysis.levels import hierarchy_summary, read_items
from gti_diag.errors import InputError

TOKENS = ["<a_0>", "<a_1>", "<b_0>", "<b_1>", "<b_2>", "<b_3>"]
LEVELS = torch.tensor([1, 1, 2, 2, 2, 2])


def test_token_strings_and_numbers_mean_the_same(tmp_path):
    strings = {"x": ["<a_0>", "<b_1>"], "y": ["<a_1>", "<b_3>"]}
    numbers = {"items": {"x": [0, 1], "y": [1, 3]}}
    for name, content in (("s.json", strings), ("n.json", numbers)):
        (tmp_path / name).write_text(json.dumps(content))
        assert read_items(tmp_path / name, TOKENS, LEVELS).tolist() == [[0, 3], [1, 5]]


@pytest.mark.parametrize(
    "content,words",
    [
        ("{", "is not usable JSON"),
        ('{"x": [0.5]}', "a code is a token string, or its number"),
        ('{"x": [[0]]}', "a code is a token string, or its number"),
        ('{"x": [true]}', "a code is a token string, or its number"),
        ("[1]", "maps each item to the list"),
        ("{}", "maps each item to the list"),
        ('{"x": ["<a_0>"], "y": ["<a_0>", "<b_0>"]}', "some items have more codes"),
        ('{"x": ["<a_0>", "<c_9>"]}', "'<c_9>' is not among the 6 new tokens"),
        ('{"x": [0, 9]}', "code 9 of level 2 is not among"),
    ],
)
def test_what_is_wrong_with_a_table_is_named(tmp_path, content, words):
    (tmp_path / "t.json").write_text(content)
    with pytest.raises(InputError, match=words):
        read_items(tmp_path / "t.json", TOKENS, LEVELS)


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(InputError, match=r"gone\.json: cannot be read"):
        read_items(tmp_path / "gone.json", TOKENS, LEVELS)


def test_siblings_are_nearer_than_strangers_when_rows_follow_the_tree():
    parents = torch.eye(8, dtype=torch.float64)[:2] * 3
    children = torch.cat([parents[i // 2][None] + 0.5 * torch.eye(8, dtype=torch.float64)[2 + i] for i in range(4)])
    rows = torch.cat([parents, children])
    items = torch.tensor([[0, 2], [0, 3], [1, 4], [1, 5]])
    found = hierarchy_summary(rows, LEVELS, items)
    second = found["levels"]["2"]
    assert second["siblings"] > 0.5 > 0 > second["strangers"] and second["cophenetic"] > 0.95
    assert "cophenetic" not in found["levels"]["1"] and found["items"] == 4


def test_no_levels_no_hierarchy_and_one_point_says_why():
    assert hierarchy_summary(torch.randn(4, 3), None, None) is None
    found = hierarchy_summary(torch.ones(6, 3), LEVELS, None)
    assert found["levels"] == {} and "cosine" in found["undefined"]["levels"]
