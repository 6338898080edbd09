"""Material of the command line's tests: a command, run in this process."""

import sys

import pytest

from gti_train import cli


@pytest.fixture
def command(monkeypatch, capsys):
    """Run `gti-train …` in this process: (exit code, what it printed, what it complained)."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["gti-train", *map(str, arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as leaving:
            code = leaving.code or 0
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run
