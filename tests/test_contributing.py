"""The reader's map in CONTRIBUTING leads to functions that exist, through rooms that it names."""

import importlib
import re
import sys
from pathlib import Path

import pytest

from gti_diag import cli

from .test_architecture import ROOMS, ROOT, room_of

TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
MAP = TEXT.partition("## A reader's map")[2].partition("\n## ")[0]
NAMES = re.findall(r"`(gti_(?:diag|train)\.[\w.]+)`", MAP)


@pytest.mark.parametrize("name", NAMES)
def test_each_name_on_the_map_exists(name):
    module, _, attribute = name.rpartition(".")
    assert callable(getattr(importlib.import_module(module), attribute))


def test_both_routes_are_on_the_map():
    assert {name.partition(".")[0] for name in NAMES} == set(ROOMS) and len(NAMES) > 15


def test_analyze_passes_six_rooms(tiny_lm, tmp_path, monkeypatch):
    """Down the stairs and back: every Python function of ours that runs is asked for its room."""
    entered = set()

    def note(frame, event, argument):
        name = frame.f_globals.get("__name__", "")
        if event == "call" and name.startswith("gti_diag."):
            entered.add(room_of(name)[1])

    checkpoint = tiny_lm("mean", new_tokens=[f"<{letter}_{code}>" for letter in "ab" for code in range(8)])
    monkeypatch.setattr(sys, "argv", ["gti-diag", "analyze", str(checkpoint), "--out", str(tmp_path / "out")])
    sys.setprofile(note)
    try:
        with pytest.raises(SystemExit, match=r"^0$"):
            cli.main()
    finally:
        sys.setprofile(None)
    assert Path(tmp_path / "out" / "analysis.json").is_file()
    below = {None, "foreign"}  # what stands beside the folders, and the gate for foreign text under all of them
    assert entered - below == {"cli", "checkpoint", "tokens", "analysis", "measures", "render"}
