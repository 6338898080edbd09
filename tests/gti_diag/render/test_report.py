"""Canonical JSON, atomic files, and the folder that a run leaves behind."""

import json
import os
import stat

import numpy as np
import pytest
import torch

from gti_diag import document
from gti_diag.errors import InputError
from gti_diag.files import atomic, write_text
from gti_diag.render import report


def test_canonical_takes_tensors_and_arrays_and_rounds():
    found = document.canonical({"t": torch.tensor([1.0, 1 / 3]), "a": np.array([2]), "n": None, "b": True, "s": ("x",)})
    assert found == {"t": [1.0, 0.333333343], "a": [2], "n": None, "b": True, "s": ["x"]}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), torch.tensor([1.0, float("nan")])])
def test_canonical_refuses_what_is_no_number_and_names_it(value):
    with pytest.raises(ValueError, match=r"analysis\.groups\.new is (nan|inf): a report needs None and the reason"):
        document.canonical({"groups": {"new": value}})


def test_canonical_refuses_other_types():
    with pytest.raises(TypeError, match="cannot write a object to JSON"):
        document.canonical(object())


def test_dumps_keeps_a_row_of_numbers_on_one_line():
    text = document.dumps({"schema": 1, "m": [[1, 2], [3, 4]], "s": [1.5, 2], "empty": {}, "e": []})
    assert json.loads(text) == {"schema": 1, "m": [[1, 2], [3, 4]], "s": [1.5, 2], "empty": {}, "e": []}
    assert "  [1, 2],\n" in text and '"s": [1.5, 2]' in text


def test_read_returns_what_was_written(tmp_path):
    one = {"schema": 1, "checkpoint": {"path": "runs/x"}, "matrices": {"input": {"groups": {}}}, "x": 1}
    document.write_json([one], tmp_path / "analysis.json")
    document.write_json([one, one], tmp_path / "comparison.json")
    assert document.read(tmp_path / "analysis.json") == [one]
    assert document.read(tmp_path / "comparison.json") == [one, one]


@pytest.mark.parametrize(
    "content,words",
    [
        ("{", "is not usable JSON"),
        ('{"schema": 1}', "lacks checkpoint; run analyze again"),
        ("[]", "schema None"),
        ('{"schema": 99}', "schema 99, this gti-diag reads schema 1"),
    ],
)
def test_read_refuses_other_files(tmp_path, content, words):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(InputError, match=words):
        document.read(tmp_path / "a.json")


def test_read_names_a_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"gone\.json: cannot be read"):
        document.read(tmp_path / "gone.json")


def test_atomic_leaves_nothing_behind_on_failure(tmp_path):
    target = tmp_path / "kept.txt"
    target.write_text("old")

    def half_way():
        with atomic(target) as temporary:
            temporary.write_text("new")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        half_way()
    assert target.read_text() == "old" and os.listdir(tmp_path) == ["kept.txt"]


def test_atomic_reports_a_full_disk_in_one_line(tmp_path):
    with pytest.raises(InputError, match=r"cannot write .*x\.txt: No space left"), atomic(tmp_path / "x.txt"):
        raise OSError(28, "No space left on device")
    assert os.listdir(tmp_path) == []


def test_written_files_are_readable_by_others(tmp_path):
    mode = stat.S_IMODE(write_text(tmp_path / "a" / "b.txt", "x").stat().st_mode)
    plain = tmp_path / "plain.txt"
    plain.write_text("x")
    assert mode == stat.S_IMODE(plain.stat().st_mode)


def test_a_file_in_the_way_of_the_folder_is_told_before_the_work(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is not a folder that may be written"):
        report.check_writable(tmp_path / "file" / "out", ("json",))
    with pytest.raises(InputError, match="unknown format 'xml': choose from json, md, html, tex"):
        report.check_writable(tmp_path, ("xml",))
