"""How a command ends: whatever goes wrong, one line and the right exit code."""

import sys

import pytest

from gti_diag.cli import shell
from gti_diag.errors import InputError


@pytest.fixture
def ended(monkeypatch, capsys):
    """`ended(error, *arguments)`: exit code and standard error of a command that raises `error`."""

    def run(error, *arguments):
        monkeypatch.setattr(sys, "argv", ["gti-diag", *arguments])

        def app(prog_name):
            raise error

        with pytest.raises(SystemExit) as left:
            shell.run(app, "gti-diag")
        return left.value.code, capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    "error, said",
    [
        (InputError("x.json: no\nsuch [thing]"), "gti-diag: x.json: no such [thing]\n"),
        (KeyError("count"), "gti-diag: KeyError: 'count' (not foreseen; --debug shows where it came from)\n"),
        (RecursionError(), "gti-diag: RecursionError: no message (not foreseen; --debug shows where it came from)\n"),
        (
            ModuleNotFoundError("No module named 'sklearn'", name="sklearn.cluster"),
            "gti-diag: this needs sklearn, which is not installed: pip install 'gti-diag[train]'\n",
        ),
        (
            ModuleNotFoundError("No module named 'typo'", name="typo"),
            "gti-diag: ModuleNotFoundError: No module named 'typo' (not foreseen; --debug shows where it came from)\n",
        ),
        (MemoryError(), "gti-diag: out of memory: lower --max-memory, or give the machine more\n"),
        (PermissionError(13, "Permission denied", "\x1b[31m/x"), "gti-diag: \\u001b[31m/x: Permission denied\n"),
        (
            InputError("::error::boo \ud800 https://me:pw@h/"),
            "gti-diag: \\u003a:error::boo \\ud800 https://me:***@h/\n",
        ),
    ],
)
def test_every_error_is_one_line_and_two(ended, error, said):
    assert ended(error) == (2, said)


def test_an_interrupt_is_130(ended):
    assert ended(KeyboardInterrupt()) == (130, "gti-diag: interrupted\n")


@pytest.mark.parametrize("arguments, variable", [(["--debug"], ""), (["analyze", "--debug", "x"], "0"), ([], "1")])
def test_the_traceback_is_shown_where_it_is_asked_for(ended, monkeypatch, arguments, variable):
    monkeypatch.setenv("GTI_DEBUG", variable)
    code, err = ended(KeyError("count"), *arguments)
    assert code == 2
    assert "Traceback" in err and "raise error" in err
    assert "--debug" not in sys.argv


@pytest.mark.parametrize("arguments", [["check", "--", "--debug"], ["x"]])
def test_otherwise_it_is_not(ended, monkeypatch, arguments):
    monkeypatch.delenv("GTI_DEBUG", raising=False)
    assert "Traceback" not in ended(KeyError("count"), *arguments)[1]
    assert sys.argv[1:] == arguments


def test_lines_are_said_as_they_can_be_shown(capsys):
    shell.say("a\n::error::b", "[/INST]")
    assert capsys.readouterr().out == "a↵\\u003a:error::b\n[/INST]\n"


def test_every_package_named_belongs_to_the_extra_that_is_named():
    """pyproject.toml and the table of what to install say the same."""
    from pathlib import Path

    from gti_diag.cli.extras import EXTRAS
    from gti_diag.gate.policy import tomllib

    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    listed = project["optional-dependencies"]
    called = {"sklearn": "scikit-learn", "google.protobuf": "protobuf", "sentence_transformers": "sentence-transformers",
              "aiohttp": "fsspec[http]"}  # fmt: skip
    for package, extra in EXTRAS.items():
        name = called.get(package, package)
        assert any(requirement.startswith(name) for requirement in listed[extra]), package
