"""What the sizes of a checkpoint say, in the gate and in every form of a report."""

import io

import pytest
from rich.console import Console

from gti_diag.errors import InputError
from gti_diag.gate.findings import check
from gti_diag.render import html, markdown, terminal
from tests.gti_diag.render.render_cases import plain

from .gate_cases import analysis

KINDS = ("tokens without a row", "rows of the base lost", "rows of the base's padding")
TEXT = "3 tokens have no row in model.embed_tokens.weight (20 rows): <a_0>, <a_1>, <a_2>"


def alarmed(made, *, kind=KINDS[0], fails=True):
    made["tokens"]["alarms"] = [{"kind": kind, "text": TEXT, "fails": fails}]
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_an_alarm_fails_a_check_of_healthy_rows_with_cause_and_remedy(kind):
    assert check(analysis()).passed
    found = check(alarmed(analysis(), kind=kind))
    (failed,) = [finding for finding in found.findings if finding.status == "fail"]
    assert not found.passed and (failed.measure, failed.got) == (kind, TEXT)
    assert failed.cause and failed.action and failed.verify


def test_an_alarm_that_does_not_fail_is_a_note():
    found = check(alarmed(analysis(), fails=False))
    assert found.passed and found.notes[0] == TEXT


def test_without_new_tokens_only_an_alarm_that_fails_is_a_finding():
    made = analysis()
    del made["tokens"]["groups"]["new"]
    with pytest.raises(InputError, match="no new tokens to check"):
        check(alarmed(made, fails=False))
    assert not check(alarmed(made)).passed


def test_every_report_shows_it():
    made = [alarmed(plain())]
    screen = io.StringIO()
    Console(file=screen, width=200).print(terminal.summary(made))
    assert TEXT in screen.getvalue()
    assert "3 tokens have no row in model.embed" in markdown.summary(made).replace("\\", "")
    assert "3 tokens have no row in model.embed_tokens.weight (20 rows): &lt;a_0&gt;" in html.report(made)
